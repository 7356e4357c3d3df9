"""Both directions of a layer on CUDA, with their time loops in one launch.

As ``fastseq.ops.layer_cuda``: ATen's products around the loops, and nothing waits for the device.
What belongs to a direction lies in one tensor with a dimension of 2 in front, the forward direction
first; W_hh is copied there, x and what the loops make are not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from fastseq.ops import extended_layer_cuda, layer_cuda
from fastseq.ops.extended_layer_cuda import within
from fastseq.ops.layer import Wanted
from fastseq.ops.layer_cuda import gradients, input_biases, rows
from fastseq.ops.persistent import Masks, PersistentBackward
from fastseq.ops.precision import rnn_precision
from fastseq.ops.recurrence import Cell, Forward


class Weights(NamedTuple):
    """Of a direction."""

    ih: Tensor  # (G*H, I)
    hh: Tensor  # (G*H, H)
    bias_ih: Tensor | None  # (G*H,)
    bias_hh: Tensor | None  # (G*H,)


class WeightGradients(NamedTuple):
    """Of a direction; those not wanted are empty."""

    ih: Tensor
    hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor


class BidirectionalBackward(NamedTuple):
    """Gradients of all that a layer read in both directions; those not wanted are empty."""

    grad_x: Tensor  # (T, B, I) or (N, I): the sum of both
    grad_h0: Tensor  # (2, B, H)
    grad_c0: Tensor  # (2, B, H), empty but for LSTM
    weights: tuple[WeightGradients, ...]
    grad_reset_h: Tensor  # (2, B, H), empty unless there is a reset_h to a reset
    grad_reset_c: Tensor  # (2, B, H), likewise


def _joined(tensors: Sequence[Tensor | None]) -> Tensor | None:
    found = [t for t in tensors if t is not None]
    return torch.stack(found) if found else None


def bidirectional(
    x: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    weights: Sequence[Weights],
    batch_sizes: Tensor | None,
    masks: Masks,
    cell: Cell,
    save: bool,
) -> Forward:
    """Run both directions of a layer, which ``persistent.taken`` takes.

    Args:
        x: (T, B, I) or packed rows (N, I).
        h0: (2, B, H).
        c0: (2, B, H); LSTM.
        weights: of each direction.
        batch_sizes: of packed rows, which take no masks.
        masks: lengths and resets; reset_h and reset_c are (2, B, H).
        cell: which.
        save: keep what backward needs.

    Returns:
        Tensors of both directions, (2, ...), or empty ones.
    """
    biases = [input_biases(cell, w.bias_ih, w.bias_hh) for w in weights]
    flat, width = x.reshape(-1, x.shape[-1]), weights[0].ih.shape[0]
    pre = x.new_empty([len(weights), *x.shape[:-1], width])
    with rnn_precision(x):
        outs = pre.view(len(weights), -1, width)
        for out, w, (bias, _) in zip(outs, weights, biases, strict=True):
            if bias is None:
                torch.mm(flat, w.ih.t(), out=out)
            else:
                torch.addmm(bias, flat, w.ih.t(), out=out)
        made = torch.ops.fastseq.recurrence_persistent(
            pre,
            h0,
            c0,
            torch.stack([w.hh for w in weights]),
            _joined([bias_hn for _, bias_hn in biases]),
            None,
            batch_sizes,
            *masks,
            cell,
            False,
            save,
        )
    return Forward(*made)


def bidirectional_backward(
    grad_y: Tensor | None,
    grad_h_n: Tensor | None,
    grad_c_n: Tensor | None,
    y: Tensor,
    gates: Tensor,
    cells: Tensor,
    x: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    weights: Sequence[Weights],
    batch_sizes: Tensor | None,
    masks: Masks,
    cell: Cell,
    wanted: Sequence[int],
) -> BidirectionalBackward:
    """Gradients of ``bidirectional``; arguments as it took and returned them.

    Args:
        grad_y: (2, T, B, H) or (2, N, H).
        grad_h_n: (2, B, H).
        grad_c_n: (2, B, H).
        y: as returned, like the next two.
        gates: (2, ..., C*H).
        cells: (2, ..., H).
        x: as given, like all that follow.
        h0: (2, B, H).
        c0: (2, B, H).
        weights: of each direction.
        batch_sizes: of packed rows.
        masks: lengths and resets.
        cell: which.
        wanted: of ``Wanted``, for each direction; that of the input is one for both.
    """
    grad_x = y.new_empty(0)
    of_weights = []
    with rnn_precision(x):
        made = PersistentBackward(
            *torch.ops.fastseq.recurrence_persistent_backward(
                grad_y,
                grad_h_n,
                grad_c_n,
                None,
                None,
                y,
                gates,
                cells,
                h0,
                c0,
                torch.stack([w.hh for w in weights]),
                None,
                batch_sizes,
                *masks,
                cell,
                False,
            )
        )
        if wanted[0] & Wanted.INPUT:
            one, two = (rows(grad) for grad in made.grad_pre)
            grad_x = (one @ weights[0].ih).addmm_(two, weights[1].ih).view(x.shape)
        if masks.lengths is not None and any(each & Wanted.WEIGHT_IH for each in wanted):
            x = x.where(within(x, masks.lengths), 0)  # what lies beyond a length may be anything
        for number, w in enumerate(weights):
            aux = made.grad_aux[number] if made.grad_aux.numel() else made.grad_aux
            _, *own = gradients(
                cell,
                made.grad_pre[number],
                aux,
                x,
                w.ih,
                _recurrent_product(y[number], h0[number], batch_sizes, masks, number),
                wanted[number] & ~Wanted.INPUT,
            )
            of_weights.append(WeightGradients(*own))
    return BidirectionalBackward(
        grad_x,
        made.grad_h0,
        made.grad_c0,
        tuple(of_weights),
        made.grad_reset_h,
        made.grad_reset_c,
    )


def _recurrent_product(
    y: Tensor, h0: Tensor, batch_sizes: Tensor | None, masks: Masks, number: int
) -> Callable[[Tensor], Tensor]:
    """As ``gradients`` takes it, of a direction whose y and h0 these are."""
    reverse = number == 1
    if masks.lengths is None and masks.reset is None:
        return partial(
            layer_cuda.recurrent_product, y=y, h0=h0, batch_sizes=batch_sizes, reverse=reverse
        )
    return extended_layer_cuda.recurrent_product(y, h0, masks.of(number), reverse)
