"""RowRNN as a Lightning task."""

from __future__ import annotations

import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy

from fastseq.models import RowRNN
from fastseq.recipes.shared.images import Batch
from fastseq.recipes.shared.optimizers import warmup_cosine

CLASSES = 10


class RowClassifier(LightningModule):
    """Read digits by rows: cross-entropy, AdamW, warm-up and cosine decay.

    Args:
        cell: ``"lstm"``, ``"gru"`` or ``"rnn"``.
        hidden_size: Units of each recurrent layer.
        num_layers: Recurrent layers, stacked.
        dropout: Between stacked layers.
        native: Use torch.nn's layers.
        lr: Peak learning rate.
        weight_decay: AdamW's.
    """

    def __init__(
        self,
        cell: str = "lstm",
        hidden_size: int = 128,
        num_layers: int = 2,
        dropout: float = 0.0,
        native: bool = False,
        lr: float = 2e-3,
        weight_decay: float = 0.1,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr = lr
        self.weight_decay = weight_decay
        self.model = RowRNN(
            cell,
            hidden_size=hidden_size,
            num_layers=num_layers,
            num_classes=CLASSES,
            dropout=dropout,
            native=native,
        )
        self.val_accuracy = MulticlassAccuracy(CLASSES, average="micro")
        self.test_accuracy = MulticlassAccuracy(CLASSES, average="micro")
        self.misread: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, 10)`` of images ``(B, 1, 28, 28)``."""
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
        loss = F.cross_entropy(logits, labels)
        self.val_accuracy(logits, labels)
        self.log("val_loss", loss, prog_bar=True, sync_dist=True, batch_size=len(labels))
        self.log("val_accuracy", self.val_accuracy, prog_bar=True, batch_size=len(labels))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the accuracy of a test batch, and keep the images that were misread."""
        images, labels = batch
        read = self(images).argmax(dim=1)  # (B,)
        self.test_accuracy(read, labels)
        self.log("test_accuracy", self.test_accuracy, batch_size=len(labels))
        wrong = read != labels
        self.misread.append((images[wrong].cpu(), labels[wrong].cpu(), read[wrong].cpu()))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW whose rate rises linearly, then falls along half a cosine to zero."""
        return warmup_cosine(self, self.lr, self.weight_decay)
