"""Options of `fastseq study invariance`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fastseq.recipes.shared.config import TrainingConfig, at_least_one


@dataclass(frozen=True, kw_only=True)
class InvarianceConfig(TrainingConfig):
    """Options of the study, beside those of `TrainingConfig`."""

    width: int = 32
    """Maps of the first convolution."""
    images: int = 200
    """Test images that are transformed."""
    epochs: int = 10
    weight_decay: float = 0.01
    out: Path = Path("runs/invariance")
    """Folder of the figure, of the numbers behind it and of the training's log."""

    def __post_init__(self) -> None:
        """Refuse what no later part would refuse in words."""
        super().__post_init__()
        at_least_one(self, "width")
        if self.images < 2:
            raise ValueError(f"images is {self.images}, expected at least 2")
