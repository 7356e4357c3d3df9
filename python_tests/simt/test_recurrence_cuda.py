"""The CUDA recurrence without a GPU: its host loop and its kernels against the CPU op.

What this proves: indexing, masks, buffers, packed and reversed rows, and the algebra of every cell.
What it does not: that the kernels start on a GPU, and how fast they are (test_cuda.py).
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import fastseq
from fastseq.ops import Cell

CASES = [
    (cell, projected, packed, reverse)
    for cell in Cell
    for projected in ((False, True) if cell == Cell.LSTM else (False,))
    for packed in (False, True)
    for reverse in (False, True)
]
pytestmark = pytest.mark.usefixtures("machine")
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.bfloat16: 2e-2,
    torch.float16: 4e-3,
}


def inputs(
    cell: Cell, projected: bool, packed: bool, dtype: torch.dtype, batch: int = 5, hidden: int = 67
) -> tuple[list[Tensor | None], Tensor | None]:
    """Arguments of the op from pre to weight_hr, and batch_sizes."""
    torch.manual_seed(3)
    steps, state = 6, 11 if projected else hidden
    sizes = torch.tensor([batch, batch, 3, 3, 1, 1]) if packed else None
    lead = (int(sizes.sum()),) if sizes is not None else (steps, batch)
    lstm, gru = cell == Cell.LSTM, cell == Cell.GRU

    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(*shape, dtype=torch.float64) * scale).to(dtype)

    return [
        draw(*lead, cell.gates * hidden),
        draw(batch, state),
        draw(batch, hidden) if lstm else None,
        draw(cell.gates * hidden, state, scale=0.2),
        draw(hidden) if gru else None,
        draw(state, hidden, scale=0.2) if projected else None,
    ], sizes


def assert_close(got: Tensor, expected: Tensor, tolerance: float) -> None:
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    assert bool(got.isfinite().all())
    error = (got.double() - expected.double()).norm()
    assert float(error) <= tolerance * max(float(expected.double().norm()), 1e-6)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("cell", "projected", "packed", "reverse"), CASES)
def test_forward_and_backward_equal_the_cpu_op(
    cell: Cell, projected: bool, packed: bool, reverse: bool, dtype: torch.dtype
) -> None:
    arguments, sizes = inputs(cell, projected, packed, dtype)
    tail = (sizes, int(cell), reverse)
    expected = torch.ops.fastseq.recurrence(*arguments, *tail, True)
    got = torch.ops.fastseq_simt.recurrence(*arguments, *tail, True)
    for a, b in zip(got, expected, strict=True):
        assert_close(a, b, TOLERANCE[dtype])

    _, h0, c0, weight_hh, _, weight_hr = arguments
    y, h_n, c_n, gates, cells = expected
    grads = [torch.randn_like(t) if t.numel() else None for t in (y, h_n, c_n, gates, cells)]
    for given in (
        grads,
        [grads[0], None, None, None, None],
        [None, grads[1], grads[2], None, None],
    ):
        call = (*given, y, gates, cells, h0, c0, weight_hh, weight_hr, *tail)
        expected_back = torch.ops.fastseq.recurrence_backward(*call)
        got_back = torch.ops.fastseq_simt.recurrence_backward(*call)
        for a, b in zip(got_back, expected_back, strict=True):
            assert_close(a, b, 4 * TOLERANCE[dtype])


@pytest.mark.parametrize("cell", list(Cell))
@pytest.mark.parametrize(("batch", "hidden"), [(1, 1), (1, 256), (3, 257), (64, 8)])
def test_ends_of_blocks(cell: Cell, batch: int, hidden: int) -> None:
    """Launches that fill their last block, spill one thread over, or hold a single one."""
    arguments, _ = inputs(cell, False, False, torch.float32, batch, hidden)
    tail = (None, int(cell), False)
    expected = torch.ops.fastseq.recurrence(*arguments, *tail, True)
    got = torch.ops.fastseq_simt.recurrence(*arguments, *tail, True)
    for a, b in zip(got, expected, strict=True):
        assert_close(a, b, 1e-5)


def test_without_saving_it_returns_no_cache() -> None:
    arguments, _ = inputs(Cell.LSTM, False, False, torch.float32)
    y, _, _, gates, cells = torch.ops.fastseq_simt.recurrence(*arguments, None, 0, False, False)
    assert gates.numel() == cells.numel() == 0
    assert_close(y, fastseq.ops.recurrence(*arguments, None, 0, False, False).y, 1e-5)


def test_empty_batch() -> None:
    arguments, _ = inputs(Cell.GRU, False, False, torch.float32, batch=0)
    y, h_n, *_ = torch.ops.fastseq_simt.recurrence(*arguments, None, 1, False, True)
    assert y.shape == (6, 0, 67)
    assert h_n.shape == (0, 67)
