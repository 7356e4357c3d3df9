"""The layer on CUDA: kernels for the time loop, ATen's products around it.

``W_ih x`` of all steps before the loop, and after it the gradients of x and of the weights, are
large matrix products, which a BLAS library does best. The loop is one launch where
``fastseq.ops.persistent`` has a kernel for it, else a product and a launch a step. Nothing here
waits for the device or copies to it, so that a call can be captured in a CUDA graph. All products
obey torch's precision for RNNs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import linear

from fastseq.ops import persistent
from fastseq.ops.layer import LayerBackward, Wanted
from fastseq.ops.persistent import PLAIN
from fastseq.ops.precision import rnn_precision
from fastseq.ops.recurrence import Cell, Forward


def input_biases(
    kind: Cell, bias_ih: Tensor | None, bias_hh: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Biases as the input product and the time loop take them: (input side, GRU's b_hn)."""
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
    save: bool,
) -> Forward:
    """``fastseq.ops.layer`` around ``fastseq.ops.recurrence`` or its persistent twin."""
    kind = Cell(cell)
    bias, bias_hn = input_biases(kind, bias_ih, bias_hh)
    once = persistent.taken(kind, x, h0, weight_hh, weight_hr)
    with rnn_precision(x):
        pre = linear(x, weight_ih, bias)
        args = (pre, h0, c0, weight_hh, bias_hn, weight_hr, batch_sizes)
        if once:
            made = torch.ops.fastseq.recurrence_persistent(*args, *PLAIN, cell, reverse, save)
        else:
            made = torch.ops.fastseq.recurrence(*args, cell, reverse, save)
    return Forward(*made)


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
    """``fastseq.ops.layer_backward`` around ``fastseq.ops.recurrence_backward`` or its twin."""
    kind = Cell(cell)
    grad_r = y.new_empty(0)
    # Gradients of what forward saved come of second derivatives, and go step by step.
    plain = not kind.cached or (grad_gates is None and grad_cells is None)
    once = plain and persistent.taken(kind, x, h0, weight_hh, weight_hr)
    ops = torch.ops.fastseq
    grads = (grad_y, grad_h_n, grad_c_n, grad_gates, grad_cells)
    args = (*grads, y, gates, cells, h0, c0, weight_hh, weight_hr, batch_sizes)
    with rnn_precision(x):
        if once:
            made = ops.recurrence_persistent_backward(*args, *PLAIN, cell, reverse)
        else:
            made = ops.recurrence_backward(*args, cell, reverse)
        grad_pre, grad_aux, grad_h0, grad_c0, *_ = made
        grad_x, grad_w, grad_u, grad_b, grad_d = gradients(
            kind,
            grad_pre,
            grad_aux,
            x,
            weight_ih,
            lambda side: recurrent_product(side, y, h0, batch_sizes, reverse),
            wanted,
        )
        if wanted & Wanted.WEIGHT_HR and weight_hr is not None:
            hidden = weight_hr.shape[1]
            before = gates[..., 3 * hidden :] * cells.tanh().to(gates.dtype)  # the projection
            grad_r = rows(grad_aux).t() @ rows(before)
    if not wanted & Wanted.STATES:
        grad_h0 = grad_c0 = y.new_empty(0)
    return LayerBackward(grad_x, grad_h0, grad_c0, grad_w, grad_u, grad_b, grad_d, grad_r)


