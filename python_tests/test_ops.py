"""The raw ops: torch's own checks of an op, the shapes that tracing sees, and the reference."""

from typing import Any

import pytest
import torch
from recurrence_cases import layer_tensors, numbers
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.library import opcheck

import fastseq
from fastseq import ops, reference
from fastseq.ops import Cell

pytestmark = pytest.mark.usefixtures("one_thread")
FORWARD = torch.ops.fastseq.recurrence.default
BACKWARD = torch.ops.fastseq.recurrence_backward.default
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
VARIANTS: dict[str, dict[str, Any]] = {
    "padded": {},
    "one step": {"steps": 1},
    "packed": {"sizes": [3, 2, 2, 1]},
    "empty batch": {"batch": 0},
    "wide": {"batch": 9, "hidden": 37},
}
each_cell = pytest.mark.parametrize("cell", Cell, ids=lambda c: c.name)
each_variant = pytest.mark.parametrize("variant", VARIANTS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_way = pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])


def arguments(
    cell: Cell, variant: str, dtype: torch.dtype, reverse: bool, project: int | None = None
) -> dict[str, Any]:
    made = layer_tensors(cell, dtype=dtype, project=project, **VARIANTS[variant])
    return {**made, "reverse": reverse}


def backward_arguments(
    forward: dict[str, Any], saved: tuple[Tensor, ...], wanted: str = "all"
) -> tuple[Any, ...]:
    """Random gradients of the outputs in ``wanted``, and what forward saved."""
    grads = []
    for i, (name, t) in enumerate(zip(ops.Forward._fields, saved, strict=True)):
        usable = t.numel() > 0 and (wanted == "all" or name in wanted.split())
        grads.append(numbers(*t.shape, seed=60 + i, dtype=t.dtype) if usable else None)
    y, _, _, gates, cells = saved
    rest = ("h0", "c0", "weight_hh", "weight_hr", "batch_sizes", "cell", "reverse")
    return (*grads, y, gates, cells, *(forward[name] for name in rest))


@each_cell
@each_variant
@each_dtype
def test_opcheck(cell: Cell, variant: str, dtype: torch.dtype) -> None:
    # Gradients are registered by fastseq.autograd, not by the op: opcheck's autograd test is moot.
    utils = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    forward = arguments(cell, variant, dtype, reverse=False)
    opcheck(FORWARD, (*forward.values(), True), test_utils=utils)
    opcheck(FORWARD, (*forward.values(), False), test_utils=utils[:2])
    saved = FORWARD(*forward.values(), True)
    opcheck(BACKWARD, backward_arguments(forward, saved), test_utils=utils)


def test_opcheck_with_projection() -> None:
    utils = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    for variant in ("padded", "packed"):
        forward = arguments(Cell.LSTM, variant, torch.float32, True, project=3)
        opcheck(FORWARD, (*forward.values(), True), test_utils=utils)
        saved = FORWARD(*forward.values(), True)
        opcheck(BACKWARD, backward_arguments(forward, saved), test_utils=utils)


@each_cell
@each_variant
@each_dtype
@pytest.mark.parametrize("project", [None, 3])
def test_fakes_are_exact(cell: Cell, variant: str, dtype: torch.dtype, project: int | None) -> None:
    if cell != Cell.LSTM:
        project = None
    forward = arguments(cell, variant, dtype, False, project)
    strided = forward["pre"].transpose(0, -1).contiguous().transpose(0, -1)
    forward["pre"] = strided
    for save in (True, False):
        real = FORWARD(*forward.values(), save)
        with FakeTensorMode() as mode:
            sizes = forward["batch_sizes"]
            fake_args = {
                n: mode.from_tensor(v) if isinstance(v, Tensor) else v for n, v in forward.items()
            }
            fake = FORWARD(*fake_args.values(), save)
        assert (sizes is None) == (fake_args["batch_sizes"] is None)
        assert_same_layout(fake, real)
    saved = FORWARD(*forward.values(), True)
    args = backward_arguments(forward, saved)
    with FakeTensorMode() as mode:
        fake = BACKWARD(*(mode.from_tensor(v) if isinstance(v, Tensor) else v for v in args))
    assert_same_layout(fake, BACKWARD(*args))


