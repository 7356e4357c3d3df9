"""AlexNet in small: two of its convolution layers and a hidden one, for 28 x 28 pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import seed_everything
from torch import Tensor, nn

from fastseq.models.parts import check_square, max_pool2d
from fastseq.nn import ReLULRNMaxPool2d
from fastseq.recipes.shared.config import TrainingConfig, run_config
from fastseq.recipes.shared.digits import digits_datasets
from fastseq.recipes.shared.history import History
from fastseq.recipes.shared.image_classifier import MEASURES, ImageClassifier
from fastseq.recipes.shared.images import ClassImages
from fastseq.recipes.shared.quiet import quiet
from fastseq.recipes.shared.splits import Splits
from fastseq.recipes.shared.trainer import Keepers, build_trainer

# As in fastseq.models.AlexNet.
LRN: dict[str, Any] = {"size": 5, "k": 2.0, "alpha": 5 * 1e-4, "beta": 0.75}
CLASSES = 10
HIDDEN = 128


class SmallAlexNet(nn.Module):
    """Two times 5x5 convolution, ReLU, LRN and overlapping pool; then a hidden layer and a head.

    Args:
        lrn: With the two LRN layers.
        overlap: Pools of 3x3 windows at stride 2, else of 2x2; maps are as large either way.
        width: Maps of the first convolution; the second has twice as many.
        native: Build LRN and pools from torch.nn instead of fastseq.nn.
    """

    def __init__(
        self, lrn: bool = True, overlap: bool = True, width: int = 32, native: bool = False
    ) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(
            nn.Conv2d(1, width, 5, padding=2), _layer_end(lrn, overlap, native)
        )  # (B, width, 14, 14)
        self.layer2 = nn.Sequential(
            nn.Conv2d(width, 2 * width, 5, padding=2), _layer_end(lrn, overlap, native)
        )  # (B, 2 width, 7, 7)
        self.layer3 = nn.Sequential(nn.Flatten(), nn.Linear(2 * width * 49, HIDDEN), nn.ReLU())
        self.head = nn.Linear(HIDDEN, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, 10)`` of images ``(B, 1, 28, 28)``."""
        check_square(images, 1, 28)
        logits: Tensor = self.head(self.layer3(self.layer2(self.layer1(images))))
        return logits


def _layer_end(lrn: bool, overlap: bool, native: bool) -> nn.Module:
    size, padding = (3, 1) if overlap else (2, 0)
    if lrn and not native:
        return ReLULRNMaxPool2d(**LRN, kernel_size=size, stride=2, padding=padding)
    pool = max_pool2d(native)(size, 2, padding)
    return nn.Sequential(nn.ReLU(), *([nn.LocalResponseNorm(**LRN)] if lrn else []), pool)


@dataclass(frozen=True)
class Trained:
    """A network after training.

    Attributes:
        model: In evaluation mode.
        accuracy: On the test images, after the last epoch.
    """

    model: SmallAlexNet
    accuracy: float


def framed_digits(margin: int) -> Splits:
    """Load the digits, 28 x 28 pixels with a black margin of that many pixels all around."""
    splits = digits_datasets(size=28 - 2 * margin)
    framed = []
    for part in splits:
        images, labels = part.tensors
        images = nn.functional.pad(images, [margin] * 4)
        framed.append(torch.utils.data.TensorDataset(images, labels))
    return Splits(*framed)


def train_network(
    model: SmallAlexNet, splits: Splits, config: TrainingConfig, folder: Path
) -> Trained:
    """Train a network to the end by Lightning, logging into a folder."""
    seed_everything(config.seed, workers=True, verbose=False)
    data = ClassImages(splits, config.batch_size, max_shift=1.5, seed=config.seed)
    task = ImageClassifier(model, CLASSES, config.lr, config.weight_decay)
    epochs = config.epochs or 1
    own = run_config(config, out=folder, patience=epochs + 1)
    trainer = build_trainer(own, Keepers(History(*MEASURES)), epochs)
    with quiet():
        trainer.fit(task, data)
        (metrics,) = trainer.test(task, data, verbose=False)
    return Trained(model.cpu().eval(), float(metrics["test_accuracy"]))
