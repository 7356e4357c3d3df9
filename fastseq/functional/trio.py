"""ReLU, LRN and max-pooling in one pass, as a function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from fastseq import autograd
from fastseq.functional.lrn import WIDEST, Number, fixed, local_response_norm, whole, widened
from fastseq.functional.pool import Size, max_pool2d, poolable, window_of


def relu_lrn_max_pool2d(
    x: Tensor,
    size: int = 5,
    alpha: Number = 1e-4,
    beta: Number = 0.75,
    k: Number = 1.0,
    kernel_size: Size = 3,
    stride: Size | None = 2,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """``max_pool2d(local_response_norm(relu(x)))``: AlexNet's layer end, in one pass.

    x is read once and the pooled result written once; the numbers are those of fastseq's three ops
    in a row, bit by bit. Backward reads x, the gradient and a byte for each output, recomputes the
    rest, and writes once.

    Args:
        x: (N, C, H, W).
        size: of the normalization's window, in channels.
        alpha: the scale, divided by ``size``.
        beta: the exponent.
        k: the constant. Of the three numbers a tensor has a gradient; the ops run one by one then.
        kernel_size: of the pooling window; like all its sizes a number or (height, width).
        stride: from window to window; ``kernel_size`` if None.
        padding: implicit -inf on both sides, at most half the window.
        dilation: from pixel to pixel in a window.
        ceil_mode: a last, incomplete window counts.

    Returns:
        (N, C, oH, oW), in x's memory format; under autocast the dtype that torch.nn returns.

    Raises:
        ValueError, RuntimeError: as the op that the mistake belongs to does.
    """
    if has_torch_function_unary(x):
        options: tuple[Any, ...] = (kernel_size, stride, padding, dilation, ceil_mode)
        made: Tensor = handle_torch_function(
            relu_lrn_max_pool2d, (x,), x, size, alpha, beta, k, *options
        )
        return made
    window = window_of(kernel_size, stride, padding, dilation)
    fits = (
        window is not None
        and fixed(alpha, beta, k)
        and whole(size)
        and 1 <= size <= WIDEST
        and -WIDEST < beta < WIDEST
        and poolable(x, window, ceil_mode)
        and x.dim() == 4
        and (torch._C._get_tracing_state() is not None or x.numel() > 0)
    )
    if not fits or window is None:
        y = local_response_norm(torch.relu(x), size, alpha, beta, k)
        pooled = max_pool2d(y, kernel_size, stride, padding, dilation, ceil_mode)
        assert isinstance(pooled, Tensor)
        return pooled
    out: tuple[Tensor, Tensor] = autograd.relu_lrn_max_pool2d(
        widened(x), int(size), float(alpha), float(beta), float(k), *window, ceil_mode, False
    )
    return out[0]
