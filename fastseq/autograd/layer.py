"""A recurrent layer with derivatives of every order.

Forward returns, beside its results, the activations that backward needs (``gates``, ``cells``) as
outputs that are themselves differentiable. Backward is an op of them. So the second derivative
needs no second copy of the inputs: it arrives as a gradient of ``gates`` and ``cells``, and the
same backward kernel takes it on.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastseq import reference
from fastseq.autograd._op import Op, below_autograd, in_place
from fastseq.ops import routes
from fastseq.ops.recurrence import _sum_type

_Grads = tuple[Tensor | None, ...]
_FORWARD = torch.ops.fastseq.layer.default
_BACKWARD = torch.ops.fastseq.layer_backward.default


def wanted_by(need: tuple[bool, ...]) -> int:
    """The ``Wanted`` gradients of a layer whose first eight arguments need these."""
    x, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr = need[:8]
    # Bits in the order of ``Wanted``: a loop over its members is ten times as long.
    return x | w_ih << 1 | w_hh << 2 | (b_ih or b_hh) << 3 | w_hr << 4 | (h0 or c0) << 5


class Layer(torch.autograd.Function):
    """``ops.layer`` with gradients; see there for the arguments. What backward needs is saved.

    Returns:
        y, h_n, c_n, gates, cells. All are differentiable; c_n, gates and cells are empty for cells
        that have none.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(  # type: ignore[override]
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
    ) -> tuple[Tensor, ...]:
        """Run the layer and keep what backward needs."""
        with below_autograd():
            made: tuple[Tensor, ...] = _FORWARD(
                x,
                h0,
                c0,
                weight_ih,
                weight_hh,
                bias_ih,
                bias_hh,
                weight_hr,
                batch_sizes,
                cell,
                reverse,
                True,
            )
        return made

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Save inputs and outputs only, so that functorch can follow."""
        x, h0, c0, weight_ih, weight_hh, _, _, weight_hr, batch_sizes, cell, reverse, _ = inputs
        y, _, _, gates, cells = output
        ctx.save_for_backward(
            x, y, gates, cells, h0, c0, weight_ih, weight_hh, weight_hr, batch_sizes
        )
        ctx.cell, ctx.reverse = cell, reverse
        ctx.route = routes.current()  # on a GPU, backward is another thread's
        # Zeros for the outputs that nobody used would cost a pass over memory each.
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> _Grads:  # type: ignore[override]
        """Back-propagate through time, and make the gradients of all that was read."""
        if all(g is None for g in grads):
            return (None,) * 12
        need = ctx.needs_input_grad
        token = routes.resume(ctx.route)
        try:
            dx, dh0, dc0, dw_ih, dw_hh, db_ih, db_hh, dw_hr = layer_backward(
                *grads, *ctx.saved_tensors, ctx.cell, ctx.reverse, wanted_by(need)
            )
        finally:
            routes.leave(token)
        return (
            dx if need[0] else None,
            dh0 if need[1] else None,
            dc0 if need[2] else None,
            dw_ih if need[3] else None,
            dw_hh if need[4] else None,
            db_ih if need[5] else None,
            db_hh if need[6] else None,
            dw_hr if need[7] else None,
            None,
            None,
            None,
            None,
        )


class LayerBackward(torch.autograd.Function):
    """``ops.layer_backward`` with gradients of its own, by the reference implementation."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Run the backward kernels."""
        with below_autograd():
            made: tuple[Tensor, ...] = _BACKWARD(*args)
        return made

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Save every input: the reference differentiates with respect to all of them."""
        *tensors, cell, reverse, wanted = inputs
        ctx.save_for_backward(*tensors)
        ctx.options = cell, reverse, wanted
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> _Grads:  # type: ignore[override]
        """Differentiate back-propagation through time, written in PyTorch."""
        saved = ctx.saved_tensors
        places = [i for i, t in enumerate(saved) if t is not None and ctx.needs_input_grad[i]]
        asked = [i for i, g in enumerate(grads) if g is not None]
        if not asked or not places:
            return (None,) * (len(saved) + 3)

        def gradients(*values: Tensor) -> tuple[Tensor, ...]:
            every = list(saved)
            for i, value in zip(places, values, strict=True):
                every[i] = value
            made = reference.layer_backward(*every, *ctx.options)
            return tuple(made[i] for i in asked)

        given = [g for g in grads if g is not None]
        outputs, pull = torch.func.vjp(gradients, *(saved[i] for i in places))[:2]
        pulled = pull(tuple(g.to(o.dtype) for g, o in zip(given, outputs, strict=True)))
        found: list[Tensor | None] = [None] * (len(saved) + 3)
        for i, grad in zip(places, pulled, strict=True):
            found[i] = grad
        return tuple(found)


def _formula(*args: Any) -> tuple[Tensor, ...]:
    made = reference.layer(*args)
    return made._replace(cells=made.cells.to(_sum_type(made.y.dtype)))


def _step_formula(
    x: Tensor,
    h: Tensor,
    c: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    cell: int,
) -> tuple[Tensor, Tensor]:
    made = layer(
        x.unsqueeze(0), h, c, weight_ih, weight_hh, bias_ih, bias_hh, None, None, cell, False, False
    )
    return made[1], made[2]


layer = Op("layer", Layer, _formula)
layer_backward = Op("layer_backward", LayerBackward, reference.layer_backward)
recurrence = Op("recurrence", None, reference.recurrence)
recurrence_backward = Op("recurrence_backward", None, reference.recurrence_backward)
step = Op("step", None, _step_formula)
in_place("step_")
