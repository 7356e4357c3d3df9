"""swap(): what it replaces, what it keeps, and the way back."""

import copy
import pickle
import warnings
from typing import Any

import pytest
import torch
from image_cases import images
from recurrence_cases import assert_close, assert_equal, call, leaves, numbers, packed
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import fastseq
from fastseq.swap import Swapped

pytestmark = pytest.mark.usefixtures("one_thread")


class Net(nn.Module):
    """Nested and shared modules, and the pattern twice."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.ReLU(inplace=True),
            nn.LocalResponseNorm(5, 5e-4, k=2.0),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(8, 6, 3),
            nn.LocalResponseNorm(3),
            nn.Sequential(
                nn.ReLU(), nn.LocalResponseNorm(3, 1e-2), nn.MaxPool2d(2, ceil_mode=True)
            ),
        )
        self.pool = nn.MaxPool2d(2)
        self.same_pool = self.pool
        self.lstm = nn.LSTM(6, 4, 2, batch_first=True, bidirectional=True)
        self.cell = nn.GRUCell(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.same_pool(self.features(x))
        y, _ = self.lstm(x.flatten(2).transpose(1, 2))
        return self.cell(y[:, -1])


class Speech(nn.Module):
    """A recogniser: convolutions, a pyramid of BiLSTMs, an attending LSTMCell, a GRU on its states.

    Layers are shared, parametrized, pruned, frozen and hooked, and one is held outside the tree.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.front = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.LocalResponseNorm(3), nn.MaxPool2d(2)
        )
        stack = [nn.LSTM(16, 6, bidirectional=True, dropout=0.0)]
        stack += [nn.LSTM(12, 6, bidirectional=True, proj_size=4)]
        stack += [nn.LSTM(8, 4, 2, bidirectional=True, dropout=0.5)]
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(stack), "norm": nn.LayerNorm(8)})
        self.cell = nn.LSTMCell(8 + 8, 8)
        self.states = nn.ModuleList([nn.GRU(8, 8)])
        self.states.append(self.states[0])  # twice the same
        self.gates = nn.RNN(8, 5, nonlinearity="relu")
        self.head = nn.Linear(5, 7)
        self.aside = [self.gates]
        parametrizations.weight_norm(stack[0], "weight_hh_l0")
        parametrizations.spectral_norm(self.cell, "weight_hh")
        prune.random_unstructured(stack[1], "weight_ih_l0", 0.3)
        for p in stack[2].parameters():
            p.requires_grad_(False)

    def forward(self, sound: Tensor) -> Tensor:
        y = self.front(sound[:, None])  # (B, 4, T / 2, F / 2)
        y = y.permute(2, 0, 1, 3).flatten(2)
        ragged = pack_padded_sequence(y, torch.tensor([10, 6, 3]), enforce_sorted=False)
        for layer in self.encoder["layers"]:
            ragged, _ = layer(ragged)
        memory = self.encoder["norm"](pad_packed_sequence(ragged)[0])  # (T / 2, B, 8)
        state = None
        steps = []
        context = memory.mean(0)
        for _ in range(3):
            state = self.cell(torch.cat([context, memory[0]], 1), state)
            weights = (memory * state[0]).sum(-1, keepdim=True).softmax(0)
            context = (weights * memory).sum(0)
            steps.append(context)
        y = torch.stack(steps)
        for layer in self.states:
            y, _ = layer(y)
        return self.head(self.aside[0](y)[0])


SOUND = numbers(3, 20, 8)


def snapshot(model: nn.Module) -> dict[str, Any]:
    """What must be as it was: objects, kinds, modes, gradients wanted, keys, values."""
    return {
        "modules": [(name, id(m)) for name, m in model.named_modules(remove_duplicate=False)],
        "kinds": [parametrize.type_before_parametrizations(m) for m in model.modules()],
        # Under "__module__" stands that it is a leaf for torch.fx.
        "own": [sorted(set(vars(m)) - {"__module__"}) for m in model.modules()],
        "training": [m.training for m in model.modules()],
        "parameters": [(n, id(p), p.requires_grad) for n, p in model.named_parameters()],
        "buffers": [(n, id(b)) for n, b in model.named_buffers()],
        "keys": list(model.state_dict()),
        "values": [t.detach().clone() for t in model.state_dict().values()],
    }


def assert_same(found: dict[str, Any], expected: dict[str, Any], *but: str) -> None:
    for name, value in expected.items():
        if name in but:
            continue
        if name == "values":
            assert all(torch.equal(a, b) for a, b in zip(found[name], value, strict=True))
        else:
            assert found[name] == value, name


