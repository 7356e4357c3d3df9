"""The recurrence in plain PyTorch, to be read beside the formulas: oracle and second derivatives.

Slow, and the same on every device. Arguments and results are those of ``fastseq.ops``.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fastseq.ops import Backward, Cell, Forward


def _steps(x: Tensor, batch_sizes: Tensor | None, reverse: bool) -> list[slice]:
    """The rows of ``_flat(x)`` that belong to each step, in the order the recurrence takes."""
    sizes = [x.shape[1]] * x.shape[0] if batch_sizes is None else batch_sizes.tolist()
    ends = torch.tensor(sizes).cumsum(0).tolist()
    slices = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    return slices[::-1] if reverse else slices


def _flat(x: Tensor) -> Tensor:
    return x.flatten(0, -2)


def _with_rows(whole: Tensor, part: Tensor) -> Tensor:
    """``whole`` with its first rows replaced."""
    return part if len(part) == len(whole) else torch.cat([part, whole[len(part) :]])


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
    save: bool = True,
) -> Forward:
    """The time loop of one layer in one direction (see ``fastseq.ops.recurrence``).

    LSTM: f, i, o = sigmoid(W h' + V x + b); c = f c' + i tanh(.); h = o tanh(c).
    GRU: r, z = sigmoid(.); n = tanh(V x + b + r (W h' + b_hn)); h = (1 - z) n + z h'.
    RNN: h = tanh(W h' + V x + b), or the positive part.
    """
    kind = Cell(cell)
    hidden = weight_hh.shape[0] // kind.gates
    x_all = _flat(pre)
    steps = _steps(pre, batch_sizes, reverse)
    h, c = h0, c0
    y: list[Tensor] = []
    gates: list[Tensor] = []
    cells: list[Tensor] = []
    for rows in steps:
        x = x_all[rows]  # (b, G*H)
        h_prev = h[: len(x)]
        w = h_prev @ weight_hh.t()
        if kind == Cell.LSTM:
            assert c is not None
            i, f, g, o = (x + w).chunk(4, -1)
            i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
            c_now = f * c[: len(x)] + i * g
            now = o * c_now.tanh()
            if weight_hr is not None:
                now = now @ weight_hr.t()
            c = _with_rows(c, c_now)
            gates.append(torch.cat([i, f, g, o], -1))
            cells.append(c_now)
        elif kind == Cell.GRU:
            w_r, w_z, q = w.chunk(3, -1)
            x_r, x_z, x_n = x.chunk(3, -1)
            if bias_hn is not None:
                q = q + bias_hn
            r, z = (x_r + w_r).sigmoid(), (x_z + w_z).sigmoid()
            n = (x_n + r * q).tanh()
            now = (1 - z) * n + z * h_prev
            gates.append(torch.cat([r, z, n, q], -1))
        else:
            now = (x + w).tanh() if kind == Cell.RNN_TANH else (x + w).relu()
        h = _with_rows(h, now)
        y.append(now)

    def stacked(parts: list[Tensor], width: int) -> Tensor:
        if not parts or not save:
            return pre.new_empty(0)
        order = parts[::-1] if reverse else parts
        return torch.cat(order).view(*pre.shape[:-1], width)

    keep, save = save, True
    out = stacked(y, h0.shape[1])
    save = keep
    c_n = c if c is not None else pre.new_empty(0)
    return Forward(out, h, c_n, stacked(gates, kind.cached * hidden), stacked(cells, hidden))


def _previous(all_rows: Tensor, first: Tensor, steps: list[slice]) -> Iterator[Tensor]:
    """The state before each step: the row of the step before, or the initial state."""
    state = first
    for rows in steps:
        yield state[: rows.stop - rows.start]
        state = _with_rows(state, all_rows[rows])


def previous_states(y: Tensor, h0: Tensor, batch_sizes: Tensor | None, reverse: bool) -> Tensor:
    """Row by row of ``_flat(y)`` the hidden state before it."""
    rows = list(_previous(_flat(y), h0, _steps(y, batch_sizes, reverse)))
    return torch.cat(rows[::-1] if reverse else rows)


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
    """Back-propagation through time (see ``fastseq.ops.recurrence_backward``)."""
    kind = Cell(cell)
    steps = _steps(y, batch_sizes, reverse)
    h_prev = list(_previous(_flat(y), h0, steps))
    c_prev = [] if c0 is None else list(_previous(_flat(cells), c0, steps))
    dh = torch.zeros_like(h0) if grad_h_n is None else grad_h_n
    dc = None if c0 is None else torch.zeros_like(c0) if grad_c_n is None else grad_c_n
    pre_parts: list[Tensor] = []
    aux_parts: list[Tensor] = []

    def extra(grad: Tensor | None, rows: slice, count: int) -> tuple[Tensor | float, ...]:
        return (0.0,) * count if grad is None else _flat(grad)[rows].chunk(count, -1)

    for s, rows in reversed(list(enumerate(steps))):
        active = rows.stop - rows.start
        d = dh[:active]
        if grad_y is not None:
            d = d + _flat(grad_y)[rows]
        direct: Tensor | float = 0.0
        if kind == Cell.LSTM:
            assert dc is not None
            i, f, g, o = _flat(gates)[rows].chunk(4, -1)
            e_i, e_f, e_g, e_o = extra(grad_gates, rows, 4)
            (e_c,) = extra(grad_cells, rows, 1)
            if weight_hr is not None:
                aux_parts.append(d)
                d = d @ weight_hr
            tc = _flat(cells)[rows].to(o.dtype).tanh()
            d_c = dc[:active] + d * o * (1 - tc * tc) + e_c
            side = torch.cat(
                [
                    (d_c * g + e_i) * i * (1 - i),
                    (d_c * c_prev[s] + e_f) * f * (1 - f),
                    (d_c * i + e_g) * (1 - g * g),
                    (d * tc + e_o) * o * (1 - o),
                ],
                -1,
            ).to(o.dtype)  # 16-bit layers keep c and its gradient in float32
            recurrent = side
            dc = _with_rows(dc, d_c * f)
        elif kind == Cell.GRU:
            r, z, n, q = _flat(gates)[rows].chunk(4, -1)
            e_r, e_z, e_n, e_q = extra(grad_gates, rows, 4)
            d_n = (d * (1 - z) + e_n) * (1 - n * n)
            d_z = (d * (h_prev[s] - n) + e_z) * z * (1 - z)
            d_r = (d_n * q + e_r) * r * (1 - r)
            d_q = d_n * r + e_q
            side = torch.cat([d_r, d_z, d_n], -1)
            recurrent = torch.cat([d_r, d_z, d_q], -1)
            aux_parts.append(d_q)
            direct = d * z
        else:
            h = _flat(y)[rows]
            relu = kind == Cell.RNN_RELU
            side = recurrent = d.masked_fill(h <= 0, 0) if relu else d * (1 - h * h)
        pre_parts.append(side)
        dh = _with_rows(dh, recurrent @ weight_hh + direct)

    def stacked(parts: list[Tensor]) -> Tensor:
        if not parts:
            return y.new_empty(0)
        order = parts if reverse else parts[::-1]
        return torch.cat(order).view(*y.shape[:-1], parts[0].shape[-1])

    return Backward(
        stacked(pre_parts),
        stacked(aux_parts),
        dh,
        y.new_empty(0) if dc is None else dc,
    )
