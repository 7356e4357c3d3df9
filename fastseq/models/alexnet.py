"""AlexNet: five convolutions and three fully connected layers, in one column or in two."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from fastseq.models.parts import check_square, max_pool2d
from fastseq.models.shared import check_dropout, check_sizes
from fastseq.nn import ReLULRNMaxPool2d

SIDE = 224
# The paper's n, k, alpha and beta. Its formula does not divide alpha by n, torch.nn's and ours do.
LRN: dict[str, Any] = {"size": 5, "k": 2.0, "alpha": 5 * 1e-4, "beta": 0.75}


class AlexNet(nn.Module):
    """Classify photographs; as published, with LRN and overlapping pooling.

    A. Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", 2012.
    The layers hold 290,400 (55 x 55 x 96), 186,624, 64,896, 64,896, 43,264, 4096, 4096 and
    ``num_classes`` neurons; the paper prints 253,440 for the first, which no 96 maps of 55 x 55
    have. With 1000 classes there are 60,965,224 parameters in two columns and 62,378,344 in one.

    The network was too large for one device of its day. ``groups=2`` is its division: each column
    has half of the maps of every layer and reads only its own, but ``conv3`` and the fully
    connected layers read those of both. ``place`` puts the columns on two devices.

    Args:
        num_classes: Logits in the output.
        groups: Columns, 1 or 2.
        dropout: Probability of zeroing a unit before ``fc6`` and ``fc7``, in ``[0, 1)``.
        width: Maps of the first layer, a multiple of 6; those of the others keep their ratio to
            it. The published network has 96.
        native: Build LRN and pools from ``torch.nn`` instead of ``fastseq.nn``, where ReLU, LRN and
            pool are one op. Parameter names and initial values are the same, so a ``state_dict``
            loads either way.

    Shape:
        - Input: ``(B, 3, 224, 224)``.
        - Output: ``(B, num_classes)``.

    Raises:
        ValueError: If an argument is out of range, or images have the wrong shape.

    Example:
        >>> import torch
        >>> from fastseq.models import AlexNet
        >>> model = AlexNet(num_classes=10, groups=2, width=12)
        >>> model = model.place("cpu", "cpu")  # or "cuda:0", "cuda:1"
        >>> model(torch.rand(2, 3, 224, 224)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        num_classes: int = 1000,
        groups: int = 1,
        dropout: float = 0.5,
        width: int = 96,
        native: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(num_classes=num_classes, width=width)
        check_dropout(dropout)
        if groups not in (1, 2):
            raise ValueError(f"groups is {groups}, expected 1 or 2; pass 2 for two devices")
        if width % 6 != 0:
            raise ValueError(f"width is {width}, expected a multiple of 6; pass 96 as published")
        self.columns = nn.ModuleList(Column(width, groups, dropout, native) for _ in range(groups))
        self.head = nn.Linear(width * 128 // 3, num_classes)

    def place(self, *devices: torch.device | str) -> AlexNet:
        """Put each column on a device of its own; the last layer goes to the first of them.

        Images may come from anywhere, logits come from the first device. ``model.to(device)`` takes
        everything to one device again.

        Args:
            *devices: As many as there are columns.

        Returns:
            The model itself.
        """
        if len(devices) != len(self.columns):
            raise ValueError(
                f"{len(devices)} devices for {len(self.columns)} columns; pass one for each column "
                f"(AlexNet(groups=2) has two)"
            )
        for column, device in zip(self.columns, devices, strict=True):
            column.to(device)
        self.head.to(devices[0])
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of a batch of images."""
        check_square(images, 3, SIDE)
        columns = cast("Iterable[Column]", self.columns)
        maps = [column.low(_gather([images], column)) for column in columns]
        maps = [column.high(_gather(maps, column)) for column in columns]
        units = [column.fc6(_gather(maps, column)) for column in columns]
        units = [column.fc7(_gather(units, column)) for column in columns]
        logits: Tensor = self.head(_gather(units, self.head))  # (B, 4096) -> (B, num_classes)
        return logits


class Column(nn.Module):
    """One device's share of AlexNet: ``1 / groups`` of the maps or units of each layer.

    Shapes are those of one column of two.

    Args:
        width: Maps of the first layer, of all columns together.
        groups: Columns in the network.
        dropout: Before the fully connected layers.
        native: Build LRN and pools from torch.nn.
    """

    def __init__(self, width: int, groups: int, dropout: float, native: bool) -> None:
        super().__init__()
        # 96, 256, 384 maps and 4096 units where all is as published.
        all2, all5, units = width * 8 // 3, width * 8 // 3, width * 128 // 3
        own1, own2, own3 = width // groups, all2 // groups, 4 * width // groups
        own4, own5, own_units = own3, all5 // groups, units // groups
        self.low = nn.Sequential(
            nn.Conv2d(3, own1, 11, stride=4, padding=2),  # (B, 48, 55, 55)
            _layer_end(native),  # (B, 48, 27, 27)
            nn.Conv2d(own1, own2, 5, padding=2),  # (B, 128, 27, 27)
            _layer_end(native),  # (B, 128, 13, 13)
        )
        self.high = nn.Sequential(
            nn.Conv2d(all2, own3, 3, padding=1),  # (B, 192, 13, 13), of all 256 maps
            nn.ReLU(),
            nn.Conv2d(own3, own4, 3, padding=1),  # (B, 192, 13, 13)
            nn.ReLU(),
            nn.Conv2d(own4, own5, 3, padding=1),  # (B, 128, 13, 13)
            nn.ReLU(),
            max_pool2d(native)(3, 2),  # (B, 128, 6, 6)
            nn.Flatten(),
        )
        self.fc6 = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(all5 * 6 * 6, own_units), nn.ReLU()
        )  # (B, 9216) -> (B, 2048)
        self.fc7 = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(units, own_units), nn.ReLU()
        )  # (B, 4096) -> (B, 2048)


def _layer_end(native: bool) -> nn.Module:
    if native:
        return nn.Sequential(nn.ReLU(), nn.LocalResponseNorm(**LRN), nn.MaxPool2d(3, 2))
    return ReLULRNMaxPool2d(**LRN, kernel_size=3, stride=2)


def _gather(parts: Sequence[Tensor], reader: nn.Module) -> Tensor:
    """Bring what all columns made to the device of the layer that reads it."""
    device = next(reader.parameters()).device
    moved = [part.to(device) for part in parts]
    return moved[0] if len(moved) == 1 else torch.cat(moved, dim=1)
