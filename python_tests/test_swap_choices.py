"""swap(): ReLUs in place, only some modules, subclasses, the report, what torch.jit compiled."""

import copy
import pickle
import warnings
from typing import Any

import pytest
import torch
from image_cases import images
from recurrence_cases import assert_close, call, numbers
from swap_cases import assert_same, snapshot, swapped
from torch import Tensor, nn

import fastseq

pytestmark = pytest.mark.usefixtures("one_thread")


class Inplace(nn.Module):
    """ReLU, LRN and max-pool behind various layers, and their input used again."""

    def __init__(self, *before: nn.Module) -> None:
        super().__init__()
        three = (nn.ReLU(inplace=True), nn.LocalResponseNorm(3, 0.1), nn.MaxPool2d(3, 1, 1))
        self.features = nn.Sequential(*before, *three)

    def forward(self, x: Tensor) -> Tensor:
        x = x * 1
        return self.features(x) + x


@pytest.mark.parametrize(
    ("before", "fused"),
    [
        ((), False),
        ((nn.Identity(),), False),
        ((nn.Dropout(),), False),
        ((nn.Flatten(0, 0),), False),
        ((nn.Conv2d(3, 3, 1),), True),
        ((nn.BatchNorm2d(3),), True),
        ((nn.Conv2d(3, 3, 1), nn.Dropout()), False),
        ((nn.ConvTranspose2d(3, 3, 1),), True),
        ((nn.GroupNorm(1, 3),), True),
    ],
    ids=lambda v: "+".join(type(m).__name__ for m in v) if isinstance(v, tuple) else str(v),
)
def test_a_relu_in_place_whose_input_others_read(before: Any, fused: bool) -> None:
    model = Inplace(*before).eval()
    x = images(2, 3, 8, 8)
    expected = model(x)
    report = swapped(model)
    torch.testing.assert_close(model(x), expected)
    trios = [m for m in model.modules() if type(m) is fastseq.ReLULRNMaxPool2d]
    assert len(trios) == fused
    assert fused or "works in place" in str(report)


def test_a_relu_in_place_behind_a_hooked_convolution() -> None:
    """The hook keeps what the ReLU is about to change."""
    model = Inplace(nn.Conv2d(3, 3, 1))
    seen: list[Tensor] = []
    model.features[0].register_forward_hook(lambda module, args, out: seen.append(out))
    x = images(2, 3, 8, 8)
    model(x)
    assert "works in place" in str(swapped(model))
    model(x)
    assert torch.equal(seen[0], seen[1])
    assert (seen[1] >= 0).all()


def test_a_hook_on_every_module_forbids_fusion() -> None:
    """As a profiler of layers registers it."""
    model = Inplace(nn.Conv2d(3, 3, 1))
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, out: None)
    try:
        assert "a hook looks between" in str(swapped(model))
        assert not any(type(m) is fastseq.ReLULRNMaxPool2d for m in model.modules())
    finally:
        handle.remove()
    swapped(model, back=True)
    swapped(model)
    assert any(type(m) is fastseq.ReLULRNMaxPool2d for m in model.modules())


def test_the_report_reaches_the_screen_and_the_log(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = nn.ModuleDict({"gru": nn.GRU(3, 4)})
    said = "gru: torch.nn.GRU -> fastseq.GRU"
    with caplog.at_level("INFO", "fastseq"):
        fastseq.swap(model)
    assert [(r.name, r.message) for r in caplog.records] == [("fastseq", said)]
    assert capsys.readouterr().out == ""
    fastseq.swap(model, back=True)
    fastseq.swap(model, verbose=True)
    assert capsys.readouterr().out == said + "\n"


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleList([nn.LSTM(3, 4), nn.GRU(4, 4)])
        self.decoder = nn.ModuleList([nn.LSTM(3, 4), nn.MaxPool2d(2)])
        self.features = nn.Sequential(nn.ReLU(), nn.LocalResponseNorm(3), nn.MaxPool2d(2))


@pytest.mark.parametrize(
    ("only", "names"),
    [
        (nn.LSTM, ["encoder.0", "decoder.0"]),
        (nn.RNNBase, ["encoder.0", "encoder.1", "decoder.0"]),
        (fastseq.LSTM, ["encoder.0", "decoder.0"]),
        ("encoder.*", ["encoder.0", "encoder.1"]),
        ("*.0", ["encoder.0", "decoder.0"]),
        ((nn.GRU, "decoder.0"), ["encoder.1", "decoder.0"]),
        (lambda name, module: "coder" in name and isinstance(module, nn.GRU), ["encoder.1"]),
        ([nn.LSTM, lambda name, module: name.endswith("1")],
         ["encoder.0", "encoder.1", "decoder.0", "decoder.1", "features.1"]),
        ("features.*", ["features.0"]),
        ((nn.LocalResponseNorm, nn.MaxPool2d), ["features.0", "decoder.1"]),
        (nn.LocalResponseNorm, ["features.1"]),
        ((), []),
    ],
    ids=lambda v: "" if callable(v) or not isinstance(v, str) else v,
)  # fmt: skip
def test_only_some(only: Any, names: list[str]) -> None:
    model = Parts()
    before = snapshot(model)
    report = swapped(model, only=only)
    assert {name for name, *_ in report.replaced} == set(names)
    again = swapped(model, back=True)
    assert {name for name, *_ in again.replaced} == set(names)
    assert_same(snapshot(model), before)


def test_only_some_back() -> None:
    model = fastseq.swap(Parts())
    fastseq.swap(model, back=True, only=(nn.LSTM, "encoder.*"))
    assert [type(m).__module__.partition(".")[0] for m in (*model.encoder, *model.decoder)] == [
        "torch", "torch", "torch", "fastseq"
    ]  # fmt: skip
    assert type(model.features[0]) is fastseq.ReLULRNMaxPool2d


def test_only_what_is_there() -> None:
    with pytest.raises(ValueError, match=r"only='encodr\.\*' fits the name of no module"):
        fastseq.swap(Parts(), only=(nn.GRU, "encodr.*"))
    with pytest.raises(TypeError, match="only takes classes, patterns of names and functions"):
        fastseq.swap(Parts(), only=(3,))  # type: ignore[arg-type]


def test_numbers_of_a_fused_module_go_back_to_its_parts() -> None:
    model = nn.Sequential(nn.ReLU(), nn.LocalResponseNorm(5, 5e-4, k=2.0), nn.MaxPool2d(3, 2))
    fastseq.swap(model)
    trio = model[0]
    trio.alpha, trio.size, trio.k, trio.stride, trio.ceil_mode = 0.25, 3, 1.5, 1, True
    x = images(2, 6, 9, 8)
    expected = model(x)
    fastseq.swap(model, back=True)
    assert (model[1].size, model[1].alpha, model[1].k) == (3, 0.25, 1.5)
    assert (model[2].stride, model[2].ceil_mode) == (1, True)
    torch.testing.assert_close(model(x), expected)
    fastseq.swap(model)
    model[0].alpha = nn.Parameter(torch.tensor(0.5))
    assert "it has parameters now" in str(swapped(model, back=True))
    model = nn.Sequential(nn.ReLU(), nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2))
    model[1].alpha = nn.Parameter(torch.tensor(0.5))
    assert "its LRN has parameters" in str(swapped(model))
    assert list(model.state_dict()) == ["1.alpha"]


