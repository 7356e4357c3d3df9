"""LSTMCell, GRUCell and RNNCell against torch.nn's."""

from typing import Any

import pytest
import torch
from recurrence_cases import CELLS, assert_close, call, leaves, numbers, twins

import fastseq

pytestmark = pytest.mark.usefixtures("one_thread")
CASES: list[tuple[str, dict[str, Any]]] = [
    *((kind, options) for kind in CELLS for options in ({}, {"bias": False})),
    ("RNNCell", {"nonlinearity": "relu"}),
]
each_case = pytest.mark.parametrize(("kind", "options"), CASES, ids=str)


def hidden(kind: str, *shape: int, dtype: torch.dtype = torch.float32) -> Any:
    if kind != "LSTMCell":
        return numbers(*shape, seed=2, dtype=dtype)
    return tuple(numbers(*shape, seed=seed, dtype=dtype) for seed in (2, 3))


@each_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("batch", [None, 0, 1, 6, 33])
@pytest.mark.parametrize("given", [False, True], ids=["zeros", "hx"])
def test_parity(
    kind: str, options: dict[str, Any], dtype: torch.dtype, batch: int | None, given: bool
) -> None:
    ours, native = twins(kind, 7, 9, dtype=dtype, **options)
    rows = () if batch is None else (batch,)
    args = [numbers(*rows, 7, dtype=dtype)]
    if given:
        args.append(hidden(kind, *rows, 9, dtype=dtype))
    mine = call(ours, *args)
    assert_close(mine, call(native, *args), 1e-5)
    assert mine["output 0"].shape == (*rows, 9)


@each_case
def test_strided(kind: str, options: dict[str, Any]) -> None:
    ours, native = twins(kind, 7, 9, **options)
    x = numbers(7, 5).t()
    state = numbers(9, 5).t()
    hx = (state, state[:, :1].expand(5, 9)) if kind == "LSTMCell" else state
    outputs = 2 if kind == "LSTMCell" else 1
    grads = [numbers(5, 1).expand(5, 9)] * outputs
    assert_close(call(ours, x, hx, grads=grads), call(native, x, hx, grads=grads), 1e-5)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_16_bits(kind: str, dtype: torch.dtype) -> None:
    ours, native = twins(kind, 7, 9, dtype=dtype)
    args = (numbers(5, 7, dtype=dtype), hidden(kind, 5, 9, dtype=dtype))
    mine, theirs = call(ours, *args), call(native, *args)
    assert all(v.dtype == dtype for v in mine.values())
    assert_close(mine, theirs, 8 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("kind", CELLS)
def test_stepping_a_cell_is_the_layer(kind: str) -> None:
    layer = getattr(fastseq, kind.removesuffix("Cell"))(3, 4)
    cell = getattr(fastseq, kind)(3, 4)
    cell.load_state_dict({n.removesuffix("_l0"): v for n, v in layer.state_dict().items()})
    x = numbers(5, 2, 3)
    state = None
    steps = []
    for t in range(5):
        state = cell(x[t], state)
        steps.append(leaves(state)[0])
    torch.testing.assert_close(torch.stack(steps), layer(x)[0])


@pytest.mark.parametrize("kind", CELLS)
def test_state_dict_both_ways(kind: str) -> None:
    ours, _ = twins(kind, 3, 4, seed=1)
    _, native = twins(kind, 3, 4, seed=2)
    native.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(numbers(2, 3)), native(numbers(2, 3)))
    ours.load_state_dict(twins(kind, 3, 4, seed=3)[1].state_dict())
    assert not torch.equal(leaves(ours(numbers(2, 3)))[0], leaves(native(numbers(2, 3)))[0])


@pytest.mark.parametrize("kind", CELLS)
def test_input_changed_in_place_raises(kind: str) -> None:
    cell = getattr(fastseq, kind)(3, 4)
    hx = hidden(kind, 2, 4)
    output = leaves(cell(numbers(2, 3), hx))[0]
    leaves(hx)[0].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()
