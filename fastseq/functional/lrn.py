"""Local response normalization as a function."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as native

from fastseq import autograd

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def local_response_norm(
    input: Tensor,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    within_channel: bool = False,
) -> Tensor:
    """Divide each value by a power of the squares around it (Krizhevsky et al., 2012, section 3.3).

    ``b_i = a_i / (k + alpha/n sum_j a_j^2)^beta``, j over the n = ``size`` channels from
    ``i - n//2`` to ``i + (n-1)//2``, as far as they exist: torch.nn's function, in one pass.
    Sums and powers are in float32 for the 16-bit types, where torch.nn rounds each of its steps.

    alpha in other places: PyTorch, Caffe and ONNX divide it by n, as here. The paper's and the
    slides' formula does not: their alpha = 1e-4 with n = 5 is ``alpha=5e-4`` here.

    Args:
        input: (N, C, ...) with at least three dimensions.
        size: n, the window's size in channels; within a channel, in pixels along both sides.
        alpha: the scale, divided by n (within a channel by n^2).
        beta: the exponent; 0.75, 0.5 and 1 are fastest.
        k: the constant.
        within_channel: take the window over n x n pixels of the same channel of an (N, C, H, W)
            input instead, zeros outside: Caffe's WITHIN_CHANNEL, which torch.nn does not have.

    Returns:
        The same shape, dtype and memory format.

    Raises:
        ValueError: fewer than three dimensions, or not four with ``within_channel``.
        RuntimeError: ``size`` below 1.
    """
    if within_channel and input.dim() != 4:
        raise ValueError(
            "local_response_norm with within_channel=True takes an input of shape (N, C, H, W), "
            f"and this one has {input.dim()} dimensions: {tuple(input.shape)}."
        )
    if input.dim() < 3 or (not within_channel and (size < 1 or input.dtype not in DTYPES)):
        # Not ours, or a mistake: torch.nn computes it, or says what is wrong in its own words.
        return native.local_response_norm(input, size, alpha, beta, k)
    if input.numel() == 0:
        return input
    y: Tensor = autograd.local_response_norm(
        input, size, float(alpha), float(beta), float(k), within_channel
    )
    return y
