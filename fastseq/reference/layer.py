"""A recurrent layer in plain PyTorch, around a time loop: oracle, and higher derivatives."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from fastseq.ops import Cell, Forward, LayerBackward, Wanted
from fastseq.ops.layer_cuda import input_biases
from fastseq.reference.recurrence import previous_states, recurrence, recurrence_backward


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
    save: bool = True,
) -> Forward:
    """``x W_ih^T + b`` for all steps, then the time loop (see ``fastseq.ops.layer``)."""
    bias, bias_hn = input_biases(Cell(cell), bias_ih, bias_hh)
    pre = linear(x, weight_ih, bias)
    return recurrence(pre, h0, c0, weight_hh, bias_hn, weight_hr, batch_sizes, cell, reverse, save)


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
    """The time loop backwards, then sums over all rows (see ``fastseq.ops.layer_backward``).

    With ``a = W_ih x + b_ih`` and ``u = W_hh h' + b_hh``, whose gradients are the loop's:
    ``dx = da W_ih``, ``dW_ih = sum da x^T``, ``dW_hh = sum du h'^T``, ``db_ih = sum da``,
    ``db_hh = sum du``; and with ``h = W_hr m``, ``m = o tanh(c)``: ``dW_hr = sum dh m^T``.
    """
    kind = Cell(cell)
    hidden = weight_hh.shape[0] // kind.gates
    grad_pre, grad_aux, grad_h0, grad_c0 = recurrence_backward(
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
        cell,
        reverse,
    )
    da = grad_pre.flatten(0, -2)
    du = da
    if kind == Cell.GRU:
        du = torch.cat([da[:, : 2 * hidden], grad_aux.flatten(0, -2)], -1)
    none = y.new_empty(0)
    grad_x = grad_w = grad_u = grad_b = grad_d = grad_r = none
    if wanted & Wanted.INPUT:
        grad_x = grad_pre @ weight_ih
    if wanted & Wanted.WEIGHT_IH:
        grad_w = da.t() @ x.flatten(0, -2)
    if wanted & Wanted.WEIGHT_HH:
        grad_u = du.t() @ previous_states(y, h0, batch_sizes, reverse)
    if wanted & Wanted.BIASES:
        grad_b, grad_d = da.sum(0), du.sum(0)
    if wanted & Wanted.WEIGHT_HR and weight_hr is not None:
        m = gates[..., 3 * hidden :] * cells.tanh().to(gates.dtype)
        grad_r = grad_aux.flatten(0, -2).t() @ m.flatten(0, -2)
    if not wanted & Wanted.STATES:
        grad_h0 = grad_c0 = none
    return LayerBackward(grad_x, grad_h0, grad_c0, grad_w, grad_u, grad_b, grad_d, grad_r)