def swapped(model: nn.Module, *args: Any, **options: Any) -> Swapped:
    """Swap; the report, which said before what would happen, and changed nothing."""
    before = snapshot(model)
    report = fastseq.swap_report(model, *args, **options)
    on_meta = any(t.is_meta for t in model.state_dict().values())
    assert_same(snapshot(model), before, *(["values"] if on_meta else []))
    assert fastseq.swap(model, *args, **options) is model
    return report


def test_replaces_and_keeps() -> None:
    model = Net().eval()
    model.lstm.weight_hh_l0.requires_grad_(False)
    x = images(2, 3, 26, 26)
    expected = model(x)
    keys = list(model.state_dict())
    identities = [id(p) for p in model.parameters()]
    report = swapped(model)
    assert type(model.features[1]) is fastseq.ReLULRNMaxPool2d
    assert type(model.features[5]) is fastseq.LocalResponseNorm
    assert type(model.features[6][0]) is fastseq.ReLULRNMaxPool2d
    assert type(model.pool) is fastseq.MaxPool2d
    assert model.pool is model.same_pool
    assert type(model.lstm) is fastseq.LSTM
    assert type(model.cell) is fastseq.GRUCell
    assert list(model.state_dict()) == keys
    assert [id(p) for p in model.parameters()] == identities
    assert not any(module.training for module in model.modules())
    assert not model.lstm.weight_hh_l0.requires_grad
    torch.testing.assert_close(model(x), expected)
    assert "features.1: torch.nn.ReLU + " in str(report)
    assert "lstm: torch.nn.LSTM -> fastseq.LSTM" in str(report)
    assert [name for name, *_ in report.replaced if "pool" in name] == ["pool", "same_pool"]


def test_back() -> None:
    model = Net()
    before = snapshot(model)
    x = images(2, 3, 26, 26)
    expected = call(model, x)
    fastseq.swap(model)
    report = swapped(model, back=True)
    assert_same(snapshot(model), before)
    assert_equal(call(model, x), expected)
    assert len(report.replaced) == 7
    fastseq.swap(model)
    model.eval()
    fastseq.swap(model, back=True)
    assert not any(module.training for module in model.modules())
    assert str(swapped(nn.Linear(2, 2))) == "nothing to replace"


def test_twice_is_once() -> None:
    model = Net()
    fastseq.swap(model)
    before = snapshot(model)
    assert str(swapped(model)) == "nothing to replace"
    assert_same(snapshot(model), before)


def test_gradients_and_training_after_swap() -> None:
    model = Net().double()
    twin = copy.deepcopy(model)
    fastseq.swap(twin)
    x = images(2, 3, 26, 26, dtype=torch.float64)
    for net in (model, twin):
        net(x).square().sum().backward()
    for a, b in zip(twin.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    optimiser = torch.optim.SGD(twin.parameters(), 0.1)
    optimiser.step()
    model.load_state_dict(twin.state_dict())
    torch.testing.assert_close(model(x), twin(x))


def test_copies_and_pickles() -> None:
    model = Net()
    fastseq.swap(model)
    x = images(2, 3, 26, 26)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), model(x))
        fastseq.swap(other, back=True)
        assert type(other.features[3]) is nn.MaxPool2d


def test_hooks_stay_and_forbid_fusion() -> None:
    model = Net()
    seen = []
    handles = [
        module.register_forward_hook(lambda module, args, out: seen.append(type(module)))
        for module in (model.features[2], model.lstm)
    ]
    report = swapped(model)
    assert type(model.features[1]) is nn.ReLU
    assert type(model.features[2]) is fastseq.LocalResponseNorm
    assert ("features.1", "torch.nn.ReLU", report.left[0][2]) == report.left[0]
    assert "a hook looks between" in report.left[0][2]
    x = images(2, 3, 26, 26)
    model(x)
    assert seen == [fastseq.LocalResponseNorm, fastseq.LSTM]
    for handle in handles:
        handle.remove()
    model(x)
    assert len(seen) == 2


def test_without_fusion() -> None:
    model = Net()
    x = images(2, 3, 26, 26)
    expected = [part(x) for part in (model.features[:2], model.features[:3], model.features[:4])]
    fastseq.swap(model, fuse=False)
    assert type(model.features[1]) is nn.ReLU
    assert type(model.features[3]) is fastseq.MaxPool2d
    found = [part(x) for part in (model.features[:2], model.features[:3], model.features[:4])]
    torch.testing.assert_close(found, expected)


