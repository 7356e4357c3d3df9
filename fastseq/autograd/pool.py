"""Max-pooling as a ``torch.autograd.Function``, differentiable any number of times.

Forward remembers where each maximum was. Given that, pooling is linear: backward sends gradients to
those pixels, and its own backward picks values from them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastseq.autograd._positional import positional
from fastseq.ops._common import channels_last
from fastseq.ops.pool import Window
from fastseq.reference.pool import pick


class MaxPool2d(torch.autograd.Function):
    """``ops.max_pool2d`` with gradients; see there for the arguments.

    Returns:
        y, and offsets, which have no gradient.
    """

    generate_vmap_rule = True

    @staticmethod
    @positional
    def forward(  # type: ignore[override]
        x: Tensor, window: Window, ceil_mode: bool
    ) -> tuple[Tensor, Tensor]:
        """Pool, and keep the places of the maxima."""
        y, offsets = torch.ops.fastseq.max_pool2d(x, *window, ceil_mode, True)
        return y, offsets

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Save a byte for each output."""
        x, ctx.window, _ = inputs
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
        # Without grad mode nobody can ask for a second derivative: the op alone, at half the cost.
        if torch.is_grad_enabled():
            return MaxPool2dBackward.apply(grad_y, offsets, *ctx.image, ctx.window), None, None
        grad_x = torch.ops.fastseq.max_pool2d_backward(grad_y, offsets, *ctx.image, *ctx.window)
        return grad_x, None, None


class MaxPool2dBackward(torch.autograd.Function):
    """``ops.max_pool2d_backward``, linear in grad_y."""

    generate_vmap_rule = True

    @staticmethod
    @positional
    def forward(  # type: ignore[override]
        grad_y: Tensor, offsets: Tensor, height: int, width: int, last: bool, window: Window
    ) -> Tensor:
        """Gather the gradients of each pixel."""
        grad_x: Tensor = torch.ops.fastseq.max_pool2d_backward(
            grad_y, offsets, height, width, last, *window
        )
        return grad_x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Save the places of the maxima."""
        _, offsets, *ctx.image, ctx.window = inputs
        ctx.save_for_backward(offsets)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Pick the values at the maxima."""
        (offsets,) = ctx.saved_tensors
        picked = Pick.apply(grad, offsets, *ctx.image, ctx.window)
        return picked, None, None, None, None, None


class Pick(torch.autograd.Function):
    """The transpose of ``MaxPool2dBackward``: the values of an image at the places of maxima."""

    generate_vmap_rule = True

    @staticmethod
    @positional
    def forward(  # type: ignore[override]
        x: Tensor, offsets: Tensor, height: int, width: int, last: bool, window: Window
    ) -> Tensor:
        """Pick."""
        return pick(x, offsets, window)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Save the places of the maxima."""
        _, offsets, *ctx.image, ctx.window = inputs
        ctx.save_for_backward(offsets)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Send gradients back to the maxima."""
        (offsets,) = ctx.saved_tensors
        sent = MaxPool2dBackward.apply(grad, offsets, *ctx.image, ctx.window)
        return sent, None, None, None, None, None