def gradients(
    kind: Cell,
    grad_pre: Tensor,
    grad_aux: Tensor,
    x: Tensor,
    weight_ih: Tensor,
    recurrent: Callable[[Tensor], Tensor],
    wanted: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Sums over all rows of what the loop made: those of x, W_ih, W_hh, b_ih and b_hh.

    Args:
        kind: of the cell.
        grad_pre: (..., G*H).
        grad_aux: of GRU, (..., H).
        x: (..., I).
        weight_ih: (G*H, I).
        recurrent: the sum of a gradient of ``W_hh h'`` times the state h' that it was made of.
        wanted: of ``Wanted``; the rest comes back empty.
    """
    none = grad_pre.new_empty(0)
    grad_x = grad_w = grad_u = grad_b = grad_d = none
    sides = [grad_pre]  # gradients of the recurrent side of the gates
    if kind == Cell.GRU:
        sides = [grad_pre[..., : 2 * grad_aux.shape[-1]], grad_aux]
    if wanted & Wanted.INPUT:
        grad_x = grad_pre @ weight_ih
    if wanted & Wanted.WEIGHT_IH:
        grad_w = rows(grad_pre).t() @ rows(x)
    if wanted & Wanted.WEIGHT_HH:
        parts = [recurrent(side) for side in sides]
        grad_u = parts[0] if len(parts) == 1 else torch.cat(parts)
    if wanted & Wanted.BIASES:
        grad_b = rows(grad_pre).sum(0)
        grad_d = torch.cat([rows(side).sum(0) for side in sides])
    return grad_x, grad_w, grad_u, grad_b, grad_d


def rows(x: Tensor) -> Tensor:
    """All rows of a sequence, one after the other."""
    return x.flatten(0, -2)


def recurrent_product(
    grad: Tensor, y: Tensor, h0: Tensor, batch_sizes: Tensor | None, reverse: bool
) -> Tensor:
    """Sum over rows of the gradient of ``W_hh h'`` times the state h' that it was multiplied by."""
    if batch_sizes is not None:
        return grad.t() @ torch.cat(_previous_rows(y, h0, batch_sizes.tolist(), reverse))
    here, edge, before = (
        (slice(None, -1), -1, slice(1, None)) if reverse else (slice(1, None), 0, slice(None, -1))
    )
    product = grad[edge].t() @ h0
    if y.shape[0] > 1:
        product = torch.addmm(product, rows(grad[here]).t(), rows(y[before]))
    return product


def _previous_rows(y: Tensor, h0: Tensor, sizes: list[int], reverse: bool) -> list[Tensor]:
    """The hidden state before each row of a packed batch, as pieces of y (N, R) and h0 (B, R).

    Pieces, and not an index: that would be copied to the device. They are as long as they can be,
    a few for each length in the batch, since the host takes a microsecond or two for each.
    """
    pieces: list[tuple[Tensor, int, int]] = []  # of which tensor, from where to where

    def add(tensor: Tensor, first: int, count: int) -> None:
        if pieces and pieces[-1][0] is tensor and pieces[-1][2] == first:
            pieces[-1] = (tensor, pieces[-1][1], first + count)
        elif count:
            pieces.append((tensor, first, first + count))

    start = 0
    for t, n in enumerate(sizes):
        if reverse:
            later = sizes[t + 1] if t + 1 < len(sizes) else 0
            add(y, start + n, later)
            add(h0, later, n - later)  # rows that end here begin with h0
        elif t:
            add(y, start - sizes[t - 1], n)
        else:
            add(h0, 0, n)
        start += n
    return [tensor[first:last] for tensor, first, last in pieces]


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
    """``fastseq.ops.step``: a sequence of length one."""
    made = layer(
        x.unsqueeze(0), h, c, weight_ih, weight_hh, bias_ih, bias_hh, None, None, cell, False, False
    )
    return made.h_n, made.c_n


def step_in_place(x: Tensor, h: Tensor, c: Tensor | None, *rest: Tensor) -> None:
    """``fastseq.ops.STEP_``."""
    h_next, c_next = step(x, h, c, *rest)  # type: ignore[arg-type]
    h.copy_(h_next)
    if c is not None:
        c.copy_(c_next)


torch.library.impl("fastseq::layer", "CUDA", layer)
torch.library.impl("fastseq::layer_backward", "CUDA", layer_backward)
torch.library.impl("fastseq::step", "CUDA", step)
torch.library.impl("fastseq::step_", "CUDA", step_in_place)
torch.library.impl(
    "fastseq::linear", "CUDA", lambda x, weight, turned: x @ (weight if turned else weight.t())
)
