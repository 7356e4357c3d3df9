"""ReLU, LRN across channels and max-pooling of ``torch.ops.fastseq``, in one pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastseq.ops._common import channels_last, fake, fold, new_images, unfold
from fastseq.ops.pool import Pooled, Window, pooled_like, unfold_pooled


def relu_lrn_max_pool2d(
    x: Tensor,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    window: Window,
    ceil_mode: bool,
    save: bool,
) -> Pooled:
    """Pool the normalized positive part of x; see ``fastseq.functional.relu_lrn_max_pool2d``.

    Args:
        x: (N, C, H, W).
        size: of the normalization's window, in channels.
        alpha: the scale, divided by ``size``.
        beta: the exponent.
        k: the constant.
        window: of the pooling, with ``ceil_mode``.
        ceil_mode: round the output's size up.
        save: keep what backward needs.

    Raises:
        RuntimeError: the shapes do not fit.
    """
    return Pooled(
        *torch.ops.fastseq.relu_lrn_max_pool2d(x, size, alpha, beta, k, *window, ceil_mode, save)
    )


def relu_lrn_max_pool2d_backward(
    grad_y: Tensor,
    offsets: Tensor,
    x: Tensor,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    window: Window,
) -> Tensor:
    """The gradient of x."""
    grad_x: Tensor = torch.ops.fastseq.relu_lrn_max_pool2d_backward(
        grad_y, offsets, x, size, alpha, beta, k, *window
    )
    return grad_x


@fake("relu_lrn_max_pool2d")
def _fake(
    x: Tensor,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    save: bool,
) -> tuple[Tensor, Tensor]:
    return pooled_like(x, Window(kernel_size, stride, padding, dilation), ceil_mode, save)


@fake("relu_lrn_max_pool2d_backward")
def _backward_fake(grad_y: Tensor, offsets: Tensor, x: Tensor, *parameters: Any) -> Tensor:
    return new_images(x, x.shape, x.dtype, channels_last(x))


@torch.library.register_vmap("fastseq::relu_lrn_max_pool2d")
def _vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, *parameters: Any) -> Any:
    folded = fold(x, in_dims[0], info.batch_size)
    y, offsets = torch.ops.fastseq.relu_lrn_max_pool2d(folded, *parameters)
    return unfold_pooled(y, offsets, info.batch_size)


@torch.library.register_vmap("fastseq::relu_lrn_max_pool2d_backward")
def _backward_vmap(
    info: Any,
    in_dims: tuple[Any, ...],
    grad_y: Tensor,
    offsets: Tensor,
    x: Tensor,
    *parameters: Any,
) -> tuple[Tensor, int]:
    size = info.batch_size
    folded = [fold(t, d, size) for t, d in zip((grad_y, offsets, x), in_dims, strict=False)]
    grad_x = torch.ops.fastseq.relu_lrn_max_pool2d_backward(*folded, *parameters)
    return unfold(grad_x, size), 0
