"""A classifier that is trained anew or carried over, as a Lightning task."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from fastseq.models.parts import double_conv, max_pool2d
from fastseq.recipes.shared.image_classifier import ImageClassifier
from fastseq.recipes.shared.optimizers import warmup_cosine
from fastseq.recipes.transfer.data import HALF
from fastseq.transfer import (
    freeze_features,
    param_groups,
    replace_head,
    train_only_norms,
    unfreeze,
)

# How much faster than copied layers new ones learn, weights of a head and biases.
NEW, NEW_BIAS = 10.0, 20.0
# What to do with a network whose head was replaced.
CARRY: dict[str, Any] = {
    "frozen": freeze_features,
    "norms": train_only_norms,
    "fine-tuned": unfreeze,
}
WAYS = ("scratch", *CARRY)


class SmallConvNet(nn.Module):
    """Three double convolutions with batch norm, two pools, a mean and a linear head.

    Args:
        num_classes: Logits in the output.
        width: Channels of the first block; each pool doubles them.
        native: Build the pools from torch.nn.
    """

    def __init__(self, num_classes: int, width: int = 16, native: bool = False) -> None:
        super().__init__()
        pool = max_pool2d(native)
        self.features = nn.Sequential(
            double_conv(1, width),  # (B, width, 28, 28)
            pool(2),
            double_conv(width, 2 * width),  # (B, 2 width, 14, 14)
            pool(2),
            double_conv(2 * width, 4 * width),  # (B, 4 width, 7, 7)
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(4 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits of images ``(B, 1, 28, 28)``."""
        logits: Tensor = self.head(self.features(images))
        return logits


def build_network(
    data: str, width: int = 16, native: bool = False, pretrained: bool = False
) -> nn.Module:
    """Return a network for half of the classes of a data set.

    Args:
        data: ``"digits"`` gets a small network of fastseq's, ``"cifar10"`` torchvision's
            mobilenet_v2.
        width: Of the small network.
        native: Build the small network's pools from torch.nn; mobilenet_v2 has none.
        pretrained: Begin mobilenet_v2 with torchvision's ImageNet weights.
    """
    if data == "digits":
        if pretrained:
            raise ValueError("data is 'digits', and pretrained weights are for cifar10 only")
        return SmallConvNet(HALF, width, native)
    import torchvision

    model: nn.Module = torchvision.models.mobilenet_v2(weights="DEFAULT" if pretrained else None)
    return replace_head(model, HALF)


class TransferClassifier(ImageClassifier):
    """Tell five classes apart: cross-entropy, AdamW, a rate for each kind of layer.

    Args:
        data: ``"digits"`` or ``"cifar10"``; see `build_network`, as for the next three.
        width: Of the small network.
        native: Build from torch.nn.
        pretrained: Begin with torchvision's weights.
        way: ``"source"`` for the old task, else how the new one is learned: ``"scratch"``,
            ``"frozen"``, ``"norms"`` or ``"fine-tuned"``.
        labels: Labelled images of each class; 0 for all. Kept in the checkpoint.
        lr: Peak rate of copied layers; new ones learn 10 times, their biases 20 times as fast.
        weight_decay: AdamW's.
    """

    def __init__(
        self,
        data: str = "digits",
        width: int = 16,
        native: bool = False,
        pretrained: bool = False,
        way: str = "source",
        labels: int = 0,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
    ) -> None:
        model = build_network(data, width, native, pretrained and way == "source")
        super().__init__(model, HALF, NEW * lr, weight_decay)
        self.save_hyperparameters()
        self.way = way
        self.mild_lr = lr

    def carry_over(self, source: dict[str, Tensor]) -> None:
        """Take over the weights of the old task, as the way says; from scratch none."""
        if self.way in CARRY:
            self.model.load_state_dict(source)
            CARRY[self.way](replace_head(self.model, HALF))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW, whose rates rise linearly, then fall along half a cosine to zero."""
        if self.way not in CARRY:
            return super().configure_optimizers()
        groups = param_groups(self.model, self.mild_lr, NEW, NEW_BIAS)
        return warmup_cosine(self, self.mild_lr, self.weight_decay, groups)


def trained_parameters(model: nn.Module) -> int:
    """Return how many parameters of a model are trained."""
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def class_share(labels: Tensor) -> float:
    """Return the share of the most frequent class: what one gets without looking."""
    return float(torch.bincount(labels).max() / len(labels))
