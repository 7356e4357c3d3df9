"""The extended layer as a ``torch.autograd.Function``, differentiable any number of times.

First derivatives are kernels'. Higher ones differentiate the reference implementation, run again
from the inputs: slow, and true for every combination of lengths, resets, masks and norms.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastseq import reference
from fastseq.autograd._positional import positional
from fastseq.ops import Extras, Wanted

_Grads = tuple[Tensor | None, ...]
RAW = torch.ops.fastseq
# Arguments: x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr; batch_sizes; the extras;
# cell, reverse.
TENSORS = 8
EXTRAS = slice(TENSORS + 1, TENSORS + 1 + len(Extras._fields))
COUNT = EXTRAS.stop + 2
RESET, *RESET_STATES = range(EXTRAS.start + 1, EXTRAS.start + 4)
# Where in the arguments each of the backward op's results belongs.
RESULTS = (*range(TENSORS), *RESET_STATES, *(EXTRAS.start + i for i in (7, 8, 9)))


class ExtendedLayer(torch.autograd.Function):
    """``ops.extended_layer`` with gradients; see there for the arguments.

    Returns:
        y, h_n, c_n, gates, cells, products; gates and products have no gradient.
    """

    generate_vmap_rule = True

    @staticmethod
    @positional
    def forward(*args: Any) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Run the layer and keep what backward needs."""
        return tuple(RAW.extended_layer(*args, True))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Save inputs and outputs only, so that functorch can follow."""
        y, _, _, gates, cells, products = output
        *tensors, ctx.epsilon, ctx.cell, ctx.reverse = inputs
        ctx.mark_non_differentiable(gates, products)
        ctx.save_for_backward(y, gates, cells, products, *tensors)
        if not torch.compiler.is_compiling():
            ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> _Grads:  # type: ignore[override]
        """Back-propagate through time, and make the gradients of all that was read."""
        grad_y, grad_h_n, grad_c_n, _, grad_cells, _ = grads
        if all(g is None for g in grads):
            return (None,) * COUNT
        y, gates, cells, products, *tensors = ctx.saved_tensors
        need = ctx.needs_input_grad
        flags = (Wanted.INPUT, Wanted.WEIGHT_IH, Wanted.WEIGHT_HH, Wanted.BIASES, Wanted.WEIGHT_HR)
        needed = (need[0], need[3], need[4], need[5] or need[6], need[7])
        wanted = sum(int(flag) for flag, yes in zip(flags, needed, strict=True) if yes)
        if tensors[2] is None:  # no cell state: nothing can ask for its gradient
            grad_c_n = grad_cells = None
        options = (ctx.epsilon, ctx.cell, ctx.reverse)
        again = torch.is_grad_enabled()  # somebody may differentiate this
        run = ExtendedLayerBackward.apply if again else run_backward
        made = run(
            grad_y, grad_h_n, grad_c_n, grad_cells, y, gates, cells, products, *tensors, *options,
            wanted,
        )  # fmt: skip
        found: list[Tensor | None] = [None] * COUNT
        for place, grad in zip(RESULTS, made, strict=True):
            if need[place] and (place not in RESET_STATES or tensors[RESET] is not None):
                found[place] = grad
        return tuple(found)


def run_backward(*args: Any) -> tuple[Tensor, ...]:
    """The backward op, of the gradients, the saved outputs and all arguments of the layer."""
    grads, (y, gates, cells, products), rest = args[:4], args[4:8], args[8:]
    x, h0, c0, weight_ih, weight_hh, _, _, weight_hr = rest[:TENSORS]
    made: tuple[Tensor, ...] = RAW.extended_layer_backward(
        *grads, x, y, gates, cells, products, h0, c0, weight_ih, weight_hh, weight_hr,
        *rest[TENSORS:],
    )  # fmt: skip
    return tuple(made)


class ExtendedLayerBackward(torch.autograd.Function):
    """``ops.extended_layer_backward`` with gradients, by the reference implementation."""

    generate_vmap_rule = True

    @staticmethod
    @positional
    def forward(*args: Any) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Run the backward kernels."""
        return run_backward(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Save the gradients and the layer's arguments; what forward saved is made again."""
        *tensors, ctx.epsilon, ctx.cell, ctx.reverse, ctx.wanted = inputs
        ctx.save_for_backward(*tensors[:4], *tensors[8:])
        if not torch.compiler.is_compiling():
            ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> _Grads:  # type: ignore[override]
        """Differentiate the reference implementation twice."""
        saved = ctx.saved_tensors
        # A gradient that none of the caller's inputs asked for cannot be one of these outputs.
        places = [i for i, t in enumerate(saved) if t is not None and t.is_floating_point()]
        inner = [i for i in places if i >= 4]
        asked = {4 + place: g for place, g in zip(RESULTS, grads, strict=True) if g is not None}
        wanted = [i for i in inner if i in asked]
        if not wanted or all(t is None for t in saved[:4]):
            return (None,) * (len(saved) + 8)

        def gradients(*values: Tensor) -> tuple[Tensor, ...]:
            every: list[Any] = list(saved)
            for i, value in zip(places, values, strict=True):
                every[i] = value

            def layer(*inputs: Tensor) -> tuple[Tensor, ...]:
                for i, value in zip(wanted, inputs, strict=True):
                    every[i] = value
                rest: Any = every[4:]
                beside = Extras._make([*rest[TENSORS + 1 :], ctx.epsilon])
                head: list[Any] = [*rest[: TENSORS + 1], beside, ctx.cell, ctx.reverse]
                made = reference.extended_layer(*head)
                outputs = (made.y, made.h_n, made.c_n, made.cells)
                return tuple(o for o, g in zip(outputs, every[:4], strict=True) if g is not None)

            outputs, pull = torch.func.vjp(layer, *(every[i] for i in wanted))[:2]
            given = [g for g in every[:4] if g is not None]
            cast = tuple(g.to(o.dtype) for g, o in zip(given, outputs, strict=True))
            return tuple(pull(cast))

        pull = torch.func.vjp(gradients, *(saved[i] for i in places))[1]
        found: list[Tensor | None] = [None] * len(saved)
        for i, grad in zip(places, pull(tuple(asked[i] for i in wanted)), strict=True):
            found[i] = grad
        return (*found[:4], None, None, None, None, *found[4:], None, None, None, None)
