"""``MaxPool2d`` as a module."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fastseq import functional


class MaxPool2d(nn.MaxPool2d):
    """Drop-in for ``torch.nn.MaxPool2d``: arguments, shapes, indices and errors are the same.

    Shapes:
        input (N, C, H, W) or (C, H, W); output (N, C, oH, oW) or (C, oH, oW), with
        ``return_indices`` a pair.

    Raises:
        RuntimeError: as torch.nn does, and in its words.

    Example:
        >>> y = fastseq.MaxPool2d(kernel_size=3, stride=2)(torch.randn(8, 96, 55, 55))
    """

    def forward(self, input: Tensor) -> Any:
        """Return the largest value of each window, and its index if asked for."""
        return functional.max_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
            self.return_indices,
        )
