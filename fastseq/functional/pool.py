"""Max-pooling as a function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as native
from torch.overrides import handle_torch_function, has_torch_function_unary

from fastseq import autograd
from fastseq.functional.lrn import DTYPES, WIDEST, whole
from fastseq.ops.pool import Pair, Window
from fastseq.reference.pool import places

Size = int | Sequence[int]


def _pair(value: Any) -> Pair | None:
    """(height, width); None of what torch.nn does not take: numbers are ints, numpy's too."""
    if type(value) is int:
        return value, value
    values = value if isinstance(value, (tuple, list)) else (value,)
    if len(values) not in (1, 2) or not all(whole(v) for v in values):
        return None
    return int(values[0]), int(values[-1])


def window_of(
    kernel_size: Size, stride: Size | None, padding: Size, dilation: Size
) -> Window | None:
    """The window in pairs; None of what torch.nn would not take, or the kernels had better not."""
    if stride is None or (isinstance(stride, (tuple, list)) and len(stride) == 0):
        stride = kernel_size
    pairs = [_pair(value) for value in (kernel_size, stride, padding, dilation)]
    if any(pair is None for pair in pairs):
        return None
    window = Window(*(pair for pair in pairs if pair is not None))
    for kernel, step, pad, gap in zip(*window, strict=True):
        if kernel < 1 or step < 1 or gap < 1 or not 0 <= pad <= kernel // 2:
            return None
        if kernel > WIDEST or step > WIDEST or gap > WIDEST:
            return None
    return window


def poolable(input: Tensor, window: Window | None, ceil_mode: bool) -> bool:
    """Whether the kernels take this input and window."""
    if window is None or type(ceil_mode) is not bool or not isinstance(input, Tensor):
        return False
    if input.dim() not in (3, 4) or input.dtype not in DTYPES:
        return False
    if torch._C._get_tracing_state() is not None:  # sizes are tensors there; the op checks
        return True
    if any(size == 0 for size in input.shape[-3:]):
        return False
    return all(window.outputs(input.shape[side - 2], side, ceil_mode) > 0 for side in (0, 1))


def max_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Largest value in each window: ``torch.nn.functional.max_pool2d``, in values and gradients.

    Of equal values the first in row-major order counts, NaN counts as largest, and padding never
    does. Backward needs a byte for each output (torch.nn: an int64 index), writes every gradient
    once and is deterministic.

    Args:
        input: (N, C, H, W) or (C, H, W).
        kernel_size: of the window; like all sizes a number or (height, width).
        stride: from window to window; ``kernel_size`` by default. Smaller: overlapping pooling.
        padding: implicit -inf on both sides, at most half the window.
        dilation: from pixel to pixel in a window.
        ceil_mode: a last, incomplete window counts.
        return_indices: also return the pixel of each maximum, int64, as its number in the plane.

    Returns:
        (N, C, oH, oW) or (C, oH, oW), in input's memory format; with ``return_indices`` a pair.

    Raises:
        RuntimeError: as torch.nn does, and in its words.
    """
    if has_torch_function_unary(input):
        options = (kernel_size, stride, padding, dilation, ceil_mode, return_indices)
        made: Any = handle_torch_function(max_pool2d, (input,), input, *options)
        return made  # type: ignore[no-any-return]
    window = window_of(kernel_size, stride, padding, dilation)
    if window is None or not poolable(input, window, ceil_mode):
        # Not ours (integers), or a mistake: torch.nn computes it, or says what is wrong.
        call: Any = native.max_pool2d_with_indices if return_indices else native.max_pool2d
        stride = kernel_size if stride is None else stride
        result: Tensor | tuple[Tensor, Tensor] = call(
            input, kernel_size, stride, padding, dilation, ceil_mode
        )
        return result
    y: Tensor
    y, offsets = autograd.max_pool2d(input, *window, ceil_mode, bool(return_indices))
    if not return_indices:
        return y
    return y, places(offsets, input.shape[-2], input.shape[-1], window)
