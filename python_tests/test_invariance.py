"""Batch invariance: a row's bits do not depend on the rows beside it, nor on the threads."""

import random

import pytest
import torch
from recurrence_cases import CELLS, KINDS, leaves, numbers

import fastseq

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SIZES = [(5, 33, 20, 40), (1, 9, 16, 128), (7, 3, 30, 300), (3, 17, 600, 33)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", [False, True])
def test_layers(kind: str, dtype: torch.dtype, norm: bool) -> None:
    """Outputs, final states and input gradients, by default and inside the context."""
    draw, threads = random.Random(0), torch.get_num_threads()
    try:
        for steps, batch, width, hidden in SIZES:
            module = getattr(fastseq, kind)(
                width, hidden, num_layers=2, bidirectional=True, layer_norm=norm, dtype=dtype
            )
            x = numbers(steps, batch, width, dtype=dtype).requires_grad_()
            grad = numbers(steps, batch, 2 * hidden, seed=2, dtype=dtype)
            torch.set_num_threads(2)
            y, h_n = module(x)
            (grad_x,) = torch.autograd.grad(y, x, grad)
            for rows in ([batch - 1], sorted(draw.sample(range(batch), min(batch, 9)))):
                torch.set_num_threads(draw.choice([1, 2, 3]))
                some = x.detach()[:, rows].requires_grad_()
                with fastseq.batch_invariant():
                    part, h_part = module(some)
                    (grad_part,) = torch.autograd.grad(part, some, grad[:, rows])
                assert torch.equal(part, y[:, rows])
                assert torch.equal(grad_part, grad_x[:, rows])
                for a, b in zip(leaves(h_part), leaves(h_n), strict=True):
                    assert torch.equal(a, b[:, rows])
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("kind", CELLS)
def test_cells_inside_the_context(kind: str) -> None:
    """Few rows have a quicker way, which adds in another order; not inside the context."""
    cell = getattr(fastseq, kind)(300, 128)
    x, h = numbers(40, 300), numbers(40, 128, seed=2)
    hx = (h, h) if kind == "LSTMCell" else h

    def some(rows: slice) -> list[torch.Tensor]:
        part = (h[rows], h[rows]) if kind == "LSTMCell" else h[rows]
        return leaves(cell(x[rows], part))

    with torch.no_grad(), fastseq.batch_invariant():
        whole = leaves(cell(x, hx))
        for rows in (slice(0, 1), slice(3, 5), slice(7, 40)):
            for a, b in zip(some(rows), whole, strict=True):
                assert torch.equal(a, b[rows])
    with torch.no_grad():
        outside = [torch.equal(some(slice(i, i + 1))[0], whole[0][i : i + 1]) for i in range(40)]
    assert not all(outside)  # so the context does something


def test_streams_inside_the_context() -> None:
    lstm = fastseq.LSTM(300, 128, num_layers=2)
    x = numbers(3, 6, 300)
    with torch.no_grad(), fastseq.batch_invariant():
        whole = lstm(x)[0]
        for row in range(6):
            state = None
            for t in range(3):
                y, state = lstm.step(x[t, row : row + 1], state)
                assert torch.equal(y[0], whole[t, row])
