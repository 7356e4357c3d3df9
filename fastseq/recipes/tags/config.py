"""Options of `fastseq train tags`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fastseq.recipes.shared.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class TagsConfig(RunConfig):
    """Options of the recipe, beside those of `RunConfig`."""

    train: Path | None = None
    """CoNLL file to learn from; if it and the next two are not given, an embedded corpus."""
    val: Path | None = None
    """CoNLL file to choose the best checkpoint by."""
    test: Path | None = None
    """CoNLL file to report on."""
    embedding_size: int = 64
    """Features of an embedded word."""
    hidden_size: int = 64
    """Units of each direction of each layer."""
    num_layers: int = 1
    """Bidirectional layers, stacked."""
    dropout: float = 0.3
    """Probability of zeroing an embedded feature or hidden unit."""
    word_dropout: float = 0.3
    """Share of the training words to hide behind their shapes."""
    epochs: int = 12
    patience: int = 6
    lr: float = 5e-3
    weight_decay: float = 0.01
    out: Path = Path("runs/tags")
