"""Inception modules: filters of several sizes side by side, as they were first and as they became.

C. Szegedy et al., "Going Deeper with Convolutions", 2015, figure 2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastseq.models.parts import check_images, max_pool2d
from fastseq.models.shared import check_sizes


class NaiveInception(nn.Module):
    """1x1, 3x3 and 5x5 filters and a 3x3 max-pool on the same input, concatenated (figure 2a).

    The pool keeps the channels of its input, so the output is wider than the input, whatever the
    filters: stacked, these modules only grow.

    Args:
        in_channels: Channels of the input.
        c1: 1x1 filters.
        c3: 3x3 filters.
        c5: 5x5 filters.
        native: Build the pool from ``torch.nn`` instead of ``fastseq.nn``.

    Shape:
        - Input: ``(B, in_channels, H, W)``.
        - Output: ``(B, c1 + c3 + c5 + in_channels, H, W)``.

    Raises:
        ValueError: If an argument is out of range, or the input has the wrong shape.

    Example:
        >>> import torch
        >>> from fastseq.models import NaiveInception
        >>> NaiveInception(256, c1=128, c3=192, c5=96)(torch.rand(1, 256, 28, 28)).shape
        torch.Size([1, 672, 28, 28])
    """

    def __init__(self, in_channels: int, c1: int, c3: int, c5: int, native: bool = False) -> None:
        super().__init__()
        check_sizes(in_channels=in_channels, c1=c1, c3=c3, c5=c5)
        self.in_channels = in_channels
        self.branch1 = conv_relu(in_channels, c1, 1)
        self.branch3 = conv_relu(in_channels, c3, 3)
        self.branch5 = conv_relu(in_channels, c5, 5)
        self.branch_pool = max_pool2d(native)(3, stride=1, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the maps of all four branches."""
        check_images(maps, self.in_channels)
        branches = (self.branch1, self.branch3, self.branch5, self.branch_pool)
        return torch.cat([branch(maps) for branch in branches], dim=1)


class Inception(nn.Module):
    """The module with 1x1 convolutions that spare work before the large filters (figure 2b).

    A 1x1 convolution mixes channels and nothing else. From 28x28x192 to 32 maps by 5x5 filters is
    120.4 million multiplications directly, and 12.4 million through 16 channels.

    Args:
        in_channels: Channels of the input.
        c1: 1x1 filters.
        r3: Channels to which the input of the 3x3 filters is reduced.
        c3: 3x3 filters.
        r5: Channels to which the input of the 5x5 filters is reduced.
        c5: 5x5 filters.
        pool: 1x1 filters after the max-pool.
        native: Build the pool from ``torch.nn`` instead of ``fastseq.nn``.

    Shape:
        - Input: ``(B, in_channels, H, W)``.
        - Output: ``(B, c1 + c3 + c5 + pool, H, W)``.

    Raises:
        ValueError: If an argument is out of range, or the input has the wrong shape.

    Example:
        >>> import torch
        >>> from fastseq.models import Inception
        >>> Inception(192, 64, 96, 128, 16, 32, 32)(torch.rand(1, 192, 28, 28)).shape
        torch.Size([1, 256, 28, 28])
    """

    def __init__(
        self,
        in_channels: int,
        c1: int,
        r3: int,
        c3: int,
        r5: int,
        c5: int,
        pool: int,
        native: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(in_channels=in_channels, c1=c1, r3=r3, c3=c3, r5=r5, c5=c5, pool=pool)
        self.in_channels = in_channels
        self.out_channels = c1 + c3 + c5 + pool
        self.branch1 = conv_relu(in_channels, c1, 1)
        self.branch3 = nn.Sequential(conv_relu(in_channels, r3, 1), conv_relu(r3, c3, 3))
        self.branch5 = nn.Sequential(conv_relu(in_channels, r5, 1), conv_relu(r5, c5, 5))
        self.branch_pool = nn.Sequential(
            max_pool2d(native)(3, stride=1, padding=1), conv_relu(in_channels, pool, 1)
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Return the maps of all four branches."""
        check_images(maps, self.in_channels)
        branches = (self.branch1, self.branch3, self.branch5, self.branch_pool)
        return torch.cat([branch(maps) for branch in branches], dim=1)


def conv_relu(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    """Return a convolution that keeps the size of its input, and ReLU."""
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
    return nn.Sequential(convolution, nn.ReLU())
