"""Options of `fastseq train transfer`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastseq.recipes.shared.config import RunConfig, at_least_one, not_negative


@dataclass(frozen=True, kw_only=True)
class TransferConfig(RunConfig):
    """Options of the recipe, beside those of `RunConfig`."""

    data: Literal["digits", "cifar10"] = "digits"
    """digits comes with scikit-learn; cifar10 is for mobilenet_v2."""
    data_dir: Path = Path("data")
    """Folder that holds cifar-10-batches-py."""
    download: bool = False
    """Fetch CIFAR-10 if missing."""
    labels: str = "1,3,10,50"
    """Labelled images of each new class, several runs."""
    target_epochs: int = 12
    """Passes over the new task's images."""
    width: int = 16
    """Channels of the small network's first block."""
    pretrained: bool = False
    """Begin mobilenet_v2 with torchvision's ImageNet weights."""
    max_shift: float = 1.5
    """Training images move by up to this many pixels."""
    epochs: int = 15
    """Passes over the old task's images, at most."""
    lr: float = 1e-3
    """Peak rate of copied layers; new ones learn 10, their biases 20 times as fast."""
    weight_decay: float = 0.01
    out: Path = Path("runs/transfer")

    def __post_init__(self) -> None:
        """Refuse what no later part would refuse in words."""
        super().__post_init__()
        at_least_one(self, "target_epochs", "width")
        not_negative(self, "max_shift")
        if not self.counts or min(self.counts) < 1:
            raise ValueError(f"labels is {self.labels!r}, expected numbers such as 1,3,10")

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers in ``labels``, ascending."""
        parts = [part.strip() for part in self.labels.split(",")]
        if not all(part.isdecimal() for part in parts):
            return ()
        return tuple(sorted({int(part) for part in parts}))
