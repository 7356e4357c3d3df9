"""The recurrence of ``torch.ops.fastseq``: calls, and output shapes for tracing.

Everything here works on one layer in one direction. ``T`` steps, ``B`` batch, ``H`` hidden size,
``R`` size of the hidden state (``H``, or the projection's), ``G`` gates, ``C`` saved values per
unit, ``N`` rows of all steps of a packed batch.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

from fastseq.ops._common import fake


class Cell(IntEnum):
    """Cell codes of the op schemas; the same as ``fastseq::Cell`` in C++."""

    LSTM = 0
    GRU = 1
    RNN_TANH = 2
    RNN_RELU = 3

    @property
    def gates(self) -> int:
        """Gates of the cell: rows of ``weight_hh`` per hidden unit."""
        return (4, 3, 1, 1)[self]

    @property
    def cached(self) -> int:
        """Values per unit that forward saves for backward, beside ``y`` and the cell states."""
        return (4, 4, 0, 0)[self]


class Forward(NamedTuple):
    """What the recurrence returns; ``gates`` and ``cells`` are empty unless saved."""

    y: Tensor  # (T, B, R) or (N, R)
    h_n: Tensor  # (B, R)
    c_n: Tensor  # (B, H), empty but for LSTM
    gates: Tensor  # (..., C*H)
    cells: Tensor  # (..., H), float32 for the 16-bit types


class Backward(NamedTuple):
    """Gradients of the recurrence's inputs that only its time loop can make."""

    grad_pre: Tensor  # (..., G*H)
    grad_aux: Tensor  # GRU: (..., H) of q = W_hn h + b_hn; projection: (..., R) of h; or empty
    grad_h0: Tensor  # (B, R)
    grad_c0: Tensor  # (B, H), empty but for LSTM


def recurrence(
    pre: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    weight_hh: Tensor,
    bias_hn: Tensor | None,
    weight_hr: Tensor | None,
    batch_sizes: Tensor | None,
    cell: int,
    reverse: bool,
    save: bool,
) -> Forward:
    """Run the time loop of one layer in one direction.

    Args:
        pre: input side of the pre-activations, biases included (for GRU all but the recurrent bias
            of n), (T, B, G*H), or (N, G*H) with ``batch_sizes``.
        h0: initial hidden state, (B, R).
        c0: initial cell state, (B, H); LSTM only.
        weight_hh: recurrent weights in nn.LSTM's gate order, (G*H, R).
        bias_hn: recurrent bias of GRU's n, (H,).
        weight_hr: projection of LSTM, (R, H).
        batch_sizes: rows of each step, int64 on the CPU, as in a PackedSequence.
        cell: a ``Cell``.
        reverse: run from the last step to the first.
        save: keep what backward needs.

    Raises:
        RuntimeError: shapes, dtypes or devices do not fit together.
    """
    return Forward(
        *torch.ops.fastseq.recurrence(
            pre, h0, c0, weight_hh, bias_hn, weight_hr, batch_sizes, int(cell), reverse, save
        )
    )


def recurrence_backward(
    grad_y: Tensor | None,
    grad_h_n: Tensor | None,
    grad_c_n: Tensor | None,
    grad_gates: Tensor | None,
    grad_cells: Tensor | None,
    y: Tensor,
    gates: Tensor,
    cells: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    weight_hh: Tensor,
    weight_hr: Tensor | None,
    batch_sizes: Tensor | None,
    cell: int,
    reverse: bool,
) -> Backward:
    """Run the time loop of back-propagation through time; arguments as forward returned them."""
    return Backward(
        *torch.ops.fastseq.recurrence_backward(
            grad_y,
            grad_h_n,
            grad_c_n,
            grad_gates,
            grad_cells,
            y,
            gates,
            cells,
            h0,
            c0,
            weight_hh,
            weight_hr,
            batch_sizes,
            int(cell),
            reverse,
        )
    )


def _rows(like: Tensor, width: int) -> list[int]:
    return [*like.shape[:-1], width]


def _sum_type(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


@fake("recurrence")
def _recurrence_fake(
    pre: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    weight_hh: Tensor,
    bias_hn: Tensor | None,
    weight_hr: Tensor | None,
    batch_sizes: Tensor | None,
    cell: int,
    reverse: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    kind = Cell(cell)
    hidden = weight_hh.shape[-2] // kind.gates
    state = h0.shape[-1]
    lstm = kind == Cell.LSTM
    return (
        pre.new_empty(_rows(pre, state)),
        pre.new_empty(_rows(h0, state)),
        pre.new_empty(_rows(h0, hidden) if lstm else [0]),
        pre.new_empty(_rows(pre, kind.cached * hidden) if save and kind.cached else [0]),
        pre.new_empty(_rows(pre, hidden) if save and lstm else [0], dtype=_sum_type(pre.dtype)),
    )


@fake("recurrence_backward")
def _recurrence_backward_fake(
    grad_y: Tensor | None,
    grad_h_n: Tensor | None,
    grad_c_n: Tensor | None,
    grad_gates: Tensor | None,
    grad_cells: Tensor | None,
    y: Tensor,
    gates: Tensor,
    cells: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    weight_hh: Tensor,
    weight_hr: Tensor | None,
    batch_sizes: Tensor | None,
    cell: int,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    kind = Cell(cell)
    hidden = weight_hh.shape[-2] // kind.gates
    state = h0.shape[-1]
    aux = [0]
    if kind == Cell.GRU:
        aux = _rows(y, hidden)
    if weight_hr is not None:
        aux = _rows(y, state)
    return (
        y.new_empty(_rows(y, kind.gates * hidden)),
        y.new_empty(aux),
        y.new_empty(_rows(h0, state)),
        y.new_empty(_rows(h0, hidden) if kind == Cell.LSTM else [0]),
    )
