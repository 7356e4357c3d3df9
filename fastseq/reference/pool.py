"""Max-pooling, window by window."""

from __future__ import annotations

import torch
from torch import Tensor

from fastseq.ops.pool import Pooled, Window


def places(offsets: Tensor, height: int, width: int, window: Window) -> Tensor:
    """The pixel of each maximum, as a number in its (H, W) plane; int64, shaped as ``offsets``.

    torch.nn's indices. A window that holds no pixel (padded and dilated beyond a tiny image) has a
    number that may lie outside the plane.
    """
    rows, columns = (
        torch.arange(offsets.shape[d - 2], device=offsets.device) * window.stride[d]
        - window.padding[d]
        for d in (0, 1)
    )
    place = offsets.long()
    kernel_w = window.kernel_size[1]
    row = rows[:, None] + place.div(kernel_w, rounding_mode="floor") * window.dilation[0]
    return row * width + columns + place.remainder(kernel_w) * window.dilation[1]


def _within(offsets: Tensor, height: int, width: int, window: Window) -> tuple[Tensor, Tensor]:
    """``places`` flattened per plane and put inside it, and where they were inside already."""
    index = places(offsets, height, width, window).flatten(-2)
    return index.clamp(0, height * width - 1), (index >= 0) & (index < height * width)


def max_pool2d(x: Tensor, window: Window, ceil_mode: bool, save: bool = True) -> Pooled:
    """Maxima and their places (see ``fastseq.ops.max_pool2d``)."""
    height, width = x.shape[-2:]
    out_h, out_w = (window.outputs(x.shape[d - 2], d, ceil_mode) for d in (0, 1))
    (k_h, k_w), (s_h, s_w), (p_h, p_w), (d_h, d_w) = window
    rows = torch.arange(out_h, device=x.device)[:, None] * s_h - p_h
    columns = torch.arange(out_w, device=x.device) * s_w - p_w
    shape = [*x.shape[:-2], out_h, out_w]
    best = x.new_full(shape, -torch.inf)
    offsets = torch.full(shape, -1, dtype=torch.int64, device=x.device)
    for place in range(k_h * k_w):  # in row-major order
        row, column = rows + place // k_w * d_h, columns + place % k_w * d_w
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        value = x[..., row.clamp(0, height - 1), column.clamp(0, width - 1)]
        # The first pixel inside counts even where all are -inf; of equal ones the first, and NaN.
        better = inside & ((offsets < 0) | (value > best) | value.isnan())
        best = torch.where(better, value, best)
        offsets = torch.where(better, place, offsets)
    offsets = offsets.clamp_min(0).to(window.offset_dtype)
    return Pooled(best, offsets if save else offsets.new_empty(0))


def max_pool2d_backward(
    grad_y: Tensor, offsets: Tensor, height: int, width: int, channels_last: bool, window: Window
) -> Tensor:
    """Each gradient to the pixel that was the maximum (see ``fastseq.ops.max_pool2d_backward``)."""
    index, inside = _within(offsets, height, width, window)
    plane = grad_y.new_zeros(*grad_y.shape[:-2], height * width)
    grads = torch.where(inside, grad_y.flatten(-2), 0)
    grad_x = plane.scatter_add(-1, index, grads).reshape(*grad_y.shape[:-2], height, width)
    # channels_last by permutation: under vmap there are no memory formats.
    return grad_x.movedim(-3, -1).contiguous().movedim(-1, -3) if channels_last else grad_x


def pick(x: Tensor, offsets: Tensor, window: Window) -> Tensor:
    """The values of x at the places of maxima: the transpose of ``max_pool2d_backward``."""
    height, width = x.shape[-2:]
    index, inside = _within(offsets, height, width, window)
    values = torch.where(inside, x.flatten(-2).gather(-1, index), 0)
    return values.reshape(offsets.shape)
