"""Options of `fastseq tune rows`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastseq.recipes.shared.config import Cell, at_least_one


@dataclass(frozen=True, kw_only=True)
class TuneRowsConfig:
    """Options of the search."""

    trials: int = 30
    """Trainings, those of earlier calls included; the first takes the recipe's defaults."""
    epochs: int = 10
    """Passes over the training images, each."""
    cell: Cell | None = None
    """Recurrence; if not given, searched too."""
    data: Literal["digits", "mnist"] = "digits"
    """Data set of handwritten digits."""
    data_dir: Path = Path("data")
    """Folder that holds MNIST/raw."""
    download: bool = False
    """Fetch MNIST if missing."""
    native: bool = False
    """Use torch.nn's layers."""
    seed: int = 0
    """Seed of the search and of every training."""
    accelerator: str = "auto"
    """Lightning's: cpu, gpu, auto."""
    precision: str = "32-true"
    """Lightning's: 32-true, bf16-mixed, ..."""
    out: Path = Path("runs/tune")
    """Folder of the search; one that is there goes on."""

    def __post_init__(self) -> None:
        """Refuse what no later part would refuse in words."""
        at_least_one(self, "trials", "epochs")
