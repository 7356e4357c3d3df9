"""ResNetDeepLab: torchvision's residual encoder, and dilated convolutions that look around."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastseq.models.parts import check_images
from fastseq.models.shared import check_dropout, check_sizes
from fastseq.swap import swap

BACKBONES = {"resnet18": 512, "resnet50": 2048}
# Of DeepLabv3 for maps of a sixteenth of the image.
RATES = (6, 12, 18)


class ResNetDeepLab(nn.Module):
    """Label every pixel from the features of a residual network.

    The first of the segmentation challenge in UCLA ACM's advanced track, lecture 4 (78.89 %). The
    head is that of L.-C. Chen et al., "Rethinking Atrous Convolution for Semantic Image
    Segmentation", 2017 (DeepLabv3): a 1x1 convolution, three 3x3 convolutions with holes of 6, 12
    and 18 pixels, and the mean of the image, in parallel. The last stage of the encoder has holes
    too, in place of its stride, so that its maps are a sixteenth as wide as the image and not a
    thirty-second.

    Args:
        num_classes: Logits of every pixel.
        backbone: ``"resnet18"`` or ``"resnet50"``, torchvision's.
        weights: Of the encoder, handed to torchvision: ``None`` for random ones, ``"DEFAULT"``, or
            a member of ``torchvision.models.ResNet18_Weights``.
        aspp_channels: Channels of each branch of the head.
        dropout: Probability of zeroing a feature of the head in training, in ``[0, 1)``.
        native: Leave torch.nn's pool in the encoder. Parameter names and initial values are the
            same, so a ``state_dict`` loads either way.

    Shape:
        - Input: ``(B, 3, H, W)``, any H and W; in training B at least 2.
        - Output: ``(B, num_classes, H, W)``.

    Raises:
        ValueError: If an argument is out of range, or images have the wrong shape.
        ModuleNotFoundError: If torchvision is not installed.

    Example:
        >>> import torch
        >>> from fastseq.models import ResNetDeepLab
        >>> model = ResNetDeepLab(num_classes=23, aspp_channels=16)
        >>> model(torch.rand(2, 3, 45, 61)).shape
        torch.Size([2, 23, 45, 61])
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet18",
        weights: Any = None,
        aspp_channels: int = 256,
        dropout: float = 0.5,
        native: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(num_classes=num_classes, aspp_channels=aspp_channels)
        check_dropout(dropout)
        if backbone not in BACKBONES:
            names = ", ".join(map(repr, BACKBONES))
            raise ValueError(
                f"backbone is {backbone!r}, expected one of {names}; pass backbone='resnet18'"
            )
        # Here, because the other architectures need torch alone.
        import torchvision

        encoder = torchvision.models.get_model(backbone, weights=weights)
        _dilate(encoder.layer4, 2)
        # Its classifier would be parameters that never get a gradient.
        del encoder.avgpool, encoder.fc
        if not native:
            swap(encoder)
        self.encoder = encoder
        self.aspp = ASPP(BACKBONES[backbone], aspp_channels, dropout)
        self.head = nn.Sequential(
            nn.Conv2d(aspp_channels, aspp_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(aspp_channels),
            nn.ReLU(),
            nn.Conv2d(aspp_channels, num_classes, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of every pixel of a batch of images."""
        check_images(images, 3)
        if self.training and len(images) == 1:
            raise ValueError(
                "images are a batch of one, whose mean has no variance to normalize in training; "
                "pass at least two images, or call eval() first"
            )
        encoder = self.encoder
        maps = encoder.maxpool(encoder.relu(encoder.bn1(encoder.conv1(images))))  # (B, 64, H/4, ..)
        for stage in (encoder.layer1, encoder.layer2, encoder.layer3, encoder.layer4):
            maps = stage(maps)  # (B, 64, H/4, W/4), (B, 128, H/8, W/8), then H/16 and H/16
        logits = self.head(self.aspp(maps))  # (B, num_classes, H/16, W/16)
        return F.interpolate(logits, size=images.shape[2:], mode="bilinear")


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: the same maps seen from near, from further away, and whole.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of each branch, and of the output.
        dropout: Of the output, in training.

    Shape:
        - Input: ``(B, in_channels, H, W)``.
        - Output: ``(B, out_channels, H, W)``.
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        near = _norm_relu(nn.Conv2d(in_channels, out_channels, 1, bias=False))
        # Padding equal to the dilation keeps the size.
        holes = [
            nn.Conv2d(in_channels, out_channels, 3, padding=rate, dilation=rate, bias=False)
            for rate in RATES
        ]
        whole = _norm_relu(nn.Conv2d(in_channels, out_channels, 1, bias=False))
        self.local = nn.ModuleList([near, *map(_norm_relu, holes)])
        self.whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), whole)
        branches = len(RATES) + 2
        together = _norm_relu(nn.Conv2d(branches * out_channels, out_channels, 1, bias=False))
        self.project = nn.Sequential(together, nn.Dropout(dropout))

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps that know their surroundings."""
        branches = [branch(maps) for branch in self.local]  # each (B, C, H, W)
        branches.append(self.whole(maps).expand_as(branches[0]))  # (B, C, 1, 1) -> (B, C, H, W)
        projected: Tensor = self.project(torch.cat(branches, dim=1))  # (B, 5 C, H, W) -> (B, C, ..)
        return projected


def _norm_relu(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU())


def _dilate(stage: nn.Module, rate: int) -> None:
    """Put holes in the place of a stage's stride: later filters see as far, no pixel is lost.

    As torchvision's ``replace_stride_with_dilation``, which has no such thing for resnet18.
    """
    for place, block in enumerate(stage.children()):
        for module in block.modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
                # The first block reads maps of the resolution that its filters were made for.
                if place > 0:
                    reach = rate * (module.kernel_size[0] // 2)
                    module.padding, module.dilation = (reach, reach), (rate, rate)
