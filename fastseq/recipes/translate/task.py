"""Seq2Seq as a Lightning task."""

from __future__ import annotations

import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from fastseq.models import Seq2Seq
from fastseq.recipes.shared.optimizers import warmup_cosine
from fastseq.recipes.translate.data import BEGIN, END, PADDING, SOURCE, TARGET, PairBatch

# Six digits and the end, with room to go wrong in.
LONGEST = 10


class Translator(LightningModule):
    """Translate number words to digits: cross-entropy, AdamW, warm-up and cosine decay.

    Args:
        cell: ``"lstm"`` or ``"gru"``.
        embedding_size: Features of an embedded token.
        hidden_size: Units of each recurrent layer.
        num_layers: Recurrent layers of each side, stacked.
        attention: Let the decoder look at all of the encoder's steps.
        dropout: Of embeddings, and between stacked layers.
        native: Use torch.nn's layers.
        lr: Peak learning rate.
        weight_decay: AdamW's.
        beams: Beginnings that beam search keeps in the test.
    """

    def __init__(
        self,
        cell: str = "lstm",
        embedding_size: int = 32,
        hidden_size: int = 128,
        num_layers: int = 1,
        attention: bool = True,
        dropout: float = 0.1,
        native: bool = False,
        lr: float = 3e-3,
        weight_decay: float = 0.01,
        beams: int = 4,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr, self.weight_decay, self.beams = lr, weight_decay, beams
        self.model = Seq2Seq(
            len(SOURCE),
            len(TARGET),
            cell,
            embedding_size,
            hidden_size,
            num_layers,
            attention,
            dropout,
            PADDING,
            native,
        )

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        """Return logits ``(B, T, V)`` by teacher forcing."""
        logits: Tensor = self.model(src, tgt)
        return logits

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        """Return the mean loss of a batch's tokens."""
        loss = self._loss(batch)
        self.log(
            "train_loss",
            loss,
            on_step=False,
            on_epoch=True,
            sync_dist=True,
            batch_size=len(batch.src),
        )
        return loss

    def validation_step(self, batch: PairBatch, batch_idx: int) -> None:
        """Log the loss, and the share of numbers that are right in every digit."""
        size = len(batch.src)
        self.log("val_loss", self._loss(batch), prog_bar=True, sync_dist=True, batch_size=size)
        right = self._right(self.greedy(batch.src), batch)
        self.log("val_exact", right, prog_bar=True, sync_dist=True, batch_size=size)

    def test_step(self, batch: PairBatch, batch_idx: int) -> None:
        """Log the share of numbers right, by greedy decoding and by beam search."""
        size = len(batch.src)
        for name, written in (("greedy", self.greedy), ("beam", self.beam)):
            right = self._right(written(batch.src), batch)
            self.log(f"test_{name}", right, sync_dist=True, batch_size=size)

    def greedy(self, src: Tensor) -> list[Tensor]:
        """Return what greedy decoding writes."""
        return self.model.greedy_decode(src, BEGIN, END, LONGEST)

    def beam(self, src: Tensor) -> list[Tensor]:
        """Return what beam search writes."""
        return self.model.beam_decode(src, BEGIN, END, LONGEST, self.beams)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW whose rate rises linearly, then falls along half a cosine to zero."""
        return warmup_cosine(self, self.lr, self.weight_decay)

    def _loss(self, batch: PairBatch) -> Tensor:
        logits = self(batch.src, batch.tgt)  # (B, T, V)
        flat = logits.flatten(0, 1), batch.wanted.flatten()
        return F.cross_entropy(*flat, ignore_index=PADDING)

    def _right(self, written: list[Tensor], batch: PairBatch) -> float:
        pairs = zip(written, batch.wanted, strict=True)
        # What is wanted goes on with the end and padding, neither of which is a digit.
        right: list[bool] = [given.tolist() == row[row > END].tolist() for given, row in pairs]
        return sum(right) / len(right)
