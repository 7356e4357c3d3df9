"""The extended layer, differentiable any number of times.

First derivatives are kernels'. Higher ones differentiate the reference implementation, run again
from the inputs: slow, and true for every combination of lengths, resets, masks and norms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastseq import reference
from fastseq.autograd._op import Op, below_autograd, forward_mode
from fastseq.autograd.layer import wanted_by
from fastseq.ops import KERNEL_DEVICES, Cell, Extras, routes
from fastseq.ops.extended_layer_cuda import has_kernels
from fastseq.ops.persistent import Masks, both, part
from fastseq.ops.recurrence import _sum_type
from fastseq.reference.extended_layer import EXTRAS, RESULTS, TENSORS

_Grads = tuple[Tensor | None, ...]
_FORWARD = torch.ops.fastseq.extended_layer.default
_BACKWARD = torch.ops.fastseq.extended_layer_backward.default
COUNT = EXTRAS.stop + 4  # tensors, batch_sizes, extras and epsilon, cell, reverse, save
RESET, *RESET_STATES = range(EXTRAS.start + 1, EXTRAS.start + 4)


class ExtendedLayer(torch.autograd.Function):
    """``ops.extended_layer`` with gradients; see there for the arguments. Activations are saved.

    Returns:
        y, h_n, c_n, gates, cells, products; gates and products have no gradient.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Run the layer and keep what backward needs."""
        with below_autograd():
            made: tuple[Tensor, ...] = _FORWARD(*args[:-1], True)
        return made

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Save inputs and outputs only, so that functorch can follow."""
        y, _, _, gates, cells, products = output
        *tensors, ctx.epsilon, ctx.cell, ctx.reverse, _ = inputs
        ctx.route = routes.current()  # on a GPU, backward is another thread's
        ctx.mark_non_differentiable(gates, products)
        ctx.save_for_backward(y, gates, cells, products, *tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> _Grads:  # type: ignore[override]
        """Back-propagate through time, and make the gradients of all that was read."""
        grad_y, grad_h_n, grad_c_n, _, grad_cells, _ = grads
        if all(g is None for g in grads):
            return (None,) * COUNT
        y, gates, cells, products, *tensors = ctx.saved_tensors
        need = ctx.needs_input_grad
        if tensors[2] is None:  # no cell state: nothing can ask for its gradient
            grad_c_n = grad_cells = None
        token = routes.resume(ctx.route)
        try:
            made = back(
                [grad_y, grad_h_n, grad_c_n, grad_cells],
                [y, gates, cells, products],
                [*tensors, ctx.epsilon],
                ctx.cell,
                ctx.reverse,
                wanted_by(need),
            )
        finally:
            routes.leave(token)
        found: list[Tensor | None] = [None] * COUNT
        for place, grad in zip(RESULTS, made, strict=True):
            if need[place] and (place not in RESET_STATES or tensors[RESET] is not None):
                found[place] = grad
        return tuple(found)


def back(
    grads: list[Tensor | None],
    saved: list[Tensor],
    layer: list[Any],
    cell: int,
    reverse: bool,
    wanted: int,
) -> tuple[Tensor, ...]:
    """What ``extended_layer_backward`` returns, by kernels where there are some.

    Args:
        grads: of y, h_n, c_n and cells.
        saved: y, gates, cells, products.
        layer: the tensors that it was called with, and epsilon.
        cell: a ``Cell``.
        reverse: as given.
        wanted: of ``Wanted``.
    """
    # The formula of the gradients is itself a vjp, which a transform that is at work on an op
    # cannot begin: here, before the op is called, it can.
    formula = forward_mode() or not _differentiates(cell, layer, grads[3])
    run = reference.extended_layer_backward if formula else extended_layer_backward
    made: tuple[Tensor, ...] = run(*grads, *saved, *layer, cell, reverse, wanted)
    return made


def _differentiates(cell: int, layer: list[Any], grad_cells: Tensor | None) -> bool:
    """Whether there are kernels for backward where the layer is, here and now."""
    x, h0, weight_hh, weight_hr = layer[0], layer[1], layer[4], layer[7]
    if x.device.type in KERNEL_DEVICES:
        return True
    extras = Extras._make(layer[EXTRAS.start :])
    # Those of CUDA do not take gradients of the cell states of all steps.
    return grad_cells is None and has_kernels(Cell(cell), x, h0, weight_hh, weight_hr, extras)


class ExtendedLayerBackward(torch.autograd.Function):
    """``ops.extended_layer_backward`` with gradients, by the reference implementation."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Run the backward kernels."""
        with below_autograd():
            made: tuple[Tensor, ...] = _BACKWARD(*args)
        return made

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Save the gradients and the layer's arguments; what forward saved is made again."""
        *tensors, ctx.epsilon, ctx.cell, ctx.reverse, ctx.wanted = inputs
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> _Grads:  # type: ignore[override]
        """Differentiate the reference implementation twice."""
        saved = ctx.saved_tensors
        options = (ctx.epsilon, ctx.cell, ctx.reverse, ctx.wanted)
        skipped = range(4, 8)  # y, gates, cells, products: made again of the layer's arguments
        places = [
            i
            for i, t in enumerate(saved)
            if t is not None and t.is_floating_point() and i not in skipped
        ]
        asked = [i for i, g in enumerate(grads) if g is not None and g.numel()]
        found: list[Tensor | None] = [None] * (len(saved) + len(options))
        if asked and any(t is not None for t in saved[:4]):

            def gradients(*values: Tensor) -> tuple[Tensor, ...]:
                every: list[Any] = list(saved)
                for i, value in zip(places, values, strict=True):
                    every[i] = value
                made = reference.extended_layer_backward(*every, *options)
                return tuple(made[i] for i in asked)

            pull = torch.func.vjp(gradients, *(saved[i] for i in places))[1]
            for i, grad in zip(places, pull(tuple(grads[i] for i in asked)), strict=True):
                found[i] = grad
        return tuple(found)


def _formula(*args: Any) -> tuple[Tensor, ...]:
    tensors: Any
    *tensors, epsilon, cell, reverse, save = args
    extras = Extras._make([*tensors[EXTRAS], epsilon])
    head: Any = [*tensors[: TENSORS + 1], extras, cell, reverse, save]
    made = reference.extended_layer(*head)
    return made._replace(cells=made.cells.to(_sum_type(made.y.dtype)))


def _loop_formula(
    pre: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    weight_hh: Tensor,
    bias_hn: Tensor | None,
    weight_hr: Tensor | None,
    batch_sizes: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, ...]:
    *masks, cell, reverse, save = rest
    if weight_hh.dim() == 3:
        own = (pre, h0, c0, weight_hh, bias_hn, weight_hr)
        return _of_both(_loop_formula, own, batch_sizes, *rest)
    layer: Any = [pre, h0, c0, None, weight_hh, None, bias_hn, weight_hr, batch_sizes]
    layer += [Extras(*masks), cell, reverse, save]
    made = reference.extended_layer(*layer)
    return made._replace(cells=made.cells.to(_sum_type(made.y.dtype)))[:-1]


def _loop_backward_formula(*args: Any) -> tuple[Tensor, ...]:
    masks, (cell, reverse) = Masks(*args[-6:-2]), args[-2:]
    if args[10].dim() == 3:
        return _of_both(_loop_backward_formula, args[:12], *args[12:])
    if masks.lengths is not None or masks.reset is not None:
        raise RuntimeError(
            "fastseq::recurrence_persistent_backward has no derivatives with lengths or resets; "
            "fastseq::extended_layer_backward has"
        )
    plain: Any = [*args[:-6], cell, reverse]
    none = args[5].new_empty(0)
    return *reference.recurrence_backward(*plain), none, none


def _of_both(
    formula: Callable[..., tuple[Tensor, ...]],
    own: tuple[Tensor | None, ...],
    batch_sizes: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, ...]:
    """A formula of one direction for tensors of both, with a dimension of 2 in front."""
    masks, (cell, reverse, *save) = Masks(*rest[:4]), rest[4:]
    one, two = (
        formula(
            *(part(t, number) for t in own),
            batch_sizes,
            *masks.of(number),
            cell,
            reverse != bool(number),
            *save,
        )
        for number in (0, 1)
    )
    return tuple(both(a, b) for a, b in zip(one, two, strict=True))


persistent = Op("recurrence_persistent", None, _loop_formula)
persistent_backward = Op("recurrence_persistent_backward", None, _loop_backward_formula)
extended_layer = Op("extended_layer", ExtendedLayer, _formula)
extended_layer_backward = Op(
    "extended_layer_backward", ExtendedLayerBackward, reference.extended_layer_backward
)
