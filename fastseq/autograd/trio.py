"""ReLU, LRN and max-pooling in one pass, with derivatives of every order.

Saved are x and a byte for each output; everything between them is recomputed in backward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastseq import reference
from fastseq.autograd._op import Op, below_autograd
from fastseq.ops.pool import Window

_FORWARD = torch.ops.fastseq.relu_lrn_max_pool2d.default
_BACKWARD = torch.ops.fastseq.relu_lrn_max_pool2d_backward.default


class ReLULRNMaxPool2d(torch.autograd.Function):
    """``ops.relu_lrn_max_pool2d`` with gradients; see there for the arguments.

    Returns:
        y, and offsets, which have no gradient.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Run the three ops in one pass, and keep the places of the maxima."""
        with below_autograd():
            y, offsets = _FORWARD(x, *rest[:-1], True)
        return y, offsets

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Save the input and the places of the maxima."""
        x, *ctx.parameters, _, _ = inputs
        _, offsets = output
        ctx.mark_non_differentiable(offsets)
        ctx.save_for_backward(offsets, x)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, grad_y: Tensor, _: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Differentiate the three ops in one pass."""
        grad_x = relu_lrn_max_pool2d_backward(grad_y, *ctx.saved_tensors, *ctx.parameters)
        return (grad_x, *(None for _ in ctx.parameters), None, None)


class ReLULRNMaxPool2dBackward(torch.autograd.Function):
    """``ops.relu_lrn_max_pool2d_backward``, with gradients by the reference implementation."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*args: Any) -> Tensor:  # type: ignore[override]
        """Run the backward kernel."""
        with below_autograd():
            grad_x: Tensor = _BACKWARD(*args)
        return grad_x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Save every tensor."""
        grad_y, offsets, x, *ctx.parameters = inputs
        ctx.save_for_backward(grad_y, offsets, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Differentiate the gradient's formula, written in PyTorch."""
        grad_y, offsets, x = ctx.saved_tensors

        def gradient(grad_y: Tensor, x: Tensor) -> Tensor:
            return _backward_formula(grad_y, offsets, x, *ctx.parameters)

        pull = torch.func.vjp(gradient, grad_y, x)[1]
        grad_grad_y, grad_x = pull(grad)
        return (grad_grad_y, None, grad_x, *(None for _ in ctx.parameters))


def _formula(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    *numbers, ceil_mode, save = rest
    size, alpha, beta, k, *window = numbers
    return reference.relu_lrn_max_pool2d(x, size, alpha, beta, k, Window(*window), ceil_mode, save)


def _backward_formula(grad_y: Tensor, offsets: Tensor, x: Tensor, *rest: Any) -> Tensor:
    size, alpha, beta, k, *window = rest
    return reference.relu_lrn_max_pool2d_backward(
        grad_y, offsets, x, size, alpha, beta, k, Window(*window)
    )


relu_lrn_max_pool2d = Op("relu_lrn_max_pool2d", ReLULRNMaxPool2d, _formula)
relu_lrn_max_pool2d_backward = Op(
    "relu_lrn_max_pool2d_backward", ReLULRNMaxPool2dBackward, _backward_formula
)
