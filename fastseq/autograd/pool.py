"""Max-pooling, differentiable any number of times.

Forward remembers where each maximum was. Given that, pooling is linear: backward sends gradients to
those pixels, and its own backward picks values from them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastseq import reference
from fastseq.autograd._op import Op, below_autograd
from fastseq.ops._common import channels_last
from fastseq.ops.pool import Pair, Window
from fastseq.reference.pool import pick

_FORWARD = torch.ops.fastseq.max_pool2d.default
_BACKWARD = torch.ops.fastseq.max_pool2d_backward.default


class MaxPool2d(torch.autograd.Function):
    """``ops.max_pool2d`` with gradients; see there for the arguments. Offsets are always saved.

    Returns:
        y, and offsets, which have no gradient.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(  # type: ignore[override]
        x: Tensor,
        kernel_size: Pair,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        ceil_mode: bool,
        save: bool,
    ) -> tuple[Tensor, Tensor]:
        """Pool, and keep the places of the maxima."""
        with below_autograd():
            y, offsets = _FORWARD(x, kernel_size, stride, padding, dilation, ceil_mode, True)
        return y, offsets

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Save a byte for each output."""
        x, *ctx.window, _, _ = inputs
        _, offsets = output
        ctx.mark_non_differentiable(offsets)
        ctx.save_for_backward(offsets)
        ctx.image = (x.shape[-2], x.shape[-1], channels_last(x))

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, grad_y: Tensor, _: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Each gradient to the pixel that was the maximum."""
        (offsets,) = ctx.saved_tensors
        grad_x = max_pool2d_backward(grad_y, offsets, *ctx.image, *ctx.window)
        return grad_x, None, None, None, None, None, None


class MaxPool2dBackward(torch.autograd.Function):
    """``ops.max_pool2d_backward``, linear in grad_y."""

    generate_vmap_rule = True

    @staticmethod
    def forward(  # type: ignore[override]
        grad_y: Tensor, offsets: Tensor, height: int, width: int, last: bool, *window: Pair
    ) -> Tensor:
        """Gather the gradients of each pixel."""
        with below_autograd():
            grad_x: Tensor = _BACKWARD(grad_y, offsets, height, width, last, *window)
        return grad_x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Save the places of the maxima."""
        _, offsets, *ctx.rest = inputs
        ctx.save_for_backward(offsets)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Pick the values at the maxima: PyTorch's operators, which differentiate themselves."""
        (offsets,) = ctx.saved_tensors
        picked = pick(grad, offsets, Window(*ctx.rest[3:]))
        return picked, None, *(None for _ in ctx.rest)


def _formula(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    *window, ceil_mode, save = rest
    return reference.max_pool2d(x, Window(*window), ceil_mode, save)


def _backward_formula(
    grad_y: Tensor, offsets: Tensor, height: int, width: int, last: bool, *window: Pair
) -> Tensor:
    return reference.max_pool2d_backward(grad_y, offsets, height, width, last, Window(*window))


max_pool2d = Op("max_pool2d", MaxPool2d, _formula)
max_pool2d_backward = Op("max_pool2d_backward", MaxPool2dBackward, _backward_formula)
