"""The picture of the digits that were misread."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from fastseq.recipes.shared.figures import save

MOST_DIGITS = 40


def misread_digits(
    images: Tensor, labels: Tensor, predictions: Tensor, path: Path, total: int
) -> Path:
    """Draw the images that were misread, each with what it is and what was read.

    Args:
        images: Misread images, ``(N, 1, H, W)`` or ``(N, H, W)``, in [0, 1]; N may be 0.
        labels: Their true classes, ``(N,)``.
        predictions: The classes that were read, ``(N,)``.
        path: PNG file to write.
        total: Size of the test set.

    Returns:
        The path.
    """
    count = len(images)
    if count == 0:
        figure = Figure(figsize=(5.0, 1.2), layout="constrained")
        figure.text(0.5, 0.5, f"all {total} test digits were read right", ha="center", va="center")
        return save(figure, path)
    shown = min(count, MOST_DIGITS)
    columns = min(shown, 8)
    rows = math.ceil(shown / columns)
    figure = Figure(figsize=(max(4.6, 1.35 * columns), 1.65 * rows + 0.6), layout="constrained")
    rest = f", the first {shown}" if shown < count else ""
    figure.suptitle(f"{count} of {total} test digits misread{rest}")
    grid = figure.subplots(rows, columns, squeeze=False)
    for place, axes in enumerate(grid.flat):
        axes.set_axis_off()
        if place < shown:
            picture = images[place].reshape(images.shape[-2:])
            axes.imshow(picture.float().numpy(), cmap="gray_r", vmin=0.0, vmax=1.0)
            truth, read = int(labels[place]), int(predictions[place])
            axes.set_title(f"true {truth}, read {read}", fontsize=9)
    return save(figure, path)
