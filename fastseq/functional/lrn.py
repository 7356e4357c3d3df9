"""Local response normalization as a function."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as native
from torch.overrides import handle_torch_function, has_torch_function_unary

from fastseq import autograd, reference

_WIDE = (torch.float32, torch.float64)
DTYPES = (*_WIDE, torch.bfloat16, torch.float16)
# Beyond this windows are nobody's, and the kernels' memory grows with them; powers overflow at 1.
WIDEST = 2**15
Number = float | Tensor  # a tensor may want a gradient


def whole(value: Any) -> bool:
    """Whether torch takes a value as an int."""
    if isinstance(value, int):
        return not isinstance(value, bool)
    return isinstance(value, Integral)  # asked last: it takes its time


def fixed(*numbers: Any) -> bool:
    """Whether all are numbers: no tensors, which learn, and no mistakes."""
    for number in numbers:
        if type(number) is not float and not isinstance(number, Real):
            return False
    return True


def widened(input: Tensor) -> Tensor:
    """The input in the dtype that autocast has torch.nn's normalization return.

    It does not touch LRN itself but one of its steps: on CUDA ``pow``, on the CPU ``avg_pool3d``,
    which takes part from four dimensions on. Both turn 16-bit types to float32 and nothing else.
    """
    if input.dtype in _WIDE or not input.is_floating_point():
        return input
    kind = input.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return input
    return input.float() if kind != "cpu" or input.dim() > 3 else input


def local_response_norm(
    input: Tensor,
    size: int,
    alpha: Number = 1e-4,
    beta: Number = 0.75,
    k: Number = 1.0,
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
        k: the constant. Each of the three may be a tensor that broadcasts with the input, and has
            a gradient then; PyTorch's own ops compute that, as they do in torch.nn.
        within_channel: take the window over n x n pixels of the same channel of an (N, C, H, W)
            input instead, zeros outside: Caffe's WITHIN_CHANNEL, which torch.nn does not have.

    Returns:
        The same shape, dtype and memory format; under autocast the dtype that torch.nn returns.

    Raises:
        ValueError: fewer than three dimensions, or not four with ``within_channel``.
        RuntimeError: ``size`` below 1, or within a channel above 32768.
        TypeError: ``size`` is no int, or a number is none.
    """
    if has_torch_function_unary(input):
        made: Tensor = handle_torch_function(
            local_response_norm, (input,), input, size, alpha, beta, k, within_channel
        )
        return made
    if within_channel:
        _check_within_channel(input, size, alpha, beta, k)
    plain = type(size) is int and type(alpha) is type(beta) is type(k) is float  # almost always
    learnt = not plain and any(isinstance(number, Tensor) for number in (alpha, beta, k))
    if learnt and within_channel:
        return _within_channel(input, size, alpha, beta, k)
    fits = plain or (whole(size) and fixed(alpha, beta, k))
    fits = fits and 1 <= size <= WIDEST and input.dtype in DTYPES
    fits = fits and -WIDEST < beta < WIDEST  # type: ignore[assignment]  # no tensor, if it fits
    if learnt or input.dim() < 3 or not (fits or within_channel):
        # Not ours, or a mistake: torch.nn computes it, or says what is wrong in its own words.
        return native.local_response_norm(input, size, alpha, beta, k)  # type: ignore[arg-type]
    if torch._C._get_tracing_state() is None and input.numel() == 0:
        return input
    x = input if input.dtype in _WIDE else widened(input)
    y: Tensor
    if plain:
        y = autograd.local_response_norm(x, size, alpha, beta, k, within_channel)
    else:
        y = autograd.local_response_norm(
            x, int(size), float(alpha), float(beta), float(k), within_channel
        )
    return y


def _check_within_channel(input: Tensor, size: Any, *numbers: Any) -> None:
    """Say what is wrong with the arguments of what torch.nn does not have."""
    if input.dim() != 4:
        raise ValueError(
            "local_response_norm with within_channel=True takes an input of shape (N, C, H, W), "
            f"and this one has {input.dim()} dimensions: {tuple(input.shape)}."
        )
    if not whole(size):
        raise TypeError(f"size should be an int, got {size!r}")
    for number in numbers:
        if not isinstance(number, Tensor) and not fixed(number):
            raise TypeError(f"alpha, beta and k should be numbers, got {number!r}")


def _within_channel(input: Tensor, size: int, alpha: Number, beta: Number, k: Number) -> Tensor:
    """The formula, where a number of it is a tensor; in float32 for the 16-bit types."""
    narrow = input.dtype in DTYPES and input.dtype not in _WIDE
    x = input.float() if narrow else input
    y = reference.local_response_norm(x, size, alpha, beta, k, True)
    return y.to(widened(input).dtype) if narrow else y
