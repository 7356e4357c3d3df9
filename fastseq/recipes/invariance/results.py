"""What `fastseq study invariance` measures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Response:
    """What one transformation does.

    Attributes:
        kind: ``"translation"``, ``"scaling"`` or ``"rotation"``.
        strengths: Pixels, factors or degrees.
        distances: Of the features of each layer to those of the untouched image, by layer; 1 is
            the mean distance between two different images.
        accuracies: Share of the transformed images that are read right.
    """

    kind: str
    strengths: list[float]
    distances: dict[str, list[float]]
    accuracies: list[float]


@dataclass(frozen=True)
class InvarianceResult:
    """What `study_invariance` leaves behind.

    Attributes:
        accuracy: Of the network on all test images, untouched.
        baseline: Share of the most frequent class of the test images.
        responses: One for each transformation.
        figure: Path of the plot.
    """

    accuracy: float
    baseline: float
    responses: list[Response]
    figure: Path
