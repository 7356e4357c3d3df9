"""Uses of recurrences and pools that PyTorch's own tests cover, of ours after a swap."""

from typing import Any

import pytest
import torch
from before_and_after import assert_same_after_swap, holding, swapped_copy
from recurrence_cases import CELLS, KINDS, numbers
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_sequence, unpack_sequence

T, B, I, H = 6, 4, 5, 6  # noqa: E741
each_kind = pytest.mark.parametrize("kind", KINDS)
each_cell = pytest.mark.parametrize("kind", CELLS)


class Tagged(Tensor):
    """A subclass that does nothing, as fastai's."""


def layer(kind: str, num_layers: int = 2, **options: Any) -> nn.ModuleDict:
    return holding(rnn=getattr(nn, kind)(I, H, num_layers, **options))


def pair(kind: str, h: Any) -> Any:
    """As many states as the kind takes."""
    return (h, h) if kind.startswith("LSTM") else h


@each_kind
def test_a_learned_initial_state(kind: str) -> None:
    """A Parameter expanded over the batch, with a stride of 0."""
    model = layer(kind)
    model.register_parameter("first", nn.Parameter(torch.ones(2, 1, H)))

    def run(model: Any) -> Any:
        return model["rnn"](numbers(T, B, I), pair(kind, model.first.expand(-1, B, -1)))

    assert_same_after_swap(model, run)


@each_kind
def test_weights_in_any_layout(kind: str) -> None:
    """``.data`` is a transposed matrix, and a bias of one number expanded."""

    def run(model: Any) -> Any:
        rnn = model["rnn"]
        rows = rnn.weight_ih_l0.shape[0]
        rnn.weight_ih_l0.data = numbers(I, rows).t()
        rnn.bias_ih_l0.data = numbers(1).expand(rows)
        return rnn(numbers(T, B, I))

    assert_same_after_swap(layer(kind), run)


@each_kind
def test_gradients_of_a_frozen_layers_input(kind: str) -> None:
    """Adversarial examples: nothing but the input has a gradient."""

    def run(model: Any) -> list[Tensor]:
        model.requires_grad_(False)
        x = numbers(T, B, I).requires_grad_()
        y, _ = model["rnn"](x)
        return list(torch.autograd.grad(y.square().sum(), x))

    assert_same_after_swap(layer(kind, bidirectional=True), run, grads=False)


@each_kind
def test_a_graph_is_run_twice_through_a_hook(kind: str) -> None:
    """``retain_graph``, and a hook on the output that doubles its gradient."""

    def run(model: Any) -> list[Tensor]:
        y, _ = model["rnn"](numbers(T, B, I))
        y.register_hook(lambda grad: grad * 2)
        y.sum().backward(retain_graph=True)
        y.square().sum().backward()
        return [y.detach()]

    assert_same_after_swap(layer(kind), run)


@each_kind
@pytest.mark.parametrize("where", ["input", "state"])
def test_subclasses_of_tensor(kind: str, where: str) -> None:
    """The result of a tensor subclass is of that class where torch.nn's is."""
    model, x, h = layer(kind), numbers(T, B, I), numbers(2, B, H)
    found = []
    for net in (model, swapped_copy(model)):
        if where == "input":
            y, _ = net["rnn"](x.as_subclass(Tagged))  # type: ignore[index]
        else:
            y, _ = net["rnn"](x, pair(kind, h.as_subclass(Tagged)))  # type: ignore[index]
        found.append(y)
    assert type(found[1]) is type(found[0])
    torch.testing.assert_close(*(y.as_subclass(Tensor) for y in found))


@pytest.mark.parametrize("module", [nn.MaxPool2d(3, 2), nn.LocalResponseNorm(3)])
def test_subclasses_of_tensor_as_images(module: nn.Module) -> None:
    """As above, of images."""
    images = numbers(2, 3, 9, 9)
    ours = swapped_copy(nn.Sequential(module))(images.as_subclass(Tagged))
    assert type(ours) is type(module(images.as_subclass(Tagged)))
    torch.testing.assert_close(ours.as_subclass(Tensor), module(images))


@each_kind
def test_inference_tensors_go_in(kind: str) -> None:
    """Made in ``inference_mode``, used under ``no_grad``; with gradients on both refuse."""
    model = layer(kind)
    twin = swapped_copy(model)
    with torch.inference_mode():
        x = numbers(T, B, I) * 1
    with torch.no_grad():
        torch.testing.assert_close(twin["rnn"](x), model["rnn"](x))  # type: ignore[index]
    for net in (model, twin):
        with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
            net["rnn"](x)  # type: ignore[index]


@each_kind
def test_an_orthogonal_weight(kind: str) -> None:
    """``parametrizations.orthogonal`` on weight_hh_l0."""
    rnn = parametrizations.orthogonal(layer(kind, 1)["rnn"], "weight_hh_l0")
    assert_same_after_swap(nn.ModuleDict({"rnn": rnn}), lambda m: m["rnn"](numbers(T, B, I)))


@each_kind
def test_made_into_graphs(kind: str) -> None:
    """``make_fx``, and shapes of a FakeTensor whose weights are real."""
    x = numbers(T, B, I)
    rnn: Any = swapped_copy(layer(kind))["rnn"]
    with torch.no_grad():
        torch.testing.assert_close(make_fx(lambda x: rnn(x)[0])(x)(x), rnn(x)[0])
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert rnn(torch.empty(T, B, I))[0].shape == (T, B, H)


@each_kind
def test_some_weights_by_functional_call(kind: str) -> None:
    """The rest of the weights are the module's own."""

    def run(model: Any) -> Any:
        some = {n: p * 2 for n, p in model["rnn"].named_parameters() if "weight" in n}
        return functional_call(model["rnn"], some, (numbers(T, B, I),))

    assert_same_after_swap(layer(kind), run)


@each_kind
def test_sequences_packed_from_a_list(kind: str) -> None:
    """``pack_sequence`` and ``unpack_sequence``, of rows in any order."""

    def run(model: Any) -> Any:
        x = numbers(T, 3, I)
        rows = [x[:3, 0], x[:6, 1], x[:1, 2]]
        y, h = model["rnn"](pack_sequence(rows, enforce_sorted=False))
        return [*unpack_sequence(y), h]

    assert_same_after_swap(layer(kind, bidirectional=True), run)


@each_cell
def test_cells_take_lists_and_expanded_states_and_no_others(kind: str) -> None:
    """A state of one row is not broadcast over the batch; a list will do for a tuple."""

    def run(model: Any) -> Any:
        x, one = numbers(B, I), numbers(1, H)
        with pytest.raises(RuntimeError, match="Input batch size 4 doesn't match hidden0 batch"):
            model["cell"](x, pair(kind, one))
        states = pair(kind, one.expand(B, H))
        return model["cell"](x, list(states) if isinstance(states, tuple) else states)

    assert_same_after_swap(holding(cell=getattr(nn, kind)(I, H)), run)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_pools_of_integers(dtype: torch.dtype) -> None:
    """Whole numbers are pooled exactly; for bool torch.nn has no kernel, and we say the same."""
    images = (numbers(2, 3, 9, 9) * 9).abs().to(dtype)
    pool = nn.MaxPool2d(3, 2)
    ours = swapped_copy(nn.Sequential(pool))
    got = ours(images)
    assert got.dtype == dtype
    assert torch.equal(got, pool(images))
    for net in (pool, ours):
        with pytest.raises(NotImplementedError, match="not implemented for 'Bool'"):
            net(images > 3)