def test_a_recurrent_module_by_itself() -> None:
    """Its class changes; whoever holds it has it."""
    for kind in ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"):
        module = getattr(nn, kind)(3, 4)
        before = snapshot(module)
        report = swapped(module)
        assert type(module) is getattr(fastseq, kind)
        assert str(report) == f"(the model): torch.nn.{kind} -> fastseq.{kind}"
        fastseq.swap(module, back=True)
        assert_same(snapshot(module), before)


def test_speech_recogniser() -> None:
    model, native = Speech(), Speech()
    seen = []
    model.encoder["layers"][1].register_forward_hook(lambda m, args, out: seen.append(type(m)))
    model.encoder["layers"][1].train(False)
    native.encoder["layers"][1].train(False)
    before = snapshot(model)
    report = swapped(model)
    assert report.left == []
    assert [name for name, *_ in report.replaced] == [
        "front.1",
        "cell",
        "gates",
        "encoder.layers.0",
        "encoder.layers.1",
        "encoder.layers.2",
        "states.0",
        "states.1",
    ]
    assert_same(snapshot(model), before, "modules", "kinds", "own")
    assert type(model.aside[0]) is fastseq.RNN
    assert_close(call(model, SOUND), call(native, SOUND), 1e-5)
    assert seen == [fastseq.LSTM]
    # A step of training, and back.
    for net in (model, native):
        torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 0.1).step()
    assert_close(call(model.eval(), SOUND), call(native.eval(), SOUND), 1e-5)
    for net in (model, native):
        net.train()
        net.encoder["layers"][1].eval()
    trained = snapshot(model)
    fastseq.swap(model, back=True)
    assert_same(snapshot(model), trained, "modules", "kinds", "own")
    assert_same(snapshot(model), before, "values")
    native.load_state_dict(model.state_dict())
    assert_equal(call(model.eval(), SOUND), call(native.eval(), SOUND))
    parametrize.remove_parametrizations(model.cell, "weight_hh")
    assert type(model.cell) is nn.LSTMCell


def test_parametrized_modules_stay_themselves() -> None:
    """Called before and swapped, deep-copied, freed of their parametrization, swapped back."""
    x = numbers(5, 2, 3)
    module = nn.GRU(3, 4)
    parametrizations.weight_norm(module, "weight_ih_l0")
    expected = call(module, x)
    fastseq.swap(module)
    assert_close(call(module, x), expected, 1e-6)
    twin = copy.deepcopy(module)
    assert isinstance(twin, fastseq.GRU)
    assert_equal(call(twin, x), call(module, x))
    twin.double()
    assert isinstance(copy.deepcopy(twin), fastseq.GRU)
    fastseq.swap(module, back=True)
    assert isinstance(module, nn.GRU)
    assert_equal(call(module, x), expected)
    fastseq.swap(module)
    parametrize.remove_parametrizations(module, "weight_ih_l0")
    assert type(module) is fastseq.GRU
    torch.testing.assert_close(leaves(module(x))[0], expected["output 0"])


def test_a_step_of_spectral_norm_is_not_taken_by_swapping() -> None:
    module = nn.LSTM(3, 4)
    parametrizations.spectral_norm(module, "weight_hh_l0")
    before = snapshot(module)
    fastseq.swap(module)
    module.half().float()
    module.load_state_dict(dict(zip(before["keys"], before["values"], strict=True)))
    fastseq.swap(module, back=True)
    assert_same({"values": snapshot(module)["values"]}, {"values": before["values"]})


def test_on_meta() -> None:
    with torch.device("meta"):
        model = Speech()
    report = swapped(model)
    assert report.left == []
    assert all(p.is_meta for p in model.parameters())
    model.to_empty(device="cpu")
    model.load_state_dict(Speech().state_dict())
    torch.testing.assert_close(model.eval()(SOUND), Speech().eval()(SOUND))


def test_what_is_left_and_why() -> None:
    class Own(nn.MaxPool2d):
        pass

    class Ours(fastseq.GRU):
        pass

    model = nn.Sequential(
        Own(2),
        nn.ReLU(),
        fastseq.LocalResponseNorm(3, within_channel=True),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.LocalResponseNorm(3),
        nn.MaxPool2d(2, return_indices=True),
        Ours(3, 4),
        nn.RNN(3, 4),
    )
    with warnings.catch_warnings():  # of a feature under active development
        warnings.simplefilter("ignore")
        model[8].to(torch.complex64)
    report = swapped(model)
    why = {name: reason for name, _, reason in report.left}
    assert set(why) == {"0", "1", "4", "8"}
    assert why["0"].startswith("a subclass of torch.nn.MaxPool2d may do something else; subclass")
    assert "within a channel" in why["1"]
    assert "indices" in why["4"]
    assert why["8"] == "there are no kernels for its dtype, torch.complex64"
    back = swapped(model, back=True)
    assert "2: fastseq.LocalResponseNorm left, torch.nn has no LRN within a channel" in str(back)
    assert "a subclass of fastseq.GRU may do something else" in str(back)
    own = nn.Sequential(fastseq.ReLULRNMaxPool2d())
    assert "did not put it there" in str(swapped(own, back=True))


