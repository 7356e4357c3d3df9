"""ConvUpsampleNet: plain convolutions and pools down, convolutions and interpolation up."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastseq.models.parts import check_images, conv_norm_relu, max_pool2d
from fastseq.models.shared import check_dropout, check_sizes


class ConvUpsampleNet(nn.Module):
    """Label every pixel with four blocks down and four blocks up.

    The third of the segmentation challenge in UCLA ACM's advanced track, lecture 4 (77.31 %): down
    by convolution, batch norm, ReLU, ``Dropout2d`` and 2x2 max-pooling, in ``width``, 2, 4 and 8
    times ``width`` channels; up by convolution, batch norm, ReLU and bilinear interpolation to
    twice the size. What a block down returned stands beside the input of the block up of that size
    and doubles its width.

    Args:
        num_classes: Logits of every pixel.
        in_channels: Channels of the images.
        width: Channels of the first block.
        dropout: Probability of zeroing a whole map in training, in ``[0, 1)``.
        native: Build the pools from ``torch.nn`` instead of ``fastseq.nn``. Parameter names and
            initial values are the same, so a ``state_dict`` loads either way.

    Shape:
        - Input: ``(B, in_channels, H, W)``, any H and W; the course's are 240 x 240.
        - Output: ``(B, num_classes, H, W)``.

    Raises:
        ValueError: If an argument is out of range, or images have the wrong shape.

    Example:
        >>> import torch
        >>> from fastseq.models import ConvUpsampleNet
        >>> model = ConvUpsampleNet(num_classes=23, width=8)
        >>> model(torch.rand(2, 3, 60, 80)).shape
        torch.Size([2, 23, 60, 80])
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        width: int = 64,
        dropout: float = 0.1,
        native: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(num_classes=num_classes, in_channels=in_channels, width=width)
        check_dropout(dropout)
        self.in_channels = in_channels
        widths = [in_channels, width, 2 * width, 4 * width, 8 * width]
        self.down = nn.ModuleList(
            nn.Sequential(
                *conv_norm_relu(before, after),
                nn.Dropout2d(dropout),
                # An odd row or column more is pooled on its own, so any size has a half.
                max_pool2d(native)(2, 2, ceil_mode=True),
            )
            for before, after in itertools.pairwise(widths)
        )
        # The lowest block has no other map of its size beside its input.
        self.up = nn.ModuleList(
            nn.Sequential(*conv_norm_relu(before, after))
            for before, after in (
                (8 * width, 4 * width),
                (2 * 4 * width, 2 * width),
                (2 * 2 * width, width),
                (2 * width, width),
            )
        )
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of every pixel of a batch of images."""
        check_images(images, self.in_channels)
        sizes, pooled = [], []
        maps = images
        for down in self.down:
            sizes.append(maps.shape[2:])
            maps = down(maps)  # (B, C, ceil(H / 2), ceil(W / 2))
            pooled.append(maps)
        for level, up in enumerate(self.up):
            beside = pooled.pop()
            if level > 0:
                maps = torch.cat([beside, maps], dim=1)  # (B, 2 C, H, W)
            # To the size it had on the way down, which is twice this one where that was even.
            maps = F.interpolate(up(maps), size=sizes.pop(), mode="bilinear")  # (B, C / 2, ...)
        logits: Tensor = self.head(maps)  # (B, num_classes, H, W)
        return logits
