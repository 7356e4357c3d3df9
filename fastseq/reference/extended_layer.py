"""A layer with lengths, resets, dropped and kept states and layer norm, in plain PyTorch.

Oracle, source of second derivatives, and the layer itself on devices without kernels: nothing here
waits for a device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional
from torch.nn.functional import linear

from fastseq.ops import Cell, ExtendedBackward, ExtendedForward, Extras, Wanted
from fastseq.ops.layer_cuda import input_biases


def layer_norm(x: Tensor, gain: Tensor | None, bias: Tensor | None, epsilon: float) -> Tensor:
    """``gain (x - mean) / sqrt(variance + epsilon) + bias`` over the last dimension.

    In forward mode by its formula, since the tangents of torch's layer_norm have wrong derivatives
    themselves (torch 2.15: ``jacfwd(jacfwd(layer_norm))`` takes mean and variance for constants).
    """
    if forward_ad._current_level < 0:
        return functional.layer_norm(x, x.shape[-1:], gain, bias, epsilon)
    centred = x - x.mean(-1, keepdim=True)
    y = centred * (centred.square().mean(-1, keepdim=True) + epsilon).rsqrt()
    y = y if gain is None else y * gain
    return y if bias is None else y + bias


def extended_layer(
    x: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    weight_ih: Tensor | None,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    weight_hr: Tensor | None,
    batch_sizes: Tensor | None,
    extras: Extras,
    cell: int,
    reverse: bool,
    save: bool = True,
) -> ExtendedForward:
    """The layer of ``fastseq.ops.extended_layer``, a step at a time.

    Layer norm (Ba, Kiros & Hinton, 2016): W h' becomes LN(W h'), and h = o tanh(LN(c)).
    Zoneout (Krueger et al., 2016): h and c keep their values where the mask says so.
    Variational dropout (Gal & Ghahramani, 2016): one mask of h' for all steps.
    """
    kind = Cell(cell)
    if weight_ih is None:
        pre, bias_hn = x, bias_hh
    else:
        bias, bias_hn = input_biases(kind, bias_ih, bias_hh)
        pre = linear(x, weight_ih, bias)
    if batch_sizes is None:
        steps: list[tuple[Tensor, slice]] = [(row, slice(None)) for row in pre.unbind(0)]
    else:
        parts = pre.split(batch_sizes.tolist())
        steps = [(row, slice(0, len(row))) for row in parts]
    zones_h = _by_step(extras.zone_h, batch_sizes)
    zones_c = _by_step(extras.zone_c, batch_sizes)
    order = list(range(len(steps)))
    h, c = h0, c0
    made: dict[int, tuple[Tensor, ...]] = {}
    for t in reversed(order) if reverse else order:
        row, active = steps[t]
        h, c = _replaced(h, c, t, extras, reverse, len(steps))
        h_prev, c_prev = h[active], None if c is None else c[active]
        read = h_prev if extras.drop is None else h_prev * extras.drop[active]
        product = linear(read, weight_hh)
        w = product
        if extras.norm_hh is not None:
            w = layer_norm(product, extras.norm_hh, None, extras.epsilon)
        now, c_now, gates = _cell(kind, row, w, h_prev, c_prev, bias_hn)
        if c_now is not None and c_prev is not None:
            if extras.zone_c is not None:
                c_now = (1 - zones_c[t]) * c_now + zones_c[t] * c_prev
            inner = c_now
            if extras.norm_c is not None:
                inner = layer_norm(c_now, extras.norm_c, extras.norm_c_bias, extras.epsilon)
            now = gates[..., -inner.shape[-1] :] * inner.tanh()
            if weight_hr is not None:
                now = linear(now, weight_hr)
        if extras.zone_h is not None:
            now = (1 - zones_h[t]) * now + zones_h[t] * h_prev
        out: tuple[Tensor, ...] = (now, gates, product)
        out += () if c_now is None else (c_now,)
        if extras.lengths is not None:
            there = (t < extras.lengths).unsqueeze(-1)
            now = torch.where(there, now, h_prev)
            out = tuple(o.where(there, 0) for o in out)
            if c_now is not None and c_prev is not None:
                c_now = torch.where(there, c_now, c_prev)
        made[t] = out
        h = now if len(now) == len(h) else torch.cat([now, h[len(now) :]])
        if c is not None and c_now is not None:
            c = c_now if len(c_now) == len(c) else torch.cat([c_now, c[len(c_now) :]])

    def stacked(i: int, wanted: bool = True) -> Tensor:
        if not wanted:
            return x.new_empty(0)
        rows = [made[t][i] for t in order]
        return torch.cat(rows) if batch_sizes is not None else torch.stack(rows)

    lstm = kind == Cell.LSTM
    return ExtendedForward(
        stacked(0),
        h,
        x.new_empty(0) if c is None else c,
        stacked(1, save and kind.cached > 0),
        stacked(3, save and lstm),
        stacked(2, save and extras.norm_hh is not None),
    )


def _by_step(zone: Tensor | None, batch_sizes: Tensor | None) -> tuple[Tensor, ...]:
    if zone is None:
        return ()
    return zone.unbind(0) if batch_sizes is None else zone.split(batch_sizes.tolist())


def _replaced(
    h: Tensor, c: Tensor | None, t: int, extras: Extras, reverse: bool, steps: int
) -> tuple[Tensor, Tensor | None]:
    """The states as step t finds them: a mark stands between its step and the one before."""
    mark = t + 1 if reverse else t
    if extras.reset is None or mark >= steps:
        return h, c
    here = extras.reset[mark]
    if extras.lengths is not None:  # a mark beyond the length stands before no step
        here = here & (mark < extras.lengths)
    here = here.unsqueeze(-1)

    def other(state: Tensor, by: Tensor | None) -> Tensor:
        return torch.where(here, torch.zeros_like(state) if by is None else by, state)

    return other(h, extras.reset_h), None if c is None else other(c, extras.reset_c)


def _cell(
    kind: Cell,
    x: Tensor,
    w: Tensor,
    h_prev: Tensor,
    c_prev: Tensor | None,
    bias_hn: Tensor | None,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """H (LSTM: made by the caller), c and the activations of one step."""
    if kind == Cell.LSTM:
        assert c_prev is not None
        i, f, g, o = (x + w).chunk(4, -1)
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        return o, f * c_prev + i * g, torch.cat([i, f, g, o], -1)
    if kind == Cell.GRU:
        w_r, w_z, q = w.chunk(3, -1)
        x_r, x_z, x_n = x.chunk(3, -1)
        if bias_hn is not None:
            q = q + bias_hn
        r, z = (x_r + w_r).sigmoid(), (x_z + w_z).sigmoid()
        n = (x_n + r * q).tanh()
        return (1 - z) * n + z * h_prev, None, torch.cat([r, z, n, q], -1)
    h = (x + w).tanh() if kind == Cell.RNN_TANH else (x + w).relu()
    return h, None, h


# The op's arguments: x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr; batch_sizes; the
# extras' tensors and epsilon; cell, reverse.
TENSORS = 8
EXTRAS = slice(TENSORS + 1, TENSORS + len(Extras._fields))
# Where in these arguments each result of the backward op belongs.
RESULTS = (
    *range(TENSORS),
    *(EXTRAS.start + Extras._fields.index(name) for name in ("reset_h", "reset_c")),
    *(EXTRAS.start + Extras._fields.index(name) for name in ("norm_hh", "norm_c", "norm_c_bias")),
)


def extended_layer_backward(*args: Any) -> ExtendedBackward:
    """Gradients of ``extended_layer`` by PyTorch's autograd, from the layer's arguments.

    Args:
        args: as ``torch.ops.fastseq.extended_layer_backward`` takes them: gradients of y, h_n, c_n
            and cells; y, gates, cells and products, which are not read; the layer's arguments; and
            ``wanted``.
    """
    grads, inputs = args[:4], list(args[8:-4])
    epsilon, cell, reverse, wanted = args[-4:]
    x, weight_ih, reset = inputs[0], inputs[3], inputs[EXTRAS.start + 1]
    flags = (
        Wanted.INPUT,
        Wanted.STATES,
        Wanted.STATES,
        Wanted.WEIGHT_IH,
        Wanted.WEIGHT_HH,
        Wanted.BIASES,
        Wanted.BIASES if weight_ih is not None else None,  # b_hn, beside a layer norm
        Wanted.WEIGHT_HR,
    )
    asked = []
    for n, place in enumerate(RESULTS):
        flag = flags[n] if n < TENSORS else None
        replaced = n < TENSORS or n >= TENSORS + 2 or reset is not None
        if inputs[place] is not None and replaced and (flag is None or flag & wanted):
            asked.append(place)

    def layer(*values: Tensor) -> tuple[Tensor, ...]:
        every: Any = list(inputs)
        for place, value in zip(asked, values, strict=True):
            every[place] = value
        extras = Extras._make([*every[EXTRAS], epsilon])
        head: Any = [*every[: TENSORS + 1], extras, cell, reverse]
        made = extended_layer(*head)
        outputs = (made.y, made.h_n, made.c_n, made.cells)
        return tuple(o for o, g in zip(outputs, grads, strict=True) if g is not None)

    found = dict.fromkeys(RESULTS, x.new_empty(0))
    given = [g for g in grads if g is not None]
    if given and asked:
        outputs, pull = torch.func.vjp(layer, *(inputs[place] for place in asked))[:2]
        cast = tuple(g.to(o.dtype) for g, o in zip(given, outputs, strict=True))
        found.update(zip(asked, pull(cast), strict=True))
    else:
        found.update((place, torch.zeros_like(inputs[place])) for place in asked)
    return ExtendedBackward(*(found[place] for place in RESULTS))
