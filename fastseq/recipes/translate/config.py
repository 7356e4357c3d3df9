"""Options of `fastseq train translate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastseq.recipes.shared.config import RunConfig, at_least_one


@dataclass(frozen=True, kw_only=True)
class TranslateConfig(RunConfig):
    """Options of the recipe, beside those of `RunConfig`."""

    cell: Literal["lstm", "gru"] = "lstm"
    """Recurrence of encoder and decoder."""
    attention: bool = True
    """Let the decoder look at all of the encoder's steps."""
    embedding_size: int = 32
    """Features of an embedded token."""
    hidden_size: int = 128
    """Units of each recurrent layer."""
    num_layers: int = 1
    """Recurrent layers of each side, stacked."""
    dropout: float = 0.1
    """Probability of zeroing an embedded feature, or a unit between layers."""
    beams: int = 4
    """Beginnings that beam search keeps in the test."""
    epochs: int = 12
    patience: int = 5
    batch_size: int = 64
    lr: float = 3e-3
    weight_decay: float = 0.01
    out: Path = Path("runs/translate")

    def __post_init__(self) -> None:
        """Refuse what no later part would refuse in words."""
        super().__post_init__()
        at_least_one(self, "beams")
