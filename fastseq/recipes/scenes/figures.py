"""The picture of a segmentation: what was shown, what it is, and what was seen in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from fastseq.recipes.scenes.datasets import IGNORE
from fastseq.recipes.shared.figures import save

Example = tuple[Tensor, Tensor, Tensor]
LABELS = ("image", "truth", "prediction")
BACKGROUND, IGNORED = (0.93, 0.93, 0.93), (1.0, 1.0, 1.0)


def segmentations(
    examples: Sequence[Example], classes: Sequence[str], path: Path, title: str = ""
) -> Path:
    """Draw images, their true classes and the predicted ones, one below the other.

    Args:
        examples: Image ``(3, H, W)`` in [0, 1], truth ``(H, W)`` and prediction ``(H, W)``.
        classes: Names of the classes.
        path: PNG file to write.
        title: Line above the pictures.

    Returns:
        The path.
    """
    palette = colours(classes)
    figure = Figure(figsize=(1.6 + 1.5 * len(examples), 5.6), layout="constrained")
    if title:
        figure.suptitle(title)
    grid = figure.subplots(len(LABELS), len(examples), squeeze=False)
    shown: set[int] = set()
    for column, (image, truth, read) in enumerate(examples):
        pictures = [image.permute(1, 2, 0).float().numpy(), *(palette[m] for m in (truth, read))]
        shown |= set(truth.unique().tolist()) | set(read.unique().tolist())
        for row, (picture, label) in enumerate(zip(pictures, LABELS, strict=True)):
            axes = grid[row, column]
            axes.imshow(picture, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if column == 0:
                axes.set_ylabel(label, fontsize=11)
    patches = [
        Patch(facecolor=palette[place], edgecolor="#888888", linewidth=0.5, label=classes[place])
        for place in sorted(shown - {IGNORE})
    ]
    # As many to a line as the pictures are wide.
    columns = max(2, min(len(patches), len(examples)))
    figure.legend(handles=patches, loc="outside lower center", ncols=columns, frameon=False)
    return save(figure, path)


def colours(classes: Sequence[str]) -> np.ndarray:
    """Return a colour for each class, and white for pixels that count for nothing."""
    palette = np.tile(np.array(IGNORED), (IGNORE + 1, 1))  # (256, 3)
    objects = [place for place, name in enumerate(classes) if name != "background"]
    # Ten colours that one tells apart; where there are more classes, as many hues.
    names = "tab10" if len(objects) <= 10 else "hsv"
    chosen = matplotlib.colormaps[names].resampled(10 if names == "tab10" else len(objects) + 1)
    for rank, place in enumerate(objects):
        palette[place] = chosen(rank)[:3]
    for place, name in enumerate(classes):
        if name == "background":
            palette[place] = BACKGROUND
    return palette
