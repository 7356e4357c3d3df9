"""The matrix product of ``ops.linear``, with derivatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastseq.autograd._op import Op, below_autograd

_FORWARD = torch.ops.fastseq.linear.default


class Linear(torch.autograd.Function):
    """``ops.linear`` with gradients; the one of x is made the same way, row by row."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, turned: bool) -> Tensor:  # type: ignore[override]
        """Multiply."""
        with below_autograd():
            y: Tensor = _FORWARD(x, weight, turned)
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Save both factors."""
        x, weight, ctx.turned = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Differentiate a product."""
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = linear(grad, weight, not ctx.turned)
        if ctx.needs_input_grad[1]:
            a, b = (x, grad) if ctx.turned else (grad, x)
            grad_weight = a.flatten(0, -2).t() @ b.flatten(0, -2)
        return grad_x, grad_weight, None


def _formula(x: Tensor, weight: Tensor, turned: bool) -> Tensor:
    return x @ (weight if turned else weight.t())


linear = Op("linear", Linear, _formula)
