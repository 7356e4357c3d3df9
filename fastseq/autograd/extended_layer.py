"""The extended layer, differentiable any number of times.

First derivatives are kernels'. Higher ones differentiate the reference implementation, run again
from the inputs: slow, and true for every combination of lengths, resets, masks and norms.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastseq import reference
from fastseq.autograd._op import Op, below_autograd, forward_mode
from fastseq.autograd.layer import wanted_by
from fastseq.ops import Extras
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
        # The formula of the gradients is itself a vjp, which a transform that is at work on an op
        # cannot begin: here, before the op is called, it can.
        run = reference.extended_layer_backward if forward_mode() else extended_layer_backward
        made = run(
            grad_y, grad_h_n, grad_c_n, grad_cells, y, gates, cells, products, *tensors,
            ctx.epsilon, ctx.cell, ctx.reverse, wanted_by(need),
        )  # fmt: skip
        found: list[Tensor | None] = [None] * COUNT
        for place, grad in zip(RESULTS, made, strict=True):
            if need[place] and (place not in RESET_STATES or tensors[RESET] is not None):
                found[place] = grad
        return tuple(found)


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


extended_layer = Op("extended_layer", ExtendedLayer, _formula)
extended_layer_backward = Op(
    "extended_layer_backward", ExtendedLayerBackward, reference.extended_layer_backward
)
