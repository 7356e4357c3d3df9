"""Local response normalization, formula by formula."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import pad

_Number = float | Tensor


def _slide(x: Tensor, dim: int, before: int, after: int) -> Tensor:
    """Sums over the window [i - before, i + after] along a dimension; zeros outside."""
    margins = [0, 0] * (-dim - 1) + [before, after]
    padded = pad(x, margins)
    parts = [padded.narrow(dim, i, x.shape[dim]) for i in range(before + after + 1)]
    return sum(parts[1:], start=parts[0])


def _window_sum(x: Tensor, size: int, within_channel: bool, mirrored: bool = False) -> Tensor:
    before, after = size // 2, (size - 1) // 2  # torch's window: longer to the left for an even n
    if mirrored:
        before, after = after, before
    if within_channel:
        return _slide(_slide(x, -1, before, after), -2, before, after)
    return _slide(x, 1 - x.dim(), before, after)


def _normalizer(
    x: Tensor, size: int, alpha: _Number, k: _Number, within_channel: bool
) -> tuple[Tensor, _Number]:
    """``s = k + alpha/n sum of x^2``, and alpha/n."""
    scale = alpha / (size * size if within_channel else size)
    return k + scale * _window_sum(x * x, size, within_channel), scale


def local_response_norm(
    x: Tensor, size: int, alpha: _Number, beta: _Number, k: _Number, within_channel: bool
) -> Tensor:
    """``y = x s^-beta`` (see ``fastseq.ops.local_response_norm``)."""
    s, _ = _normalizer(x, size, alpha, k, within_channel)
    return x * s**-beta


def local_response_norm_backward(
    grad_y: Tensor, x: Tensor, size: int, alpha: float, beta: float, k: float, within_channel: bool
) -> Tensor:
    """``dx = g s^-beta - 2 alpha/n beta x sum of g x s^(-beta-1)`` over the mirrored window."""
    s, scale = _normalizer(x, size, alpha, k, within_channel)
    terms = grad_y * x * s ** (-beta - 1)
    return grad_y * s**-beta - 2 * scale * beta * x * _window_sum(
        terms, size, within_channel, mirrored=True
    )
