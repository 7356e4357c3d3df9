"""Options that every recipe has, and the checks that recipes share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Options of every recipe; the command line's have the same names.

    Attributes:
        native: Train the same model with torch.nn's layers, to compare.
        epochs: Passes over the training data at most.
        patience: Epochs without a better validation loss before stopping early.
        batch_size: Samples in a batch, on each device.
        lr: Peak learning rate.
        weight_decay: AdamW's.
        clip: Norm to which gradients are clipped, against explosion; 0 for not at all.
        seed: Of all that is random: parameters, order, noise.
        accelerator: Handed to Lightning, as are the next three.
        devices: Number or list of devices.
        strategy: For instance ``"ddp"``.
        precision: For instance ``"bf16-mixed"``.
        resume: Checkpoint, or folder of a run, to go on from.
        out: Folder of the runs; each makes a ``version_N`` in it.
    """

    native: bool = False
    epochs: int | None = None
    patience: int = 15
    batch_size: int = 32
    lr: float = 2e-3
    weight_decay: float = 0.1
    clip: float = 1.0
    seed: int = 0
    accelerator: str = "auto"
    devices: str = "1"
    strategy: str = "auto"
    precision: str = "32-true"
    resume: Path | None = None
    out: Path = Path("runs")

    def __post_init__(self) -> None:
        """Refuse what no later part would refuse in words."""
        at_least_one(self, "epochs", "patience", "batch_size")
        positive(self, "lr")
        not_negative(self, "weight_decay", "clip")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}, expected 0 to {2**32 - 1}")


def at_least_one(config: object, *names: str) -> None:
    """Refuse counts below one; ``None`` stands for a default and passes."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1")


def positive(config: object, *names: str) -> None:
    """Refuse numbers that are not above zero, NaN among them."""
    for name in names:
        value = getattr(config, name)
        if not (value > 0.0 and math.isfinite(value)):
            raise ValueError(f"{name} is {value}, expected a positive number such as 0.003")


def not_negative(config: object, *names: str) -> None:
    """Refuse numbers below zero, and NaN."""
    for name in names:
        value = getattr(config, name)
        if not (value >= 0.0 and math.isfinite(value)):
            raise ValueError(f"{name} is {value}, expected 0 or more")
