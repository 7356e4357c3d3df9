"""One step of a cell without gradients, straight from the weights: for streams, single cells."""

from __future__ import annotations

import torch
from torch import Tensor

from fastseq.ops._common import fake
from fastseq.ops._vmap import one_at_a_time
from fastseq.ops.recurrence import Cell

# The overloads themselves: choosing one costs a call a tenth of a microsecond.
STEP = torch.ops.fastseq.step.default
STEP_ = torch.ops.fastseq.step_.default


def step(
    x: Tensor,
    h: Tensor,
    c: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    cell: int,
) -> tuple[Tensor, Tensor]:
    """One step of B rows.

    Args:
        x: (B, I).
        h: (B, H).
        c: (B, H); LSTM only.
        weight_ih: (G*H, I).
        weight_hh: (G*H, H).
        bias_ih: (G*H,).
        bias_hh: (G*H,).
        cell: a ``Cell``.

    Returns:
        h' (B, H), and c' (B, H), empty but for LSTM.

    Raises:
        RuntimeError: shapes, dtypes or devices do not fit together.
    """
    made: tuple[Tensor, Tensor] = STEP(x, h, c, weight_ih, weight_hh, bias_ih, bias_hh, int(cell))
    return made


@fake("step")
def _fake(
    x: Tensor,
    h: Tensor,
    c: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    cell: int,
) -> tuple[Tensor, Tensor]:
    shape = list(h.shape)
    return h.new_empty(shape), h.new_empty(shape if cell == Cell.LSTM else [0])


@fake("step_")
def _in_place_fake(*args: object) -> None:
    return None


torch.library.register_vmap("fastseq::step", one_at_a_time(STEP))
