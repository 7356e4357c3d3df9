"""The quick way of calls without gradients: the numbers, dtypes and words of the long one."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from recurrence_cases import CELLS, KINDS, leaves, numbers, states, twins
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import weight_norm
from torch.profiler import ProfilerActivity, profile

import fastseq
from fastseq.nn import quick

each_kind = pytest.mark.parametrize("kind", KINDS)
T, B, I, H = 5, 4, 3, 20  # noqa: E741
OPTIONS: list[dict[str, Any]] = [
    {}, {"bias": False}, {"batch_first": True}, {"dropout": 0.5}, {"proj_size": 7},
    {"proj_size": 7, "bias": False, "batch_first": True},
]  # fmt: skip


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("batch", [1, 2, 4, 5, 37])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_quick_cells_are_torch_nns(kind: str, batch: int, dtype: torch.dtype) -> None:
    """The way without gradients: odd sizes, strided input, no bias, any number of rows."""
    for hidden, width, bias in [(1, 1, True), (17, 33, False), (128, 128, True), (40, 5, True)]:
        ours, native = twins(kind, width, hidden, bias, dtype=dtype)
        x = numbers(width, batch, dtype=dtype).t()
        h = numbers(batch, hidden, seed=3, dtype=dtype)
        hx: Any = (h, -h) if kind == "LSTMCell" else h
        with torch.no_grad():
            for state in (hx, None):
                torch.testing.assert_close(leaves(ours(x, state)), leaves(native(x, state)))


@pytest.mark.parametrize("kind", CELLS)
def test_quick_cells_read_weights_at_each_call(kind: str) -> None:
    """Data edited behind autograd's back, pruning, and parametrization."""
    cell = getattr(fastseq, kind)(I, H)
    x = numbers(B, I)

    def out() -> Tensor:
        with torch.no_grad():
            return leaves(cell(x))[0].clone()

    first = out()
    cell.weight_ih.data.mul_(2)
    second = out()
    prune.l1_unstructured(cell, "weight_ih", 0.5)
    third = out()
    weight_norm(cell, "weight_hh")
    cell.parametrizations.weight_hh.original0.data.mul_(3)
    cell.bias_ih.data.add_(1)
    found = [first, second, third, out()]
    assert all(not torch.equal(a, b) for a, b in pairwise(found))
    torch.testing.assert_close(found[-1], leaves(cell(x))[0])


@pytest.mark.parametrize("kind", [*KINDS, *CELLS])
def test_autocast_is_obeyed(kind: str) -> None:
    module = getattr(fastseq, kind)(I, H)
    x = numbers(B, I) if kind in CELLS else numbers(T, B, I)

    def out(grad: bool) -> Tensor:
        with torch.set_grad_enabled(grad):
            return leaves(module(x))[0].detach().clone()

    with torch.autocast("cpu", torch.bfloat16):
        expected, found = out(True), out(False)
    assert found.dtype == expected.dtype == torch.bfloat16
    assert torch.equal(found, expected)


@each_kind
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o) or "plain")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.filterwarnings("ignore:dropout option", "ignore:LSTM with projections")
def test_quick_layers_are_the_long_way(
    kind: str, options: dict[str, Any], dtype: torch.dtype
) -> None:
    """To the last bit, strided inputs and states among them; final states are no views."""
    if "proj_size" in options and kind != "LSTM":
        return
    module = getattr(fastseq, kind)(I, H, dtype=dtype, **options)
    for steps, batch in ((T, B), (1, 1), (2, 0), (1, 37)):
        x = numbers(I, steps, batch, dtype=dtype).movedim(0, -1)
        x = x.transpose(0, 1) if module.batch_first else x
        given = states(module, batch)
        given = (
            tuple(s.to(dtype).transpose(0, 1).contiguous().transpose(0, 1) for s in given)
            if (isinstance(given, tuple))
            else given.to(dtype)
        )
        for hx in (None, given):
            expected = leaves(module(x, hx))
            with torch.no_grad():
                assert quick.layer(module, x, hx if hx is None or kind == "LSTM" else (hx,))
                found = leaves(module(x, hx))
            for a, b in zip(found, expected, strict=True):
                assert a.shape == b.shape
                assert a.stride() == b.stride()
                assert torch.equal(a, b.detach())
                assert not a._is_view()


