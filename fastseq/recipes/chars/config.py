"""Options of `fastseq train chars`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fastseq.recipes.shared.config import Cell, RunConfig, at_least_one, not_negative


@dataclass(frozen=True, kw_only=True)
class CharsConfig(RunConfig):
    """Options of the recipe, beside those of `RunConfig`."""

    cell: Cell = "lstm"
    """Recurrence."""
    text: Path | None = None
    """UTF-8 file to learn from; if not given, the documentation that comes with Python."""
    window: int = 128
    """Characters of a training window, through which gradients flow."""
    embedding_size: int = 64
    """Features of an embedded character."""
    hidden_size: int = 256
    """Units of each recurrent layer."""
    num_layers: int = 1
    """Recurrent layers, stacked."""
    dropout: float = 0.0
    """Probability of zeroing a unit, between recurrent layers."""
    prompt: str = "The "
    """What the sample begins with."""
    sample: int = 400
    """Characters to write at the end."""
    temperature: float = 0.7
    """Of the sample: below 1 safer, above 1 bolder, 0 always the likeliest."""
    epochs: int = 12
    patience: int = 3
    batch_size: int = 16
    lr: float = 5e-3
    weight_decay: float = 0.01
    out: Path = Path("runs/chars")

    def __post_init__(self) -> None:
        """Refuse what no later part would refuse in words."""
        super().__post_init__()
        at_least_one(self, "sample")
        not_negative(self, "temperature")
        if not self.prompt:
            raise ValueError("prompt is empty, expected at least one character to begin with")
