"""LeNet5: two convolutions and three fully connected layers that read digits."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fastseq.models.parts import check_square, max_pool2d
from fastseq.models.shared import check_sizes


class LeNet5(nn.Module):
    """Classify small images of one channel.

    Y. LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998: 5x5
    convolutions to 6 and to 16 maps, then 120, 84 and ``num_classes`` units, with tanh. Two things
    are as in the courses and not as in 1998: the pools take maxima where the paper trains a scaled
    mean, and every map of the second convolution sees all six of the first.

    Args:
        num_classes: Logits in the output.
        in_channels: Channels of the images.
        native: Build the pools from ``torch.nn`` instead of ``fastseq.nn``. Parameter names and
            initial values are the same, so a ``state_dict`` loads either way.

    Shape:
        - Input: ``(B, in_channels, 32, 32)``, or ``(B, in_channels, 28, 28)``, which gets a black
          frame of two pixels.
        - Output: ``(B, num_classes)``.

    Raises:
        ValueError: If an argument is out of range, or images have the wrong shape.

    Example:
        >>> import torch
        >>> from fastseq.models import LeNet5
        >>> LeNet5()(torch.rand(8, 1, 28, 28)).shape
        torch.Size([8, 10])
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, native: bool = False) -> None:
        super().__init__()
        check_sizes(num_classes=num_classes, in_channels=in_channels)
        self.in_channels = in_channels
        pool = max_pool2d(native)
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 6, 5),  # (B, 6, 28, 28)
            nn.Tanh(),
            pool(2),  # (B, 6, 14, 14)
            nn.Conv2d(6, 16, 5),  # (B, 16, 10, 10)
            nn.Tanh(),
            pool(2),  # (B, 16, 5, 5)
            nn.Flatten(),
            nn.Linear(16 * 5 * 5, 120),
            nn.Tanh(),
            nn.Linear(120, 84),
            nn.Tanh(),
        )
        self.head = nn.Linear(84, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of a batch of images."""
        check_square(images, self.in_channels, 28, 32)
        if images.size(2) == 28:
            images = F.pad(images, (2, 2, 2, 2))  # (B, C, 32, 32)
        logits: Tensor = self.head(self.features(images))  # (B, 84) -> (B, num_classes)
        return logits
