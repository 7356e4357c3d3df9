"""Options of `fastseq study gradients`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from fastseq.recipes.shared.config import at_least_one, check_seed, positive


@dataclass(frozen=True, kw_only=True)
class GradientsConfig:
    """Options of the study."""

    steps: int = 60
    """T, the length of the sequences."""
    input_size: int = 16
    """Features of x_t."""
    hidden_size: int = 64
    """Units."""
    batch: int = 32
    """Random sequences that norms are averaged over."""
    open_bias: float = 2.0
    """Opens the LSTM's forget gate and the GRU's update gate, which begin half closed."""
    gain: float = 3.0
    """Recurrent weights are multiplied by this to make gradients explode."""
    updates: int = 100
    """Steps of the exploding RNN's training, with clipping and without."""
    lr: float = 0.1
    """Learning rate of that training, by plain SGD."""
    clip: float = 1.0
    """Norm to which gradients are clipped."""
    native: bool = False
    """Measure torch.nn's layers instead."""
    seed: int = 0
    """Seed of weights and sequences."""
    out: Path = Path("runs/gradients")
    """Folder of the figure and of the numbers behind it."""

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        at_least_one(self, "input_size", "hidden_size", "batch", "updates")
        if self.steps < 2:
            raise ValueError(f"steps is {self.steps}, expected at least 2")
        positive(self, "gain", "lr", "clip")
        if not math.isfinite(self.open_bias):
            raise ValueError(f"open_bias is {self.open_bias}, expected a number such as 2")
        check_seed(self)
