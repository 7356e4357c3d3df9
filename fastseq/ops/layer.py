"""A recurrent layer of ``torch.ops.fastseq``: input product, time loop, and all their gradients.

One layer in one direction; letters as in ``fastseq.ops.recurrence``, and ``I`` the input size.
"""

from __future__ import annotations

from enum import IntFlag
from typing import NamedTuple

import torch
from torch import Tensor

from fastseq.ops._common import fake
from fastseq.ops.recurrence import Cell, Forward, _recurrence_fake, _rows

LAYER = torch.ops.fastseq.layer.default  # the overload itself, as ``STEP``


class Wanted(IntFlag):
    """Gradients that ``layer_backward`` is to make."""

    INPUT = 1
    WEIGHT_IH = 2
    WEIGHT_HH = 4
    BIASES = 8
    WEIGHT_HR = 16
    STATES = 32


class LayerBackward(NamedTuple):
    """Gradients of a layer's inputs; those not wanted are empty."""

    grad_x: Tensor  # (T, B, I) or (N, I)
    grad_h0: Tensor  # (B, R)
    grad_c0: Tensor  # (B, H), empty but for LSTM
    grad_weight_ih: Tensor  # (G*H, I)
    grad_weight_hh: Tensor  # (G*H, R)
    grad_bias_ih: Tensor  # (G*H,)
    grad_bias_hh: Tensor  # (G*H,)
    grad_weight_hr: Tensor  # (R, H)


def layer(
    x: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    weight_hr: Tensor | None,
    batch_sizes: Tensor | None,
    cell: int,
    reverse: bool,
    save: bool,
) -> Forward:
    """Run one layer in one direction.

    Args:
        x: (T, B, I), any strides; or (N, I) with ``batch_sizes``.
        h0: initial hidden state, (B, R).
        c0: initial cell state, (B, H); LSTM only.
        weight_ih: input weights in nn.LSTM's gate order, (G*H, I).
        weight_hh: recurrent weights, (G*H, R).
        bias_ih: (G*H,).
        bias_hh: (G*H,).
        weight_hr: projection of LSTM, (R, H).
        batch_sizes: rows of each step, int64 on the CPU, as in a PackedSequence.
        cell: a ``Cell``.
        reverse: run from the last step to the first.
        save: keep what backward needs.

    Raises:
        RuntimeError: shapes, dtypes or devices do not fit together.
    """
    return Forward(
        *torch.ops.fastseq.layer(
            x,
            h0,
            c0,
            weight_ih,
            weight_hh,
            bias_ih,
            bias_hh,
            weight_hr,
            batch_sizes,
            int(cell),
            reverse,
            save,
        )
    )


def layer_backward(
    grad_y: Tensor | None,
    grad_h_n: Tensor | None,
    grad_c_n: Tensor | None,
    grad_gates: Tensor | None,
    grad_cells: Tensor | None,
    x: Tensor,
    y: Tensor,
    gates: Tensor,
    cells: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    weight_hr: Tensor | None,
    batch_sizes: Tensor | None,
    cell: int,
    reverse: bool,
    wanted: int,
) -> LayerBackward:
    """Gradients of ``layer``; arguments as forward returned them, ``wanted`` of ``Wanted``."""
    return LayerBackward(
        *torch.ops.fastseq.layer_backward(
            grad_y,
            grad_h_n,
            grad_c_n,
            grad_gates,
            grad_cells,
            x,
            y,
            gates,
            cells,
            h0,
            c0,
            weight_ih,
            weight_hh,
            weight_hr,
            batch_sizes,
            int(cell),
            reverse,
            int(wanted),
        )
    )


@fake("layer")
def _layer_fake(
    x: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    weight_hr: Tensor | None,
    batch_sizes: Tensor | None,
    cell: int,
    reverse: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    made: tuple[Tensor, Tensor, Tensor, Tensor, Tensor] = _recurrence_fake(
        x, h0, c0, weight_hh, None, weight_hr, batch_sizes, cell, reverse, save
    )
    return made


@fake("layer_backward")
def _layer_backward_fake(
    grad_y: Tensor | None,
    grad_h_n: Tensor | None,
    grad_c_n: Tensor | None,
    grad_gates: Tensor | None,
    grad_cells: Tensor | None,
    x: Tensor,
    y: Tensor,
    gates: Tensor,
    cells: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    weight_hr: Tensor | None,
    batch_sizes: Tensor | None,
    cell: int,
    reverse: bool,
    wanted: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    kind = Cell(cell)
    width, size = weight_ih.shape
    hidden = weight_hh.shape[0] // kind.gates
    batch, state = h0.shape

    def new(flag: Wanted, shape: list[int]) -> Tensor:
        made: Tensor = y.new_empty(shape if flag & wanted else [0])
        return made

    return (
        new(Wanted.INPUT, _rows(x, size)),
        new(Wanted.STATES, [batch, state]),
        new(Wanted.STATES, [batch, hidden] if kind == Cell.LSTM else [0]),
        new(Wanted.WEIGHT_IH, [width, size]),
        new(Wanted.WEIGHT_HH, [width, state]),
        new(Wanted.BIASES, [width]),
        new(Wanted.BIASES, [width]),
        new(Wanted.WEIGHT_HR, [state, hidden] if weight_hr is not None else [0]),
    )
