"""ReLU, LRN and max-pooling in one pass, as a ``torch.autograd.Function``.

Saved are x and a byte for each output; everything between them is recomputed in backward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastseq import reference
from fastseq.autograd._positional import positional
from fastseq.ops.pool import Window


class ReLULRNMaxPool2d(torch.autograd.Function):
    """``ops.relu_lrn_max_pool2d`` with gradients; see there for the arguments.

    Returns:
        y, and offsets, which have no gradient.
    """

    generate_vmap_rule = True

    @staticmethod
    @positional
    def forward(  # type: ignore[override]
        x: Tensor, size: int, alpha: float, beta: float, k: float, window: Window, ceil_mode: bool
    ) -> tuple[Tensor, Tensor]:
        """Run the three ops in one pass."""
        y, offsets = torch.ops.fastseq.relu_lrn_max_pool2d(
            x, size, alpha, beta, k, *window, ceil_mode, True
        )
        return y, offsets

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Save the input and the places of the maxima."""
        x, *ctx.parameters, _ = inputs
        _, offsets = output
        ctx.mark_non_differentiable(offsets)
        ctx.save_for_backward(offsets, x)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, grad_y: Tensor, _: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Differentiate the three ops in one pass."""
        offsets, x = ctx.saved_tensors
        # Without grad mode nobody can ask for a second derivative: the op alone, at half the cost.
        if torch.is_grad_enabled():
            grad_x = ReLULRNMaxPool2dBackward.apply(grad_y, offsets, x, *ctx.parameters)
        else:
            *norm, window = ctx.parameters
            grad_x = torch.ops.fastseq.relu_lrn_max_pool2d_backward(
                grad_y, offsets, x, *norm, *window
            )
        return (grad_x, *(None for _ in ctx.parameters), None)


class ReLULRNMaxPool2dBackward(torch.autograd.Function):
    """``ops.relu_lrn_max_pool2d_backward``, with gradients by the reference implementation."""

    generate_vmap_rule = True

    @staticmethod
    @positional
    def forward(  # type: ignore[override]
        grad_y: Tensor,
        offsets: Tensor,
        x: Tensor,
        size: int,
        alpha: float,
        beta: float,
        k: float,
        window: Window,
    ) -> Tensor:
        """Run the backward kernel."""
        grad_x: Tensor = torch.ops.fastseq.relu_lrn_max_pool2d_backward(
            grad_y, offsets, x, size, alpha, beta, k, *window
        )
        return grad_x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Save every tensor."""
        *tensors, size, alpha, beta, k, window = inputs
        ctx.parameters = (size, alpha, beta, k, window)
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Differentiate the gradient's formula, written in PyTorch."""
        grad_y, offsets, x = ctx.saved_tensors

        def gradient(grad_y: Tensor, x: Tensor) -> Tensor:
            return reference.relu_lrn_max_pool2d_backward(grad_y, offsets, x, *ctx.parameters)

        pull = torch.func.vjp(gradient, grad_y, x)[1]
        grad_grad_y, grad_x = pull(grad)
        return (grad_grad_y, None, grad_x, *(None for _ in ctx.parameters))
