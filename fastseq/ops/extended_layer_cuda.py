"""A layer with lengths and resets on CUDA, where its time loop is one launch.

As ``fastseq.ops.layer_cuda``: ATen's products around a loop, and nothing waits for the device.
There is no such loop step by step: where ``has_kernels`` says no, PyTorch's operators make the
layer (``fastseq.reference``), and so they do for every other option.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from fastseq.ops import persistent
from fastseq.ops.extended_layer import ExtendedBackward, ExtendedForward, Extras
from fastseq.ops.layer import Wanted
from fastseq.ops.layer_cuda import gradients, input_biases, rows
from fastseq.ops.persistent import Masks, PersistentBackward
from fastseq.ops.precision import rnn_precision
from fastseq.ops.recurrence import Cell


def masks_alone(extras: Extras) -> bool:
    """Whether nothing but lengths and resets is asked for."""
    return all(t is None for t in extras[len(Masks._fields) : -1])


def has_kernels(
    cell: Cell, x: Tensor, h0: Tensor, weight_hh: Tensor, weight_hr: Tensor | None, extras: Extras
) -> bool:
    """Whether the ops' kernels make such a layer on its GPU, here and now.

    Args:
        cell: which.
        x: the layer's input, (T, B, I) or packed rows (N, I).
        h0: (B, R).
        weight_hh: (G*H, R).
        weight_hr: of a projection.
        extras: what the layer does beside.
    """
    return masks_alone(extras) and persistent.taken(cell, x, h0, weight_hh, weight_hr)


def _masks(extras: Extras) -> Masks:
    if not masks_alone(extras):
        raise RuntimeError(
            "fastseq::extended_layer: on CUDA there are kernels for lengths and resets alone; the "
            "module, fastseq.LSTM, GRU or RNN, takes another way by itself"
        )
    return Masks(extras.lengths, extras.reset, extras.reset_h, extras.reset_c)


def extended_layer(
    x: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    weight_hr: Tensor | None,
    batch_sizes: Tensor | None,
    *rest: Any,
) -> ExtendedForward:
    """``fastseq.ops.extended_layer`` around ``recurrence_persistent``."""
    *beside, cell, reverse, save = rest
    kind, masks = Cell(cell), _masks(Extras._make(beside))
    bias, bias_hn = input_biases(kind, bias_ih, bias_hh)
    with rnn_precision(x):
        made = torch.ops.fastseq.recurrence_persistent(
            linear(x, weight_ih, bias),
            h0,
            c0,
            weight_hh,
            bias_hn,
            weight_hr,
            batch_sizes,
            *masks,
            cell,
            reverse,
            save,
        )
    return ExtendedForward._make([*made, x.new_empty(0)])


def extended_layer_backward(
    grad_y: Tensor | None,
    grad_h_n: Tensor | None,
    grad_c_n: Tensor | None,
    grad_cells: Tensor | None,
    y: Tensor,
    gates: Tensor,
    cells: Tensor,
    products: Tensor,
    x: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    weight_hr: Tensor | None,
    batch_sizes: Tensor | None,
    *rest: Any,
) -> ExtendedBackward:
    """The op's ``extended_layer_backward`` around ``recurrence_persistent_backward``."""
    *beside, cell, reverse, wanted = rest
    kind, masks = Cell(cell), _masks(Extras._make(beside))
    none = y.new_empty(0)
    with rnn_precision(x):
        made = PersistentBackward(
            *torch.ops.fastseq.recurrence_persistent_backward(
                grad_y,
                grad_h_n,
                grad_c_n,
                None,
                grad_cells,
                y,
                gates,
                cells,
                h0,
                c0,
                weight_hh,
                weight_hr,
                batch_sizes,
                *masks,
                cell,
                reverse,
            )
        )
        if masks.lengths is not None and wanted & Wanted.WEIGHT_IH:
            x = x.where(within(x, masks.lengths), 0)  # what lies beyond a length may be anything
        grad_x, grad_w, grad_u, grad_b, grad_d = gradients(
            kind,
            made.grad_pre,
            made.grad_aux,
            x,
            weight_ih,
            recurrent_product(y, h0, masks, reverse),
            wanted,
        )
    states = wanted & Wanted.STATES
    return ExtendedBackward(
        grad_x,
        made.grad_h0 if states else none,
        made.grad_c0 if states else none,
        grad_w,
        grad_u,
        grad_b,
        grad_d,
        none,
        made.grad_reset_h,
        made.grad_reset_c,
        none,
        none,
        none,
    )


def within(x: Tensor, lengths: Tensor, ahead: int = 0) -> Tensor:
    """Whether the step ``ahead`` of each lies within the length of its row: (T, B, 1)."""
    steps = torch.arange(ahead, x.shape[0] + ahead, device=x.device)
    return (steps.unsqueeze(-1) < lengths).unsqueeze(-1)


def recurrent_product(
    y: Tensor, h0: Tensor, masks: Masks, reverse: bool
) -> Callable[[Tensor], Tensor]:
    """The sum of a gradient of ``W_hh h'`` times the states h' that it was made of."""
    read: list[Tensor] = []  # h' of all steps, once it is needed

    def product(side: Tensor) -> Tensor:
        if not read:
            read.append(rows(states_before(y, h0, masks, reverse)))
        return rows(side).t() @ read[0]

    return product


def states_before(y: Tensor, h0: Tensor, masks: Masks, reverse: bool) -> Tensor:
    """The state h' that each step read, (T, B, H); any numbers at steps beyond a length.

    Args:
        y: states after the steps, (T, B, H).
        h0: initial ones, (B, H).
        masks: where rows end, and where states are replaced.
        reverse: whether the recurrence runs from the last step to the first.
    """
    lengths, reset, reset_h, _ = masks
    edge = h0.unsqueeze(0)
    if not reverse:
        before = torch.cat([edge, y[:-1]])
    else:
        before = torch.cat([y[1:], edge])
        if lengths is not None:
            before = before.where(within(y, lengths, 1), h0)
    if reset is None:
        return before
    marks = reset.unsqueeze(-1)
    if reverse:  # a mark stands between its step and the one before it in time
        marks = torch.cat([marks[1:], torch.zeros_like(marks[:1])])
        if lengths is not None:
            marks = marks & within(y, lengths, 1)
    return torch.where(marks, torch.zeros_like(h0) if reset_h is None else reset_h, before)


torch.library.impl("fastseq::extended_layer", "CUDA", extended_layer)
torch.library.impl("fastseq::extended_layer_backward", "CUDA", extended_layer_backward)
