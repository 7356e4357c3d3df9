"""CharRNN as a Lightning task."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from fastseq.models import CharRNN
from fastseq.models.recurrences import State
from fastseq.recipes.chars.data import Windows
from fastseq.recipes.shared.optimizers import warmup_cosine


class CharacterModel(LightningModule):
    """Predict the next character: cross-entropy, AdamW, warm-up and cosine decay.

    Perplexity is e to the mean cross-entropy of a character. Validation and test texts are read
    with the state carried from batch to batch.

    Args:
        vocab_size: Characters known.
        cell: ``"lstm"``, ``"gru"`` or ``"rnn"``.
        embedding_size: Features of an embedded character.
        hidden_size: Units of each recurrent layer.
        num_layers: Recurrent layers, stacked.
        dropout: Between stacked layers.
        native: Use torch.nn's layers.
        lr: Peak learning rate.
        weight_decay: AdamW's.
        text: Fingerprint of the text, which a run that goes on must share.
    """

    def __init__(
        self,
        vocab_size: int,
        cell: str = "lstm",
        embedding_size: int = 64,
        hidden_size: int = 256,
        num_layers: int = 1,
        dropout: float = 0.0,
        native: bool = False,
        lr: float = 5e-3,
        weight_decay: float = 0.01,
        text: str = "",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr, self.weight_decay = lr, weight_decay
        self.model = CharRNN(
            vocab_size, cell, embedding_size, hidden_size, num_layers, dropout, native
        )
        self._state: State | None = None
        self._nats, self._characters = 0.0, 0

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits ``(B, T, V)`` of the characters after ``(B, T)``."""
        logits: Tensor = self.model(tokens)
        return logits

    def training_step(self, batch: Windows, batch_idx: int) -> Tensor:
        """Return the mean loss of a batch's characters."""
        inputs, targets = batch
        loss = F.cross_entropy(self(inputs).flatten(0, 1), targets.flatten())
        self.log(
            "train_loss",
            loss,
            on_step=False,
            on_epoch=True,
            sync_dist=True,
            batch_size=targets.numel(),
        )
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin the text."""
        self._begin()

    def validation_step(self, batch: Windows, batch_idx: int) -> None:
        """Read on."""
        self._read(batch)

    def on_validation_epoch_end(self) -> None:
        """Log loss and perplexity of the validation text."""
        loss = self._loss()
        self.log("val_loss", loss, prog_bar=True, sync_dist=True)
        self.log("val_perplexity", loss.exp(), prog_bar=True, sync_dist=True)

    def on_test_epoch_start(self) -> None:
        """Begin the text."""
        self._begin()

    def test_step(self, batch: Windows, batch_idx: int) -> None:
        """Read on."""
        self._read(batch)

    def on_test_epoch_end(self) -> None:
        """Log the perplexity of the test text."""
        self.log("test_perplexity", self._loss().exp(), sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW whose rate rises linearly, then falls along half a cosine to zero."""
        return warmup_cosine(self, self.lr, self.weight_decay)

    def _begin(self) -> None:
        self._state, self._nats, self._characters = None, 0.0, 0

    def _read(self, batch: Windows) -> None:
        inputs, targets = batch
        logits, self._state = self.model.read(inputs, self._state)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
        self._nats += float(loss)
        self._characters += targets.numel()

    def _loss(self) -> Tensor:
        return torch.tensor(self._nats / self._characters, device=self.device)
