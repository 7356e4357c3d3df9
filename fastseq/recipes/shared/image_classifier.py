"""Any classifier of images as a Lightning task."""

from __future__ import annotations

import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from fastseq.recipes.shared.images import Batch
from fastseq.recipes.shared.optimizers import warmup_cosine

# What it logs of every epoch.
MEASURES = ("train_loss", "val_loss", "val_accuracy")


class ImageClassifier(LightningModule):
    """Tell images apart: cross-entropy, AdamW, warm-up and cosine decay.

    Args:
        model: Makes logits ``(B, num_classes)`` of images.
        num_classes: Classes.
        lr: Peak learning rate.
        weight_decay: AdamW's.
    """

    def __init__(
        self, model: nn.Module, num_classes: int, lr: float = 2e-3, weight_decay: float = 0.01
    ) -> None:
        super().__init__()
        self.model = model
        self.lr = lr
        self.weight_decay = weight_decay
        self.val_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.test_accuracy = MulticlassAccuracy(num_classes, average="micro")

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, num_classes)``."""
        logits: Tensor = self.model(images)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        images, labels = batch
        loss = F.cross_entropy(self(images), labels)
        self.log(
            "train_loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(labels)
        )
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log loss and accuracy of a validation batch."""
        images, labels = batch
        logits = self(images)
        self.val_accuracy(logits, labels)
        loss = F.cross_entropy(logits, labels)
        self.log("val_loss", loss, prog_bar=True, sync_dist=True, batch_size=len(labels))
        self.log("val_accuracy", self.val_accuracy, prog_bar=True, batch_size=len(labels))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the accuracy of a test batch."""
        images, labels = batch
        self.test_accuracy(self(images), labels)
        self.log("test_accuracy", self.test_accuracy, batch_size=len(labels))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW whose rate rises linearly, then falls along half a cosine to zero."""
        return warmup_cosine(self, self.lr, self.weight_decay)