@pytest.mark.parametrize("how", ["script", "trace"])
def test_what_torch_jit_compiled_is_left(how: str) -> None:
    def compiled(module: nn.Module) -> Any:
        with warnings.catch_warnings():  # torch.jit is deprecated
            warnings.simplefilter("ignore")
            if how == "script":
                return torch.jit.script(module)
            return torch.jit.trace(module, torch.zeros(1, 3, 8, 8))

    pool = compiled(nn.Sequential(nn.Conv2d(3, 3, 1), nn.MaxPool2d(2)))
    model = nn.Sequential(compiled(nn.Conv2d(3, 3, 1)), pool, nn.MaxPool2d(2))
    x = images(2, 3, 8, 8)
    expected = model(x)
    report = swapped(model)
    assert [(name, why) for name, _, why in report.left] == [
        ("1", "torch.jit has compiled it, with MaxPool2d in it; swap before that")
    ]
    assert [name for name, *_ in report.replaced] == ["2"]
    assert torch.equal(model(x), expected)
    assert "left, torch.jit has compiled it" in str(swapped(pool))
    fastseq.swap(model, back=True)
    assert type(model[2]) is nn.MaxPool2d


class Handling:
    """Before torch.nn's class in the order of bases, as pytorch-forecasting has it."""

    def forward(self, x: Tensor, hx: Any = None, lengths: Any = None) -> Any:
        y, state = super().forward(x, hx)  # type: ignore[misc]
        return 2 * y, state


class OwnLSTM(Handling, nn.LSTM):
    def first(self) -> type:
        return __class__  # type: ignore[name-defined]


class OwnPool(nn.MaxPool2d):
    def forward(self, input: Tensor) -> Any:
        return super().forward(input.relu())


class OwnCell(nn.GRUCell):
    pass


class Deaf(nn.GRU):
    def forward(self, input: Tensor, hx: Any = None) -> Any:
        return input, hx


def test_subclasses_by_request() -> None:
    model = nn.ModuleDict({"own": OwnLSTM(3, 4, 2), "pool": OwnPool(2), "cell": OwnCell(3, 4),
                           "deaf": Deaf(3, 4)})  # fmt: skip
    inputs = {"own": numbers(5, 2, 3), "pool": images(2, 3, 8, 8), "cell": numbers(2, 3)}
    expected = {name: call(model[name], x) for name, x in inputs.items()}
    before = snapshot(model)
    assert len(swapped(model).left) == 4
    report = swapped(model, subclasses=True)
    assert [name for name, *_ in report.replaced] == ["own", "pool", "cell"]
    assert report.left == [("deaf", f"{__name__}.Deaf",
                            "the forward of Deaf does not call that of torch.nn.GRU")]  # fmt: skip
    assert (
        "own: test_swap_choices.OwnLSTM -> test_swap_choices.OwnLSTM on fastseq's kernels"
        in str(report)
    )
    own = model["own"]
    assert isinstance(own, OwnLSTM)
    assert isinstance(own, fastseq.LSTM)
    assert isinstance(own, nn.LSTM)
    assert own.first() is OwnLSTM
    ours = functional_calls(own, inputs["own"])
    assert ours == 2  # layers
    for again in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        for name, x in inputs.items():
            assert_close(call(again[name], x), expected[name], 1e-5)
        assert str(swapped(again, subclasses=True)).count("->") == 0
    fastseq.swap(model, back=True)
    assert type(model["own"]) is OwnLSTM
    assert_same(snapshot(model), before)


def functional_calls(module: nn.Module, x: Tensor) -> int:
    """How often a call of the module runs fastseq's op for a layer."""
    with torch.no_grad(), torch.profiler.profile() as profile:
        module(x)
    return sum(event.name == "fastseq::layer" for event in profile.events())
