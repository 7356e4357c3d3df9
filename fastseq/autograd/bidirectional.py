"""Both directions of a recurrent layer as one node, whose time loops on a GPU are one launch.

There is no op of this: it is called where nobody but autograd looks (``direct``), and where
``fastseq.ops.persistent.taken`` takes both. Whatever asks for more than a first derivative meets
the ops of each direction, in backward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastseq.autograd._op import as_torch_says, below_autograd, direct, wants_graph
from fastseq.autograd.cudnn import batched
from fastseq.autograd.extended_layer import back
from fastseq.autograd.layer import layer_backward, wanted_by
from fastseq.ops import Cell, Extras, bidirectional_cuda, persistent, routes
from fastseq.ops.bidirectional_cuda import BidirectionalBackward, WeightGradients, Weights
from fastseq.ops.persistent import Masks, both, part

_Grads = tuple[Tensor | None, ...]
_WEIGHTS = (slice(3, 7), slice(7, 11))  # of each direction, among the arguments
_SIZES, _MASKS = 11, slice(12, 16)
_RESET_STATES = (14, 15)


class Bidirectional(torch.autograd.Function):
    """``ops.bidirectional_cuda.bidirectional`` with gradients. What backward needs is saved.

    Arguments are x, h0, c0; weight_ih, weight_hh, bias_ih and bias_hh of each direction;
    batch_sizes, the ``Masks``, and the cell.

    Returns:
        y, h_n, c_n, gates, cells of both directions, (2, ...), or empty. Without masks all are
        differentiable, as those of ``Layer``.
    """

    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Run the layer and keep what backward needs."""
        *tensors, ctx.cell = args
        made = _run(tensors, ctx.cell, save=True)
        ctx.save_for_backward(made.y, made.gates, made.cells, *tensors)
        ctx.route = routes.current()  # backward is another thread's
        ctx.set_materialize_grads(False)
        if _masked(tensors):
            ctx.mark_non_differentiable(made.gates, made.cells)
        return tuple(made)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> _Grads:  # type: ignore[override]
        """Back-propagate through time, and make the gradients of all that was read."""
        y, gates, cells, *tensors = ctx.saved_tensors
        need = ctx.needs_input_grad
        found: list[Tensor | None] = [None] * len(need)
        if all(g is None for g in grads):
            return tuple(found)
        wanted = [wanted_by((*need[:3], *need[own], False)) for own in _WEIGHTS]
        token = routes.resume(ctx.route)
        try:
            run = _back_together if _goes_together(grads, tensors, ctx.cell) else _back_apart
            made = run(grads, (y, gates, cells), tensors, ctx.cell, wanted)
        finally:
            routes.leave(token)
        found[:3] = made[:3]
        for own, of_direction in zip(_WEIGHTS, made.weights, strict=True):
            found[own] = of_direction
        if _masked(tensors):
            found[_MASKS] = [None, None, made.grad_reset_h, made.grad_reset_c]
        return tuple(
            g if needed and (place not in _RESET_STATES or tensors[_MASKS][1] is not None) else None
            for place, (g, needed) in enumerate(zip(found, need, strict=True))
        )


def bidirectional(*args: Any) -> tuple[Tensor, ...]:
    """``Bidirectional``, or the kernels alone where nobody asks for a gradient."""
    if wants_graph(args[:-1]):
        made: tuple[Tensor, ...] = Bidirectional.apply(*args)
        return made
    return tuple(_run(args[:-1], args[-1], save=False))


def _masked(tensors: Any) -> bool:
    masks = Masks(*tensors[_MASKS])
    return masks.lengths is not None or masks.reset is not None


def _weights(tensors: Any) -> list[Weights]:
    return [Weights(*tensors[own]) for own in _WEIGHTS]


def _run(tensors: Any, cell: Cell, save: bool) -> Any:
    x, h0, c0 = tensors[:3]
    rest = _weights(tensors), tensors[_SIZES], Masks(*tensors[_MASKS]), cell, save
    try:
        with below_autograd():
            return bidirectional_cuda.bidirectional(x, h0, c0, *rest)
    except RuntimeError as error:
        as_torch_says(error)
        raise


def _goes_together(grads: _Grads, tensors: Any, cell: Cell) -> bool:
    """Whether first derivatives are all that is asked for, and there is a kernel, here and now."""
    x, h0, weight_hh = tensors[0], tensors[1], tensors[_WEIGHTS[0]][1]
    return (
        direct()
        and not torch.is_grad_enabled()
        and not batched(grads)
        and grads[3] is None
        and grads[4] is None
        and persistent.taken(cell, x, h0, weight_hh, None, directions=2)
    )


def _back_together(
    grads: _Grads, saved: tuple[Tensor, ...], tensors: Any, cell: Cell, wanted: list[int]
) -> BidirectionalBackward:
    """By one launch."""
    grad_y, grad_h_n, grad_c_n = grads[:3]
    y, gates, cells = saved
    x, h0, c0 = tensors[:3]
    rest = _weights(tensors), tensors[_SIZES], Masks(*tensors[_MASKS]), cell, wanted
    try:
        with below_autograd():
            return bidirectional_cuda.bidirectional_backward(
                grad_y, grad_h_n, grad_c_n, y, gates, cells, x, h0, c0, *rest
            )
    except RuntimeError as error:
        as_torch_says(error)
        raise


def _back_apart(
    grads: _Grads, saved: tuple[Tensor, ...], tensors: Any, cell: Cell, wanted: list[int]
) -> BidirectionalBackward:
    """By the ops of each direction, which have derivatives of their own."""
    x, sizes = tensors[0], tensors[_SIZES]
    made: list[Any] = []
    for number, own in enumerate(_WEIGHTS):
        h0, c0, *of = (part(t, number) for t in (*tensors[1:3], *grads, *saved))
        given: Any = of[:5]
        kept: Any = of[5:]
        tail = (int(cell), number == 1, wanted[number])
        weight_ih, weight_hh, *biases = tensors[own]
        if not _masked(tensors):
            read = (x, *kept, h0, c0, weight_ih, weight_hh, None, sizes)
            made.append(layer_backward(*given, *read, *tail))
            continue
        extras = Extras(*Masks(*tensors[_MASKS]).of(number))
        layer = [x, h0, c0, weight_ih, weight_hh, *biases, None, sizes, *extras]
        made.append(back([*given[:3], None], [*kept, x.new_empty(0)], layer, *tail))
    one, two = made
    of_weights = tuple(WeightGradients(*each[3:7]) for each in made)
    none = x.new_empty(0)
    resets = (both(a, b) for a, b in zip(one[8:10], two[8:10], strict=True))
    grad_reset_h, grad_reset_c = resets if _masked(tensors) else (none, none)
    return BidirectionalBackward(
        one[0] + two[0],
        torch.stack([one[1], two[1]]),
        both(one[2], two[2]),
        of_weights,
        grad_reset_h,
        grad_reset_c,
    )
