"""Max-pooling of ``torch.ops.fastseq``.

A maximum is remembered by its place in the window, ``i_h * kernel_w + i_w``: one byte where
torch.nn keeps an int64 index.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastseq.ops._common import channels_last, fake, fold, new_images, unfold

Pair = tuple[int, int]


class Window(NamedTuple):
    """A pooling window; every pair is (height, width)."""

    kernel_size: Pair
    stride: Pair
    padding: Pair
    dilation: Pair

    @property
    def offset_dtype(self) -> torch.dtype:
        """What places in the window are stored in."""
        return torch.uint8 if self.kernel_size[0] * self.kernel_size[1] <= 256 else torch.int32

    def outputs(self, pixels: int, side: int, ceil_mode: bool) -> int:
        """Outputs along a side (0 height, 1 width) of so many pixels; at::pooling_output_shape."""
        kernel, stride, padding, dilation = (pair[side] for pair in self)
        room = pixels + 2 * padding - dilation * (kernel - 1) - 1
        out = (room + (stride - 1 if ceil_mode else 0)) // stride + 1
        # The last window must start inside the image or its left padding.
        if ceil_mode and (out - 1) * stride >= pixels + padding:
            out = out - 1
        return out


class Pooled(NamedTuple):
    """What pooling returns."""

    y: Tensor  # (N, C, oH, oW) or (C, oH, oW)
    offsets: Tensor  # places of the maxima, shaped as y; empty unless saved


def max_pool2d(x: Tensor, window: Window, ceil_mode: bool, save: bool) -> Pooled:
    """Maxima over windows; see ``fastseq.functional.max_pool2d``.

    Args:
        x: (N, C, H, W) or (C, H, W).
        window: kernel_size, stride, padding and dilation.
        ceil_mode: round the output's size up.
        save: keep what backward needs.

    Raises:
        RuntimeError: the shapes do not fit.
    """
    return Pooled(*torch.ops.fastseq.max_pool2d(x, *window, ceil_mode, save))


def max_pool2d_backward(
    grad_y: Tensor, offsets: Tensor, height: int, width: int, channels_last: bool, window: Window
) -> Tensor:
    """The gradient of x, of so many pixels, in that memory format."""
    grad_x: Tensor = torch.ops.fastseq.max_pool2d_backward(
        grad_y, offsets, height, width, channels_last, *window
    )
    return grad_x


def pooled_like(x: Tensor, window: Window, ceil_mode: bool, save: bool) -> tuple[Tensor, Tensor]:
    """Empty results of a pooling op."""
    last = channels_last(x)
    shape = [*x.shape[:-2], *(window.outputs(x.shape[d - 2], d, ceil_mode) for d in (0, 1))]
    offsets = new_images(x, shape if save else [0], window.offset_dtype, last and save)
    return new_images(x, shape, x.dtype, last), offsets


@fake("max_pool2d")
def _fake(
    x: Tensor,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    save: bool,
) -> tuple[Tensor, Tensor]:
    return pooled_like(x, Window(kernel_size, stride, padding, dilation), ceil_mode, save)


@fake("max_pool2d_backward")
def _backward_fake(
    grad_y: Tensor, offsets: Tensor, height: int, width: int, last: bool, *window: Any
) -> Tensor:
    return new_images(grad_y, [*grad_y.shape[:-2], height, width], grad_y.dtype, last)


def unfold_pooled(y: Tensor, offsets: Tensor, size: int) -> tuple[tuple[Tensor, ...], Any]:
    """Results of a folded call with the vmapped dimension, and where it is."""
    if offsets.dim() == 1:  # not saved
        return (unfold(y, size), offsets), (0, None)
    return (unfold(y, size), unfold(offsets, size)), (0, 0)


@torch.library.register_vmap("fastseq::max_pool2d")
def _vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, *parameters: Any) -> Any:
    folded = fold(x, in_dims[0], info.batch_size)  # (B * N, C, H, W) or (B * C, H, W)
    y, offsets = torch.ops.fastseq.max_pool2d(folded, *parameters)
    return unfold_pooled(y, offsets, info.batch_size)


@torch.library.register_vmap("fastseq::max_pool2d_backward")
def _backward_vmap(
    info: Any, in_dims: tuple[Any, ...], grad_y: Tensor, offsets: Tensor, *parameters: Any
) -> tuple[Tensor, int]:
    size = info.batch_size
    grad_x = torch.ops.fastseq.max_pool2d_backward(
        fold(grad_y, in_dims[0], size), fold(offsets, in_dims[1], size), *parameters
    )
    return unfold(grad_x, size), 0
