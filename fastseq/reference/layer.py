"""A recurrent layer in plain PyTorch, around a time loop: oracle, and higher derivatives.

Where a device has kernels for the time loop alone, the layer is made of them by these functions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import linear

from fastseq.ops import Cell, Forward, LayerBackward, Wanted
from fastseq.reference.recurrence import recurrence, recurrence_backward


def _biases(
    kind: Cell, bias_ih: Tensor | None, bias_hh: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Biases as the input product and the recurrence take them: (input side, GRU's b_hn)."""
    if bias_hh is None:
        return bias_ih, None
    if bias_ih is None:
        bias_ih = torch.zeros_like(bias_hh)
    if kind != Cell.GRU:
        return bias_ih + bias_hh, None
    hidden = bias_ih.shape[0] // 3
    # n = tanh(x_n + r (W h + b_hn)): this one bias is scaled by r and stays in the recurrence.
    both = bias_ih[: 2 * hidden] + bias_hh[: 2 * hidden]
    return torch.cat([both, bias_ih[2 * hidden :]]), bias_hh[2 * hidden :]


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
    *,
    loop: Callable[..., tuple[Tensor, ...]] = recurrence,
) -> Forward:
    """``x W_ih^T + b`` for all steps, then the time loop (see ``fastseq.ops.layer``)."""
    bias, bias_hn = _biases(Cell(cell), bias_ih, bias_hh)
    pre = linear(x, weight_ih, bias)
    return Forward(
        *loop(pre, h0, c0, weight_hh, bias_hn, weight_hr, batch_sizes, cell, reverse, save)
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
    *,
    loop: Callable[..., tuple[Tensor, ...]] = recurrence_backward,
) -> LayerBackward:
    """The time loop backwards, then products over all steps (see ``fastseq.ops``)."""
    kind = Cell(cell)
    hidden = weight_hh.shape[0] // kind.gates
    grad_pre, grad_aux, grad_h0, grad_c0 = loop(
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
    none = y.new_empty(0)
    grad_x = grad_w = grad_u = grad_b = grad_d = grad_r = none
    if wanted & Wanted.INPUT:
        grad_x = grad_pre @ weight_ih
    if wanted & Wanted.WEIGHT_IH:
        grad_w = _rows(grad_pre).t() @ _rows(x)
    sides = [grad_pre]
    if kind == Cell.GRU:
        sides = [grad_pre[..., : 2 * hidden], grad_aux]
    if wanted & Wanted.WEIGHT_HH:
        grad_u = _recurrent_weight_gradient(sides, y, h0, batch_sizes, reverse)
    if wanted & Wanted.BIASES:
        grad_b = _rows(grad_pre).sum(0)
        grad_d = torch.cat([_rows(side).sum(0) for side in sides])
    if wanted & Wanted.WEIGHT_HR and weight_hr is not None:
        before = gates[..., 3 * hidden :] * cells.tanh().to(gates.dtype)  # the projection
        grad_r = _rows(grad_aux).t() @ _rows(before)
    return LayerBackward(grad_x, grad_h0, grad_c0, grad_w, grad_u, grad_b, grad_d, grad_r)


def _rows(x: Tensor) -> Tensor:
    return x.flatten(0, -2)


def _previous_states(y: Tensor, h0: Tensor, batch_sizes: Tensor, reverse: bool) -> Tensor:
    """Row by row the hidden state before it, for a packed batch: (N, R)."""
    offsets = batch_sizes.cumsum(0) - batch_sizes
    n = y.shape[0]
    step = torch.repeat_interleave(torch.arange(len(batch_sizes)), batch_sizes)
    row = torch.arange(n) - offsets[step]  # place in the batch
    if reverse:
        later = torch.cat([batch_sizes[1:], batch_sizes.new_zeros(1)])
        index = torch.where(row < later[step], torch.arange(n) + batch_sizes[step], n + row)
    else:
        earlier = torch.cat([batch_sizes.new_zeros(1), batch_sizes[:-1]])
        index = torch.where(step > 0, torch.arange(n) - earlier[step], n + row)
    return torch.cat([y, h0]).index_select(0, index.to(y.device))


def _recurrent_weight_gradient(
    grads: list[Tensor], y: Tensor, h0: Tensor, batch_sizes: Tensor | None, reverse: bool
) -> Tensor:
    """Sum over rows of gate gradient times previous state; ``grads`` hold the gates in order."""
    if batch_sizes is not None:
        previous = _previous_states(y, h0, batch_sizes, reverse)
        parts = [g.t() @ previous for g in grads]
    else:
        here, edge, before = (
            (slice(None, -1), -1, slice(1, None))
            if reverse
            else (slice(1, None), 0, slice(None, -1))
        )
        parts = []
        for g in grads:
            part = g[edge].t() @ h0
            if y.shape[0] > 1:
                part = torch.addmm(part, _rows(g[here]).t(), _rows(y[before]))
            parts.append(part)
    return parts[0] if len(parts) == 1 else torch.cat(parts)
