"""``MaxPool2d`` as a module."""

# TorchScript infers what forward returns, which depends on return_indices.
# mypy: disable-error-code="no-untyped-def, no-any-return"

from __future__ import annotations

from torch import Tensor, nn
from torch._jit_internal import is_scripting

from fastseq import _script, functional


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

    def forward(self, input: Tensor):
        """Return the largest value of each window, and its index if asked for."""
        if is_scripting():
            if self.return_indices:
                return _script.max_pool2d_with_indices(
                    input,
                    self.kernel_size,
                    self.stride,
                    self.padding,
                    self.dilation,
                    self.ceil_mode,
                )
            return _script.max_pool2d(
                input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode
            )
        return functional.max_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
            self.return_indices,
        )
