"""ConvTransposeNet: overlapping pools down, and transposed convolutions that undo their sizes."""

from __future__ import annotations

from torch import Tensor, nn

from fastseq.models.parts import check_images, double_conv, max_pool2d
from fastseq.models.shared import check_sizes

# Four overlapping pools of a smaller image leave nothing: 31 -> 15 -> 7 -> 3 -> 1.
SMALLEST = 31


class ConvTransposeNet(nn.Module):
    """Label every pixel with four double convolutions down and four up.

    The second of the segmentation challenge in UCLA ACM's advanced track, lecture 4 (78.70 %): down
    by two times convolution, batch norm and ReLU and an overlapping ``MaxPool2d(3, 2)``, in
    ``width``, 2, 4 and 8 times ``width`` channels; up by ``ConvTranspose2d(3, 2)`` and two times
    convolution, batch norm and ReLU, in mirrored widths.

    A pool makes ``floor((n - 3) / 2) + 1`` pixels of n, of 2 m + 1 as many as of 2 m + 2; the
    transposed convolution is told which of the two it was.

    Args:
        num_classes: Logits of every pixel.
        in_channels: Channels of the images.
        width: Channels of the first block.
        native: Build the pools from ``torch.nn`` instead of ``fastseq.nn``. Parameter names and
            initial values are the same, so a ``state_dict`` loads either way.

    Shape:
        - Input: ``(B, in_channels, H, W)``, H and W at least 31.
        - Output: ``(B, num_classes, H, W)``.

    Raises:
        ValueError: If an argument is out of range, or images have the wrong shape.

    Example:
        >>> import torch
        >>> from fastseq.models import ConvTransposeNet
        >>> model = ConvTransposeNet(num_classes=23, width=8)
        >>> model(torch.rand(2, 3, 60, 81)).shape
        torch.Size([2, 23, 60, 81])
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        width: int = 64,
        native: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(num_classes=num_classes, in_channels=in_channels, width=width)
        self.in_channels = in_channels
        widths = [width, 2 * width, 4 * width, 8 * width]
        downward = zip([in_channels, *widths[:-1]], widths, strict=True)
        upward = list(zip(widths[::-1], [*widths[-2::-1], width], strict=True))
        self.down = nn.ModuleList(double_conv(before, after) for before, after in downward)
        self.pool = max_pool2d(native)(3, 2)
        self.grow = nn.ModuleList(
            nn.ConvTranspose2d(before, before, 3, stride=2) for before, _ in upward
        )
        self.up = nn.ModuleList(double_conv(before, after) for before, after in upward)
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of every pixel of a batch of images."""
        check_images(images, self.in_channels, SMALLEST)
        sizes = []
        maps = images
        for down in self.down:
            sizes.append(list(maps.shape[2:]))
            maps = self.pool(down(maps))  # (B, C, (H - 1) // 2, (W - 1) // 2)
        for grow, up in zip(self.grow, self.up, strict=True):
            maps = up(grow(maps, output_size=sizes.pop()))  # (B, C / 2, H, W)
        logits: Tensor = self.head(maps)  # (B, num_classes, H, W)
        return logits
