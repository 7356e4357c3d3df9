"""What `fastseq study lrn` measures."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Variant:
    """What was measured of one network.

    Attributes:
        name: Of `VARIANTS`.
        accuracies: On the test images, of each seed, 0 to 1.
        fused_ms: Median time of a training step with fastseq's layers.
        native_ms: The same with torch.nn's.
    """

    name: str
    accuracies: list[float]
    fused_ms: float
    native_ms: float

    @property
    def accuracy(self) -> float:
        """Mean over the seeds."""
        return statistics.mean(self.accuracies)


@dataclass(frozen=True)
class LrnResult:
    """What `study_lrn` leaves behind.

    Attributes:
        variants: The four networks.
        baseline: Share of the most frequent class of the test images.
        figure: Path of the plot.
    """

    variants: list[Variant]
    baseline: float
    figure: Path
