"""GoogLeNet: nine Inception modules, with LRN, and two helpers that are taught beside it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from fastseq.models.inception import Inception, conv_relu
from fastseq.models.parts import check_square, max_pool2d
from fastseq.models.shared import check_dropout, check_sizes
from fastseq.nn import LocalResponseNorm, ReLULRNMaxPool2d

SIDE = 224
# The paper gives no constants; these are those of its authors' contemporaries in Caffe.
N, ALPHA, BETA, K = 5, 1e-4, 0.75, 1.0

# in_channels, c1, r3, c3, r5, c5, pool.
MODULES = {
    "3a": (192, 64, 96, 128, 16, 32, 32),
    "3b": (256, 128, 128, 192, 32, 96, 64),
    "4a": (480, 192, 96, 208, 16, 48, 64),
    "4b": (512, 160, 112, 224, 24, 64, 64),
    "4c": (512, 128, 128, 256, 24, 64, 64),
    "4d": (512, 112, 144, 288, 32, 64, 64),
    "4e": (528, 256, 160, 320, 32, 128, 128),
    "5a": (832, 256, 160, 320, 32, 128, 128),
    "5b": (832, 384, 192, 384, 48, 128, 128),
}


class GoogLeNetOutput(NamedTuple):
    """What GoogLeNet returns in training with its auxiliary classifiers, each ``(B, classes)``.

    The paper adds 0.3 times the losses of ``aux1`` and ``aux2`` to that of ``logits``.
    """

    logits: Tensor
    aux1: Tensor
    aux2: Tensor


class GoogLeNet(nn.Module):
    """Classify photographs with 7 million parameters, a ninth of AlexNet's.

    C. Szegedy et al., "Going Deeper with Convolutions", 2015, table 1: LRN after the first pool and
    before the second, no batch norm, 5x5 filters. (torchvision's ``googlenet`` is a later form:
    batch norm in place of LRN, and 3x3 filters in place of the 5x5.)

    Args:
        num_classes: Logits in the output.
        aux_logits: With two auxiliary classifiers, on the outputs of modules 4a and 4d, which send
            gradients into the middle of the network. They are used in training only.
        dropout: Probability of zeroing a feature before the last layer, in ``[0, 1)``.
        native: Build LRN and pools from ``torch.nn`` instead of ``fastseq.nn``. Parameter names and
            initial values are the same, so a ``state_dict`` loads either way.

    Shape:
        - Input: ``(B, 3, 224, 224)``.
        - Output: ``(B, num_classes)``; in training with ``aux_logits`` three of them, as a
          ``GoogLeNetOutput``.

    Raises:
        ValueError: If an argument is out of range, or images have the wrong shape.

    Example:
        >>> import torch
        >>> from fastseq.models import GoogLeNet
        >>> model = GoogLeNet(num_classes=10).eval()
        >>> model(torch.rand(1, 3, 224, 224)).shape
        torch.Size([1, 10])
    """

    def __init__(
        self,
        num_classes: int = 1000,
        aux_logits: bool = True,
        dropout: float = 0.4,
        native: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(num_classes=num_classes)
        check_dropout(dropout)
        pool = max_pool2d(native)
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, stride=2, padding=3),  # (B, 64, 112, 112)
            nn.ReLU(),
            pool(3, 2, ceil_mode=True),  # (B, 64, 56, 56)
            nn.LocalResponseNorm(N, ALPHA, BETA, K)
            if native
            else LocalResponseNorm(N, ALPHA, BETA, K),
            conv_relu(64, 64, 1),
            nn.Conv2d(64, 192, 3, padding=1),  # (B, 192, 56, 56)
            _relu_lrn_pool(native),  # (B, 192, 28, 28)
        )
        modules = {name: Inception(*sizes, native=native) for name, sizes in MODULES.items()}
        self.inception = nn.ModuleDict(modules)
        self.pool = pool(3, 2, ceil_mode=True)
        self.average = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout))
        self.fc = nn.Linear(modules["5b"].out_channels, num_classes)
        self.aux1 = Auxiliary(modules["4a"].out_channels, num_classes) if aux_logits else None
        self.aux2 = Auxiliary(modules["4d"].out_channels, num_classes) if aux_logits else None

    def forward(self, images: Tensor) -> Tensor | GoogLeNetOutput:
        """Return the logits of a batch of images, in training with those of the helpers."""
        check_square(images, 3, SIDE)
        maps = self.stem(images)  # (B, 192, 28, 28)
        seen: dict[str, Tensor] = {}
        for name, module in self.inception.items():
            maps = module(maps)
            seen[name] = maps
            if name in ("3b", "4e"):
                maps = self.pool(maps)  # (B, 480, 14, 14), (B, 832, 7, 7)
        logits: Tensor = self.fc(self.average(maps))  # (B, 1024, 7, 7) -> (B, num_classes)
        if self.training and self.aux1 is not None and self.aux2 is not None:
            return GoogLeNetOutput(logits, self.aux1(seen["4a"]), self.aux2(seen["4d"]))
        return logits


class Auxiliary(nn.Module):
    """A classifier on maps ``(B, in_channels, 14, 14)`` from the middle of GoogLeNet.

    Args:
        in_channels: Channels of the maps.
        num_classes: Logits in the output.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.reduce = nn.Sequential(
            nn.AvgPool2d(5, stride=3),  # (B, C, 4, 4)
            conv_relu(in_channels, 128, 1),
            nn.Flatten(),  # (B, 2048)
            nn.Linear(128 * 4 * 4, 1024),
            nn.ReLU(),
            nn.Dropout(0.7),
        )
        self.fc2 = nn.Linear(1024, num_classes)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.fc2(self.reduce(maps))  # (B, 1024) -> (B, num_classes)
        return logits


def _relu_lrn_pool(native: bool) -> nn.Module:
    if not native:
        return ReLULRNMaxPool2d(N, ALPHA, BETA, K, kernel_size=3, stride=2, ceil_mode=True)
    return nn.Sequential(
        nn.ReLU(),
        nn.LocalResponseNorm(N, ALPHA, BETA, K),
        nn.MaxPool2d(3, 2, ceil_mode=True),
    )