@each_kind
def test_quick_layers_read_weights_at_each_call(kind: str) -> None:
    module, x = getattr(fastseq, kind)(I, H), numbers(T, B, I)

    def out() -> Tensor:
        with torch.no_grad():
            return leaves(module(x))[0].clone()

    found = [out()]
    module.weight_ih_l0.data.mul_(2)
    found.append(out())
    prune.l1_unstructured(module, "weight_ih_l0", 0.5)
    found.append(out())
    weight_norm(module, "weight_hh_l0")
    module.parametrizations.weight_hh_l0.original0.data.mul_(3)
    found.append(out())
    assert all(not torch.equal(a, b) for a, b in pairwise(found))
    torch.testing.assert_close(found[-1], leaves(module(x))[0].detach())


@each_kind
def test_the_quick_way_leaves_the_words_to_the_long_one(kind: str) -> None:
    module = getattr(fastseq, kind)(I, H)
    h = torch.zeros(1, B, H)

    def hx(*sizes: int) -> Any:
        state = torch.zeros(*sizes)
        return (state, state) if kind == "LSTM" else state

    calls: list[Callable[[nn.Module], Any]] = [
        lambda m: m(numbers(T, B, I + 1)),
        lambda m: m(numbers(0, B, I)),
        lambda m: m(numbers(T, B, I).double()),
        lambda m: m(numbers(T, B, I, 1)),
        lambda m: m(numbers(T, B, I), hx(2, B, H)),
        lambda m: m(numbers(T, B, I), hx(1, B + 1, H)),
        lambda m: m(numbers(T, B, I), hx(1, B, H + 1)),
        lambda m: m(numbers(T, B, I), hx(B, H)),
        lambda m: m(numbers(T, B, I), (h.double(),) * 2 if kind == "LSTM" else h.double()),
        lambda m: m(torch.zeros(T, B, I, dtype=torch.int64)),
    ]
    for call in calls:
        with pytest.raises((RuntimeError, ValueError)) as expected:
            call(module)
        with torch.no_grad(), pytest.raises(type(expected.value)) as found:
            call(module)
        assert str(found.value) == str(expected.value)


@each_kind
def test_what_is_not_so_simple_goes_the_long_way(kind: str) -> None:
    x = numbers(T, B, I)
    for options in ({"num_layers": 2}, {"bidirectional": True}, {"zoneout": 0.1}):
        assert _quick(getattr(fastseq, kind)(I, H, **options), x) is None
    module = getattr(fastseq, kind)(I, H)
    assert _quick(module, x) is not None
    assert _quick(module, x[:, 0]) is None
    assert _quick(module, nn.utils.rnn.pack_sequence([x[:, 0]])) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert _quick(module, x) is None
    assert quick.layer(module, x, None) is None  # gradients
    seen = []
    torch.func.vmap(lambda one: seen.append(_quick(module, one)) or one)(x.unsqueeze(0))
    assert seen == [None]


def _quick(module: Any, x: Any) -> Any:
    with torch.no_grad():
        return quick.layer(module, x, None)


@each_kind
def test_a_quick_call_is_one_op_and_few_others(kind: str) -> None:
    module, x = getattr(fastseq, kind)(I, H), numbers(T, B, I)
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU]) as seen:
        module(x)
    names = [event.name for event in seen.events()]
    assert names.count("fastseq::layer") == 1
    assert "aten::unbind" not in names
    assert "aten::copy_" not in names


def test_the_mode_decides_what_an_rnn_computes() -> None:
    """As in nn.RNN, which reads ``nonlinearity`` when it is built, and not again."""
    ours, native = twins("RNN", I, H)
    for module in (ours, native):
        module.nonlinearity = "relu"
    x = numbers(T, B, I)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(ours(x)[0], native(x)[0])
    for module in (ours, native):
        module.mode = "RNN_RELU"
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(ours(x)[0], native(x)[0])
