"""ReLU, LRN and max-pooling, one after the other."""

from __future__ import annotations

import torch
from torch import Tensor

from fastseq.ops.pool import Pooled, Window
from fastseq.reference.lrn import local_response_norm, local_response_norm_backward
from fastseq.reference.pool import max_pool2d, max_pool2d_backward


def relu_lrn_max_pool2d(
    x: Tensor,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    window: Window,
    ceil_mode: bool,
    save: bool = True,
) -> Pooled:
    """``max_pool2d(local_response_norm(relu(x)))``."""
    y = local_response_norm(x.relu(), size, alpha, beta, k, False)
    return max_pool2d(y, window, ceil_mode, save)


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
    """The three gradients in reverse order; which pixel was a maximum is known from forward."""
    height, width = x.shape[-2:]
    grad = max_pool2d_backward(grad_y, offsets, height, width, False, window)
    grad = local_response_norm_backward(grad, x.relu(), size, alpha, beta, k, False)
    return torch.where(x <= 0, 0, grad)  # a NaN passes its gradient on, as torch's ReLU does
