"""swap(): what it replaces, what it keeps, and the way back."""

import copy
import pickle
import warnings

import pytest
import torch
from image_cases import images
from recurrence_cases import assert_close, assert_equal, call, leaves, numbers, packed
from swap_cases import SOUND, Net, Speech, assert_same, snapshot, swapped
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import fastseq

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_a_shared_module_is_explained_once() -> None:
    """A module that is replaced is named at each place, one that is left at its first."""

    class Own(nn.MaxPool2d):
        pass

    own = Own(2)
    report = swapped(nn.Sequential(own, nn.Identity(), own))
    assert [name for name, *_ in report.left] == ["0"]


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