def assert_same_layout(fake: tuple[Tensor, ...], real: tuple[Tensor, ...]) -> None:
    for f, r in zip(fake, real, strict=True):
        assert (f.shape, f.stride(), f.dtype) == (r.shape, r.stride(), r.dtype)


@each_cell
@each_variant
@each_way
@pytest.mark.parametrize("project", [None, 3])
@pytest.mark.parametrize("wanted", ["all", "y", "h_n", "c_n", "gates", "cells h_n", "y c_n gates"])
def test_against_the_reference(
    cell: Cell, variant: str, reverse: bool, project: int | None, wanted: str
) -> None:
    if cell != Cell.LSTM:
        project = None
    forward = arguments(cell, variant, torch.float64, reverse, project)
    saved = ops.recurrence(**forward, save=True)
    expected = reference.recurrence(**forward)
    for name, a, b in zip(saved._fields, saved, expected, strict=True):
        if b.numel() == 0:
            assert a.numel() == 0, name
            continue
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")
    args = backward_arguments(forward, saved, wanted)
    mine, theirs = ops.recurrence_backward(*args), reference.recurrence_backward(*args)
    for name, a, b in zip(mine._fields, mine, theirs, strict=True):
        if b.numel() == 0:
            assert a.numel() == 0, name
            continue
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")


@each_cell
@each_way
def test_saving_changes_no_result(cell: Cell, reverse: bool) -> None:
    forward = arguments(cell, "packed", torch.float32, reverse)
    kept, alone = ops.recurrence(**forward, save=True), ops.recurrence(**forward, save=False)
    for a, b in zip(kept[:3], alone[:3], strict=True):
        assert torch.equal(a, b)
    assert alone.gates.numel() == alone.cells.numel() == 0


@each_cell
@each_way
def test_a_row_does_not_depend_on_its_neighbours(cell: Cell, reverse: bool) -> None:
    forward = arguments(cell, "wide", torch.float32, reverse)
    whole = ops.recurrence(**forward, save=False)
    part = dict(forward)
    for name in ("h0", "c0"):
        part[name] = None if part[name] is None else part[name][4:6]
    part["pre"] = part["pre"][:, 4:6]
    assert torch.equal(ops.recurrence(**part, save=False).y, whole.y[:, 4:6])


@each_cell
@each_way
def test_packed_equals_padded_row_by_row(cell: Cell, reverse: bool) -> None:
    packed = arguments(cell, "packed", torch.float64, reverse)
    y = ops.recurrence(**packed, save=False).y
    sizes = packed["batch_sizes"].tolist()
    starts = [sum(sizes[:t]) for t in range(len(sizes))]
    for row in range(sizes[0]):
        places = [start + row for start, size in zip(starts, sizes, strict=True) if row < size]
        alone = {**packed, "pre": packed["pre"][places].unsqueeze(1), "batch_sizes": None}
        for name in ("h0", "c0"):
            alone[name] = None if packed[name] is None else packed[name][row : row + 1]
        expected = ops.recurrence(**alone, save=False).y[:, 0]
        torch.testing.assert_close(y[places], expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("cell", list(Cell))
def test_gates_of_cells(cell: Cell) -> None:
    made = layer_tensors(cell)
    assert made["weight_hh"].shape[0] == cell.gates * made["h0"].shape[1]
    assert ops.recurrence(**made, save=True).gates.numel() == cell.cached * 4 * 3 * 5


def test_meta_tensors_pass_through_a_module() -> None:
    lstm = fastseq.LSTM(3, 4, bidirectional=True, device="meta")
    output, (h_n, c_n) = lstm(torch.zeros(5, 2, 3, device="meta"))
    assert (output.shape, h_n.shape, c_n.shape) == ((5, 2, 8), (2, 2, 4), (2, 2, 4))
