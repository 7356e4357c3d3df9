"""``ReLULRNMaxPool2d``: AlexNet's layer end as one module."""

from __future__ import annotations

from torch import Tensor, nn
from torch._jit_internal import is_scripting

from fastseq import _script, functional
from fastseq.functional.pool import Size


class ReLULRNMaxPool2d(nn.Module):
    """``nn.ReLU``, ``LocalResponseNorm`` and ``MaxPool2d`` in a row, in one pass over memory.

    Args:
        size: of the normalization's window, in channels.
        alpha: the scale, divided by ``size``.
        beta: the exponent.
        k: the constant.
        kernel_size: of the pooling window; like all its sizes a number or (height, width).
        stride: from window to window; ``kernel_size`` if None.
        padding: implicit -inf on both sides.
        dilation: from pixel to pixel in a window.
        ceil_mode: a last, incomplete window counts.

    Shapes:
        input (N, C, H, W); output (N, C, oH, oW).

    Raises:
        ValueError, RuntimeError: as the module that the mistake belongs to does.

    Example:
        >>> y = fastseq.ReLULRNMaxPool2d(5, alpha=5e-4, k=2.0)(torch.randn(8, 96, 55, 55))
    """

    __constants__ = [  # noqa: RUF012
        "size",
        "alpha",
        "beta",
        "k",
        "kernel_size",
        "stride",
        "padding",
        "dilation",
        "ceil_mode",
    ]

    def __init__(
        self,
        size: int = 5,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 1.0,
        kernel_size: Size = 3,
        stride: Size | None = 2,
        padding: Size = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Tensor:
        """Return the pooled, normalized positive part."""
        if is_scripting():
            return _script.relu_lrn_max_pool2d(
                input,
                self.size,
                self.alpha,
                self.beta,
                self.k,
                self.kernel_size,
                self.stride,
                self.padding,
                self.dilation,
                self.ceil_mode,
            )
        return functional.relu_lrn_max_pool2d(
            input,
            self.size,
            self.alpha,
            self.beta,
            self.k,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
        )

    def extra_repr(self) -> str:
        """Show every option."""
        return (
            f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}, "
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )
