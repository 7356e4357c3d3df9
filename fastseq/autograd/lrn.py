"""Local response normalization with derivatives of every order.

Only x is saved: backward recomputes the normalizer, which is cheaper than to read it back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastseq import reference
from fastseq.autograd._op import Op, below_autograd

_FORWARD = torch.ops.fastseq.local_response_norm.default
_BACKWARD = torch.ops.fastseq.local_response_norm_backward.default


class LocalResponseNorm(torch.autograd.Function):
    """``ops.local_response_norm`` with gradients; see there for the arguments."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, *parameters: Any) -> Tensor:  # type: ignore[override]
        """Normalize."""
        with below_autograd():
            y: Tensor = _FORWARD(x, *parameters)
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Save x."""
        x, *ctx.parameters = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Recompute the normalizer and differentiate."""
        (x,) = ctx.saved_tensors
        grad_x = local_response_norm_backward(grad_y, x, *ctx.parameters)
        return (grad_x, *(None for _ in ctx.parameters))


class LocalResponseNormBackward(torch.autograd.Function):
    """``ops.local_response_norm_backward``, with gradients by the reference implementation."""

    generate_vmap_rule = True

    @staticmethod
    def forward(grad_y: Tensor, x: Tensor, *parameters: Any) -> Tensor:  # type: ignore[override]
        """Run the backward kernel."""
        with below_autograd():
            grad_x: Tensor = _BACKWARD(grad_y, x, *parameters)
        return grad_x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Save both tensors."""
        grad_y, x, *ctx.parameters = inputs
        ctx.save_for_backward(grad_y, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Differentiate the gradient's formula, written in PyTorch."""
        grad_y, x = ctx.saved_tensors

        def gradient(grad_y: Tensor, x: Tensor) -> Tensor:
            return reference.local_response_norm_backward(grad_y, x, *ctx.parameters)

        pull = torch.func.vjp(gradient, grad_y, x)[1]
        return (*pull(grad), *(None for _ in ctx.parameters))


local_response_norm = Op("local_response_norm", LocalResponseNorm, reference.local_response_norm)
local_response_norm_backward = Op(
    "local_response_norm_backward",
    LocalResponseNormBackward,
    reference.local_response_norm_backward,
)
