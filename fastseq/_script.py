"""The modules in ``torch.jit.script``: images compile, recurrences say what does instead.

TorchScript reads types where they are written, so that this file has no annotations as strings, and
names none of Python's own types. A gradient is torch.nn's to compute here.
"""

from typing import NoReturn, Tuple  # noqa: UP035

import torch
from torch import Tensor, nn
from torch._jit_internal import BroadcastingList2  # type: ignore[attr-defined]
from torch.nn import functional as native


def _fits(x: Tensor) -> bool:
    """Whether the kernels take it, and nobody wants its gradient."""
    wide = x.dtype == torch.float32 or x.dtype == torch.float64
    narrow = x.dtype == torch.bfloat16 or x.dtype == torch.float16
    return (wide or narrow) and x.numel() > 0 and not x.requires_grad


def local_response_norm(
    x: Tensor, size: int, alpha: float, beta: float, k: float, within_channel: bool
) -> Tensor:
    """``functional.local_response_norm`` as TorchScript."""
    if size > 0 and _fits(x) and x.dim() > 2 and (x.dim() == 4 or not within_channel):
        y: Tensor = torch.ops.fastseq.local_response_norm(x, size, alpha, beta, k, within_channel)
        return y
    if within_channel:
        margins = [size // 2, (size - 1) // 2, size // 2, (size - 1) // 2]
        mean = native.avg_pool2d(native.pad(x * x, margins), size, 1)
        return x / (k + alpha * mean).pow(beta)
    return native.local_response_norm(x, size, alpha, beta, k)


def max_pool2d(
    x: Tensor,
    kernel_size: BroadcastingList2[int],
    stride: BroadcastingList2[int],
    padding: BroadcastingList2[int],
    dilation: BroadcastingList2[int],
    ceil_mode: bool,
) -> Tensor:
    """``functional.max_pool2d`` as TorchScript, without indices."""
    window = len(kernel_size) == 2 and len(stride) == 2 and len(padding) == 2
    if window and len(dilation) == 2 and _fits(x) and (x.dim() == 3 or x.dim() == 4):
        y: Tensor = torch.ops.fastseq.max_pool2d(
            x, kernel_size, stride, padding, dilation, ceil_mode, False
        )[0]
        return y
    return native.max_pool2d(x, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool2d_with_indices(
    x: Tensor,
    kernel_size: BroadcastingList2[int],
    stride: BroadcastingList2[int],
    padding: BroadcastingList2[int],
    dilation: BroadcastingList2[int],
    ceil_mode: bool,
) -> Tuple[Tensor, Tensor]:  # noqa: UP006
    """torch.nn's: the kernels count places in a window."""
    return native.max_pool2d_with_indices(x, kernel_size, stride, padding, dilation, ceil_mode)


def relu_lrn_max_pool2d(
    x: Tensor,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    kernel_size: BroadcastingList2[int],
    stride: BroadcastingList2[int],
    padding: BroadcastingList2[int],
    dilation: BroadcastingList2[int],
    ceil_mode: bool,
) -> Tensor:
    """``functional.relu_lrn_max_pool2d`` as TorchScript."""
    window = len(kernel_size) == 2 and len(stride) == 2 and len(padding) == 2
    if window and len(dilation) == 2 and size > 0 and _fits(x) and x.dim() == 4:
        out: Tensor = torch.ops.fastseq.relu_lrn_max_pool2d(
            x, size, alpha, beta, k, kernel_size, stride, padding, dilation, ceil_mode, False
        )[0]
        return out
    y = local_response_norm(x.relu(), size, alpha, beta, k, False)
    return max_pool2d(y, kernel_size, stride, padding, dilation, ceil_mode)


def refuse(*kinds: type[nn.Module]) -> None:
    """Have torch.jit.script say what it cannot do with these classes, and what can be done."""

    def prepare(module: nn.Module) -> NoReturn:
        raise RuntimeError(
            f"torch.jit.script cannot compile fastseq's {type(module).__name__}. Use "
            "torch.jit.trace, torch.export or AOTInductor (docs/deploy.md), or script torch.nn's "
            "module: fastseq.swap(model, back=True)."
        )

    for kind in kinds:
        kind.__prepare_scriptable__ = prepare  # type: ignore[attr-defined]