def test_a_trio_that_is_in_use_stays() -> None:
    hooked, moved = (
        nn.Sequential(nn.ReLU(), nn.LocalResponseNorm(3), nn.MaxPool2d(2)) for _ in range(2)
    )
    fastseq.swap(hooked)
    hooked[2].register_forward_hook(lambda module, args, out: None)
    assert "a hook looks at it" in str(swapped(hooked, back=True))
    assert type(hooked[0]) is fastseq.ReLULRNMaxPool2d
    fastseq.swap(moved)
    moved.pop(2)
    assert "were moved" in str(swapped(moved, back=True))


@pytest.mark.parametrize(("name", "pools"), [("alexnet", 3), ("googlenet", 13)])
def test_torchvision_models(name: str, pools: int) -> None:
    models = pytest.importorskip("torchvision.models")
    options = {"init_weights": False} if name == "googlenet" else {}
    with torch.device("meta"):  # initialising 61 million numbers takes seconds
        model = getattr(models, name)(weights=None, **options).eval()
    model.to_empty(device="cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for t in (*model.parameters(), *model.buffers()):
            t.normal_(0, 0.05) if t.dim() == 4 else t.fill_(1)
    x = images(1, 3, 96, 96, scale=1.0)
    before = snapshot(model)
    with torch.no_grad():
        expected = model(x)
    report = swapped(model)
    assert len(report.replaced) == pools
    assert all(new == "fastseq.MaxPool2d" for _, _, new in report.replaced)
    assert report.left == []
    assert_same(snapshot(model), before, "kinds")
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected, rtol=0, atol=0)
    fastseq.swap(model, back=True)
    assert_same(snapshot(model), before)
    with torch.no_grad():
        assert torch.equal(model(x), expected)


def test_packed_after_swap() -> None:
    module = nn.GRU(3, 4, 2, bidirectional=True)
    x = packed([2, 4, 1], 3)
    expected = call(module, x)
    fastseq.swap(module)
    assert_close(call(module, x), expected, 1e-6)


def test_what_torch_nn_has_not_stays() -> None:
    """A layer norm that torch.nn would silently leave out."""
    model = nn.ModuleDict({
        "normed": fastseq.LSTM(3, 4, layer_norm=True, zoneout=0.1), "plain": fastseq.GRU(3, 4)
    })  # fmt: skip
    report = swapped(model, back=True)
    assert isinstance(model["plain"], nn.GRU)
    assert isinstance(model["normed"], fastseq.LSTM)
    assert "torch.nn has no layer_norm=True, zoneout=(0.1, 0.1)" in str(report)


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
    ids=str,
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
    assert "own: test_swap.OwnLSTM -> test_swap.OwnLSTM on fastseq's kernels" in str(report)
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


@pytest.mark.parametrize(
    "register",
    ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook",
     "register_full_backward_pre_hook"],
)  # fmt: skip
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_hook_of_any_kind_forbids_fusion(register: str, place: int) -> None:
    model = nn.Sequential(nn.ReLU(), nn.LocalResponseNorm(3), nn.MaxPool2d(2))
    seen: list[str] = []
    handle = getattr(model[place], register)(lambda *_: seen.append(register))
    fastseq.swap(model)
    assert type(model[0]) is nn.ReLU
    x = images(2, 3, 6, 6).requires_grad_()
    model(x).sum().backward()
    assert seen == [register]
    handle.remove()
    fastseq.swap(model)
    assert type(model[0]) is fastseq.ReLULRNMaxPool2d


def test_back_leaves_an_lrn_within_a_channel() -> None:
    """torch.nn would normalize across channels without a word."""
    model = nn.Sequential(
        fastseq.LocalResponseNorm(3, within_channel=True), fastseq.LocalResponseNorm(3)
    )
    x = images(2, 5, 6, 6)
    expected = model(x)
    report = swapped(model, back=True)
    assert [type(module) for module in model] == [fastseq.LocalResponseNorm, nn.LocalResponseNorm]
    assert "within a channel" in str(report)
    torch.testing.assert_close(model(x), expected)
