"""Batching rules of the layer for vmap: over inputs, over weights, and per-sample gradients.

Where only what belongs to the batch is vmapped, the new dimension joins it, in one call of the
kernels; weight gradients of each sample are then products over its own rows. Whatever else is
vmapped, such as the weights of an ensemble, is run one example after the other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastseq.ops import Cell, Wanted
from fastseq.ops._vmap import one_at_a_time

RAW = torch.ops.fastseq
_Result = tuple[tuple[Tensor, ...], Any]


def _joined(t: Tensor | None, dim: int | None, size: int, batch_dim: int) -> Tensor | None:
    """The vmapped dimension in front of the batch dimension, and flattened into it."""
    if t is None:
        return t
    if t.dim() - (dim is not None) == 1:  # empty: an output that the cell does not have
        return t.new_empty(0)
    t = t.unsqueeze(batch_dim) if dim is None else t.movedim(dim, batch_dim)
    sizes = [-1] * t.dim()
    sizes[batch_dim] = size
    return t.expand(sizes).flatten(batch_dim, batch_dim + 1)


def _parted(outputs: tuple[Tensor, ...], size: int, batch_dims: tuple[int, ...]) -> _Result:
    """The reverse of ``_joined`` for outputs; empty ones are the same for every example."""
    parted, dims = [], []
    for t, dim in zip(outputs, batch_dims, strict=True):
        empty = t.dim() == 1
        parted.append(t.expand(size, 0) if empty else t.unflatten(dim, (size, -1)))
        dims.append(0 if empty else dim)
    return tuple(parted), tuple(dims)


# Batch dimensions of what belongs to the batch in the forward op: x, h0, c0.
FORWARD = (1, 0, 0)
# ... in the backward op: gradients of y, h_n, c_n, gates, cells; x, y, gates, cells; h0, c0.
BACKWARD = (1, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0)


@torch.library.register_vmap("fastseq::layer")
def _layer(info: Any, in_dims: tuple[Any, ...], *args: Any) -> _Result:
    count, size = len(FORWARD), info.batch_size
    packed = args[8] is not None
    if packed or any(dim is not None for dim in in_dims[count:]):
        return one_at_a_time(RAW.layer)(info, in_dims, *args)
    batched = zip(args[:count], in_dims[:count], FORWARD, strict=True)
    joined = [_joined(t, dim, size, at) for t, dim, at in batched]
    return _parted(RAW.layer(*joined, *args[count:]), size, (1, 0, 0, 1, 1))


@torch.library.register_vmap("fastseq::layer_backward")
def _layer_backward(info: Any, in_dims: tuple[Any, ...], *args: Any) -> _Result:
    count, size = len(BACKWARD), info.batch_size
    *_, batch_sizes, cell, reverse, wanted = args
    if batch_sizes is not None or any(dim is not None for dim in in_dims[count:]):
        return one_at_a_time(RAW.layer_backward)(info, in_dims, *args)
    batched = zip(args[:count], in_dims[:count], BACKWARD, strict=True)
    joined: list[Any] = [_joined(t, dim, size, at) for t, dim, at in batched]
    if not wanted & ~Wanted.INPUT:
        made = RAW.layer_backward(*joined, *args[count:])
        (dx, dh0, dc0), dims = _parted(made[:3], size, (1, 0, 0))
        empty = tuple(t.expand(size, 0) for t in made[3:])
        return (dx, dh0, dc0, *empty), (*dims, *[0] * len(empty))
    x, y, gates, cells, h0 = joined[5:10]
    weight_ih, weight_hh, weight_hr = args[count : count + 3]
    grad_pre, grad_aux, dh0, dc0 = RAW.recurrence_backward(
        *joined[:5], y, gates, cells, h0, joined[10], weight_hh, weight_hr, None, cell, reverse
    )
    own = [_rows(t, size) for t in (grad_pre, x, y, gates, cells, grad_aux)]
    made = _products(own, h0.unflatten(0, (size, -1)), args[count:])
    dx = (grad_pre @ weight_ih).unflatten(1, (size, -1)) if wanted & Wanted.INPUT else made[0]
    states, state_dims = _parted((dh0, dc0), size, (0, 0))
    return (dx, *states, *made[1:]), (int(dx.dim() > 2), *state_dims, *[0] * 5)


def _rows(t: Tensor, size: int) -> Tensor:
    """(T, V*B, n) as (V, T, B, n); nothing as (V, 0)."""
    return t.expand(size, 0) if t.dim() == 1 else t.unflatten(1, (size, -1)).movedim(1, 0)


def _products(own: list[Tensor], h0: Tensor, rest: tuple[Any, ...]) -> list[Tensor]:
    """An empty gradient of x, and those of the weights of every example: sums over its rows."""
    grad_pre, x, y, gates, cells, grad_aux = own
    _, weight_hh, weight_hr, _, cell, reverse, wanted = rest
    kind, width = Cell(cell), weight_hh.shape[0]
    hidden = width // kind.gates
    side = grad_pre  # of the recurrent side of the gates
    if kind == Cell.GRU:
        side = torch.cat([grad_pre[..., : 2 * hidden], grad_aux], -1)
    edge = h0.unsqueeze(1)
    h_prev = torch.cat([y[:, 1:], edge] if reverse else [edge, y[:, :-1]], 1)
    none = y.new_empty(len(y), 0)

    def product(a: Tensor, b: Tensor) -> Tensor:
        return a.flatten(1, 2).transpose(1, 2) @ b.flatten(1, 2)

    biases = wanted & Wanted.BIASES
    before = none
    if wanted & Wanted.WEIGHT_HR and weight_hr is not None:
        before = gates[..., 3 * hidden :] * cells.tanh().to(gates.dtype)  # the projection
    return [
        none,
        product(grad_pre, x) if wanted & Wanted.WEIGHT_IH else none,
        product(side, h_prev) if wanted & Wanted.WEIGHT_HH else none,
        grad_pre.sum((1, 2)) if biases else none,
        side.sum((1, 2)) if biases else none,
        product(grad_aux, before) if before is not none else none,
    ]
