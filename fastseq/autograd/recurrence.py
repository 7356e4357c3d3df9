"""The recurrence as a ``torch.autograd.Function``, differentiable any number of times.

Forward returns, beside its results, the activations that backward needs (``gates``, ``cells``) as
outputs that are themselves differentiable. Backward is a Function of them. So the second derivative
needs no second copy of the inputs: it arrives as a gradient of ``gates`` and ``cells``, and the
same backward kernel takes it on.

The products that sum over all steps (gradients of the weights and of GRU's bias) are ordinary
PyTorch, outside the kernels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastseq import reference
from fastseq.ops import Cell

_Grads = tuple[Tensor | None, ...]


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


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


def _weight_gradient(
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


class Recurrence(torch.autograd.Function):
    """``ops.recurrence`` with gradients; see there for the arguments.

    Returns:
        y, h_n, c_n, gates, cells. All are differentiable; c_n, gates and cells are empty for cells
        that have none.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        pre: Tensor,
        h0: Tensor,
        c0: Tensor | None,
        weight_hh: Tensor,
        bias_hn: Tensor | None,
        weight_hr: Tensor | None,
        batch_sizes: Tensor | None,
        cell: int,
        reverse: bool,
    ) -> tuple[Tensor, ...]:
        """Run the time loop and keep what backward needs."""
        return tuple(
            torch.ops.fastseq.recurrence(
                pre, h0, c0, weight_hh, bias_hn, weight_hr, batch_sizes, cell, reverse, True
            )
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Save inputs and outputs only, so that functorch can follow."""
        _, h0, c0, weight_hh, _, weight_hr, batch_sizes, cell, reverse = inputs
        y, _, _, gates, cells = output
        ctx.save_for_backward(y, gates, cells, h0, c0, weight_hh, weight_hr, batch_sizes)
        ctx.cell, ctx.reverse = Cell(cell), reverse
        if not torch.compiler.is_compiling():
            # Zeros for the outputs that nobody used would cost a pass over memory each.
            ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> _Grads:  # type: ignore[override]
        """Back-propagate through time, then make the gradients of the weights."""
        y, gates, cells, h0, c0, weight_hh, weight_hr, batch_sizes = ctx.saved_tensors
        cell, reverse = ctx.cell, ctx.reverse
        if all(g is None for g in grads):
            return (None,) * 9
        grad_pre, grad_aux, grad_h0, grad_c0 = RecurrenceBackward.apply(
            *grads,
            y,
            gates,
            cells,
            h0,
            c0,
            weight_hh,
            weight_hr,
            batch_sizes,
            int(cell),
            reverse,
        )
        hidden = weight_hh.shape[0] // cell.gates
        grad_w = grad_b = grad_r = None
        if ctx.needs_input_grad[3]:
            sides = [grad_pre]
            if cell == Cell.GRU:
                sides = [grad_pre[..., : 2 * hidden], grad_aux]
            grad_w = _weight_gradient(sides, y, h0, batch_sizes, reverse)
        if ctx.needs_input_grad[4]:
            grad_b = _rows(grad_aux).sum(0)
        if ctx.needs_input_grad[5]:
            output = gates[..., 3 * hidden :] * cells.tanh().to(
                gates.dtype
            )  # before the projection
            grad_r = _rows(grad_aux).t() @ _rows(output)
        if c0 is None:
            grad_c0 = None
        return grad_pre, grad_h0, grad_c0, grad_w, grad_b, grad_r, None, None, None


class RecurrenceBackward(torch.autograd.Function):
    """``ops.recurrence_backward`` with gradients of its own, by the reference implementation."""

    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Run the backward time loop."""
        return tuple(torch.ops.fastseq.recurrence_backward(*args))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Save every input: the reference differentiates with respect to all of them."""
        *tensors, cell, reverse = inputs
        ctx.save_for_backward(*tensors)
        ctx.cell, ctx.reverse = cell, reverse
        if not torch.compiler.is_compiling():
            ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> _Grads:  # type: ignore[override]
        """Differentiate back-propagation through time, written in PyTorch."""
        saved = ctx.saved_tensors
        again = torch.is_grad_enabled()  # a third derivative is wanted
        with torch.enable_grad():
            inputs = [
                None if t is None or not needed else (t.view_as(t) if again else t.detach())
                for t, needed in zip(saved, ctx.needs_input_grad, strict=False)
            ]
            for t in inputs:
                if t is not None and not t.requires_grad:
                    t.requires_grad_()
            used: list[Any] = [s if t is None else t for s, t in zip(saved, inputs, strict=True)]
            used += [ctx.cell, ctx.reverse]
            outputs = reference.recurrence_backward(*used)
            pairs = [
                (o, g)
                for o, g in zip(outputs, grads, strict=True)
                if g is not None and o.requires_grad
            ]
            wanted = [t for t in inputs if t is not None]
            if not pairs or not wanted:
                return (None,) * (len(saved) + 2)
            found = iter(
                torch.autograd.grad(
                    [o for o, _ in pairs],
                    wanted,
                    [g for _, g in pairs],
                    create_graph=again,
                    allow_unused=True,
                )
            )
        return (*(None if t is None else next(found) for t in inputs), None, None)
