"""UNet: down to see what is there, up again to say where, with bridges at every size."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from fastseq.models.parts import check_images, double_conv, max_pool2d
from fastseq.models.shared import check_sizes


class UNet(nn.Module):
    """Label every pixel of an image of any size.

    O. Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation", 2015:
    double convolutions and max-pooling down, transposed convolutions up, and at each size the maps
    of the way down beside those of the way up. As is usual today the convolutions are padded, so
    that the logits are as large as the image, and normalized.

    Args:
        in_channels: Channels of the images.
        num_classes: Logits of every pixel.
        width: Channels of the first double convolution; each pooling doubles them.
        depth: How often the size is halved; the paper's is 4.
        native: Build the pools from ``torch.nn`` instead of ``fastseq.nn``. Parameter names and
            initial values are the same, so a ``state_dict`` loads either way.

    Shape:
        - Input: ``(B, in_channels, H, W)``, any H and W.
        - Output: ``(B, num_classes, H, W)``.

    Raises:
        ValueError: If an argument is out of range, or images have the wrong shape.

    Example:
        >>> import torch
        >>> from fastseq.models import UNet
        >>> model = UNet(in_channels=3, num_classes=23, width=8)
        >>> model(torch.rand(2, 3, 45, 61)).shape
        torch.Size([2, 23, 45, 61])
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        width: int = 64,
        depth: int = 4,
        native: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(in_channels=in_channels, num_classes=num_classes, width=width, depth=depth)
        self.in_channels = in_channels
        widths = [width * 2**level for level in range(depth + 1)]
        self.first = double_conv(in_channels, width)
        self.down = nn.ModuleList(
            double_conv(narrow, wide) for narrow, wide in itertools.pairwise(widths)
        )
        # An odd row or column more is pooled on its own, so any size has a half.
        self.pool = max_pool2d(native)(2, ceil_mode=True)
        upward = list(itertools.pairwise(widths[::-1]))
        self.grow = nn.ModuleList(
            nn.ConvTranspose2d(wide, narrow, 2, stride=2) for wide, narrow in upward
        )
        self.up = nn.ModuleList(double_conv(2 * narrow, narrow) for _, narrow in upward)
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of every pixel of a batch of images."""
        check_images(images, self.in_channels)
        maps = self.first(images)  # (B, width, H, W)
        bridges = []
        for down in self.down:
            bridges.append(maps)
            maps = down(self.pool(maps))  # (B, 2 C, ceil(H / 2), ceil(W / 2))
        for grow, up in zip(self.grow, self.up, strict=True):
            bridge = bridges.pop()  # (B, C, H, W)
            height, width = bridge.shape[2:]
            grown = grow(maps)[:, :, :height, :width]  # (B, C, H or H + 1, ...) -> (B, C, H, W)
            maps = up(torch.cat([bridge, grown], dim=1))  # (B, 2 C, H, W) -> (B, C, H, W)
        logits: Tensor = self.head(maps)  # (B, num_classes, H, W)
        return logits
