"""Local response normalization as a ``torch.autograd.Function``, differentiable any often.

Only x is saved: backward recomputes the normalizer, which is cheaper than to read it back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastseq import reference
from fastseq.autograd._positional import positional

RAW = torch.ops.fastseq


class LocalResponseNorm(torch.autograd.Function):
    """``ops.local_response_norm`` with gradients; see there for the arguments."""

    generate_vmap_rule = True

    @staticmethod
    @positional
    def forward(x: Tensor, *parameters: Any) -> Tensor:  # type: ignore[override]
        """Normalize."""
        y: Tensor = torch.ops.fastseq.local_response_norm(x, *parameters)
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
        # Without grad mode nobody can ask for a second derivative: the op alone, at half the cost.
        again = torch.is_grad_enabled()
        call = LocalResponseNormBackward.apply if again else RAW.local_response_norm_backward
        grad_x = call(grad_y, x, *ctx.parameters)
        return (grad_x, *(None for _ in ctx.parameters))


class LocalResponseNormBackward(torch.autograd.Function):
    """``ops.local_response_norm_backward``, with gradients by the reference implementation."""

    generate_vmap_rule = True

    @staticmethod
    @positional
    def forward(grad_y: Tensor, x: Tensor, *parameters: Any) -> Tensor:  # type: ignore[override]
        """Run the backward kernel."""
        grad_x: Tensor = torch.ops.fastseq.local_response_norm_backward(grad_y, x, *parameters)
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
