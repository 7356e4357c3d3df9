"""Options of `fastseq study lrn`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fastseq.recipes.shared.config import TrainingConfig, at_least_one


@dataclass(frozen=True, kw_only=True)
class LrnConfig(TrainingConfig):
    """Options of the study, beside those of `TrainingConfig`."""

    seeds: int = 3
    """Trainings of each network, with seeds from --seed on."""
    width: int = 32
    """Maps of the first convolution."""
    repeats: int = 15
    """Steps that are timed of each network."""
    epochs: int = 6
    weight_decay: float = 0.01
    out: Path = Path("runs/lrn")
    """Folder of the figure, of the numbers behind it and of the trainings' logs."""

    def __post_init__(self) -> None:
        """Refuse what no later part would refuse in words."""
        super().__post_init__()
        at_least_one(self, "seeds", "width", "repeats")
