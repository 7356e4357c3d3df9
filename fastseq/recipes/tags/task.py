"""SequenceTagger as a Lightning task."""

from __future__ import annotations

import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from fastseq.models import SequenceTagger
from fastseq.recipes.shared.optimizers import warmup_cosine
from fastseq.recipes.tags.data import IGNORED, TagBatch
from fastseq.recipes.tags.metrics import EntityF1


class EntityTagger(LightningModule):
    """Find names in sentences: cross-entropy, AdamW, warm-up and cosine decay.

    Args:
        vocab_size: Words and signatures known.
        tags: Names of the tags, by number.
        embedding_size: Features of an embedded word.
        hidden_size: Units of each direction of each layer.
        num_layers: Bidirectional layers, stacked.
        dropout: Of embeddings and hidden units.
        native: Use torch.nn's layers.
        lr: Peak learning rate.
        weight_decay: AdamW's.
        corpus: Fingerprint of the sentences, which a run that goes on must share.
    """

    def __init__(
        self,
        vocab_size: int,
        tags: list[str],
        embedding_size: int = 64,
        hidden_size: int = 64,
        num_layers: int = 1,
        dropout: float = 0.3,
        native: bool = False,
        lr: float = 5e-3,
        weight_decay: float = 0.01,
        corpus: str = "",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr, self.weight_decay = lr, weight_decay
        self.model = SequenceTagger(
            vocab_size, len(tags), embedding_size, hidden_size, num_layers, dropout, native
        )
        self.tags = tags
        self.val_f1, self.test_f1 = EntityF1(tags), EntityF1(tags)

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        """Return logits ``(B, T, tags)`` of words ``(B, T)``."""
        logits: Tensor = self.model(words, lengths)
        return logits

    def training_step(self, batch: TagBatch, batch_idx: int) -> Tensor:
        """Return the mean loss of a batch's words."""
        loss, _ = self._loss(batch)
        words = int(batch.lengths.sum())
        self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=words)
        return loss

    def validation_step(self, batch: TagBatch, batch_idx: int) -> None:
        """Log loss and F1 of a validation batch."""
        loss, logits = self._loss(batch)
        self.val_f1(*self._names(logits, batch))
        words = int(batch.lengths.sum())
        self.log("val_loss", loss, prog_bar=True, sync_dist=True, batch_size=words)
        self.log("val_f1", self.val_f1, prog_bar=True, batch_size=words)

    def test_step(self, batch: TagBatch, batch_idx: int) -> None:
        """Log the F1 of a test batch."""
        _, logits = self._loss(batch)
        self.test_f1.update(*self._names(logits, batch))

    def on_test_epoch_end(self) -> None:
        """Keep the scores of every kind, and log the F1 of all together."""
        self.scores = self.test_f1.scores()
        self.log("test_f1", self.test_f1.compute())

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW whose rate rises linearly, then falls along half a cosine to zero."""
        return warmup_cosine(self, self.lr, self.weight_decay)

    def _names(self, logits: Tensor, batch: TagBatch) -> tuple[list[list[str]], list[list[str]]]:
        lengths = batch.lengths.tolist()
        predictions, targets = (
            [
                [self.tags[tag] for tag in row[:length]]
                for row, length in zip(numbers.tolist(), lengths, strict=True)
            ]
            for numbers in (logits.argmax(dim=2), batch.tags)
        )
        return predictions, targets

    def _loss(self, batch: TagBatch) -> tuple[Tensor, Tensor]:
        logits = self(batch.words, batch.lengths)  # (B, T, tags)
        flat = logits.flatten(0, 1), batch.tags.flatten()
        return F.cross_entropy(*flat, ignore_index=IGNORED), logits
