"""Local response normalization of ``torch.ops.fastseq``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastseq.ops._common import channels_last, fake, fold, new_images, unfold


def local_response_norm(
    x: Tensor, size: int, alpha: float, beta: float, k: float, within_channel: bool
) -> Tensor:
    """``x (k + alpha/n sum of x^2)^-beta``; see ``fastseq.functional.local_response_norm``.

    Args:
        x: (N, C, ...); (N, C, H, W) if ``within_channel``.
        size: of the window, in channels, or in pixels along both sides.
        alpha: divided by the number of elements in the window.
        beta: the exponent.
        k: the constant.
        within_channel: the window is ``size`` x ``size`` pixels of one channel.

    Returns:
        The same shape and dtype, dense in x's memory format.

    Raises:
        RuntimeError: the shape or dtype does not fit.
    """
    y: Tensor = torch.ops.fastseq.local_response_norm(x, size, alpha, beta, k, within_channel)
    return y


def local_response_norm_backward(
    grad_y: Tensor, x: Tensor, size: int, alpha: float, beta: float, k: float, within_channel: bool
) -> Tensor:
    """The gradient of x; arguments as for the forward op."""
    grad_x: Tensor = torch.ops.fastseq.local_response_norm_backward(
        grad_y, x, size, alpha, beta, k, within_channel
    )
    return grad_x


@fake("local_response_norm")
def _fake(x: Tensor, *parameters: Any) -> Tensor:
    return new_images(x, x.shape, x.dtype, channels_last(x))


@fake("local_response_norm_backward")
def _backward_fake(grad_y: Tensor, x: Tensor, *parameters: Any) -> Tensor:
    return new_images(x, x.shape, x.dtype, channels_last(x))


@torch.library.register_vmap("fastseq::local_response_norm")
def _vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, *parameters: Any) -> tuple[Tensor, int]:
    y = torch.ops.fastseq.local_response_norm(fold(x, in_dims[0], info.batch_size), *parameters)
    return unfold(y, info.batch_size), 0


@torch.library.register_vmap("fastseq::local_response_norm_backward")
def _backward_vmap(
    info: Any, in_dims: tuple[Any, ...], grad_y: Tensor, x: Tensor, *parameters: Any
) -> tuple[Tensor, int]:
    size = info.batch_size
    grad_x = torch.ops.fastseq.local_response_norm_backward(
        fold(grad_y, in_dims[0], size), fold(x, in_dims[1], size), *parameters
    )
    return unfold(grad_x, size), 0
