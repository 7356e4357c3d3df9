"""Options of `fastseq train rows`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastseq.recipes.shared.config import Cell, RunConfig


@dataclass(frozen=True, kw_only=True)
class RowsConfig(RunConfig):
    """Options of the recipe, beside those of `RunConfig`."""

    cell: Cell = "lstm"
    """Recurrence."""
    data: Literal["digits", "mnist"] = "digits"
    """digits comes with scikit-learn; mnist is torchvision's."""
    data_dir: Path = Path("data")
    """Folder that holds MNIST/raw."""
    download: bool = False
    """Fetch MNIST if missing."""
    epochs: int | None = None
    """Passes over the training images, at most; if not given 60, of mnist 10."""
    hidden_size: int = 128
    """Units of each recurrent layer."""
    num_layers: int = 2
    """Recurrent layers, stacked."""
    dropout: float = 0.0
    """Probability of zeroing a unit, between recurrent layers."""
    max_shift: float = 1.5
    """Training images move by up to this many pixels."""
    out: Path = Path("runs/rows")
