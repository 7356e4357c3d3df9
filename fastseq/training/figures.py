"""Figures that a recipe writes beside its log."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from fastseq.training.history import Epoch

TRAIN, VALIDATION, MUTED = "#4477aa", "#cc6633", "#666666"
MOST_DIGITS = 40


def learning_curves(epochs: Sequence[Epoch], path: Path, title: str = "") -> Path:
    """Draw the losses, and the validation accuracy, of every epoch.

    Args:
        epochs: Rows with ``epoch``, ``train_loss``, ``val_loss`` and ``val_accuracy`` (0 to 1).
        path: PNG file to write.
        title: Line above the panels.

    Returns:
        The path.
    """
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    if title:
        figure.suptitle(title)
    loss, accuracy = figure.subplots(1, 2)
    _curve(loss, epochs, "train_loss", "training", TRAIN)
    _curve(loss, epochs, "val_loss", "validation", VALIDATION)
    loss.set(xlabel="epoch", ylabel="cross-entropy (nats)", yscale="log")
    _curve(accuracy, epochs, "val_accuracy", "validation", VALIDATION, scale=100.0)
    accuracy.set(xlabel="epoch", ylabel="accuracy (%)")
    # The end of the curve is what one reads; the first epochs may run off the bottom.
    accuracy.set_ylim(bottom=max(0.0, _lowest(epochs)), top=100.5)
    best = max((row for row in epochs if "val_accuracy" in row), key=_accuracy, default=None)
    if best is not None:
        accuracy.axhline(100.0 * best["val_accuracy"], color=MUTED, linewidth=0.8, linestyle=":")
        label = f"best {100.0 * best['val_accuracy']:.2f} % (epoch {best['epoch']:.0f})"
        # In a free corner: beside its point it would cross the curve.
        accuracy.text(0.97, 0.06, label, ha="right", color=MUTED, transform=accuracy.transAxes)
    for axes in (loss, accuracy):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    loss.legend(frameon=False)
    return _save(figure, path)


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
        return _save(figure, path)
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
    return _save(figure, path)


def _curve(
    axes: Axes, epochs: Sequence[Epoch], name: str, label: str, color: str, scale: float = 1.0
) -> None:
    rows = [row for row in epochs if name in row]
    # One epoch is a point, and a line of one point would not show.
    marker = "o" if len(rows) < 3 else ""
    numbers, values = [row["epoch"] for row in rows], [scale * row[name] for row in rows]
    axes.plot(numbers, values, color=color, label=label, marker=marker)


def _accuracy(row: Epoch) -> float:
    return row["val_accuracy"]


def _lowest(epochs: Sequence[Epoch]) -> float:
    values = [100.0 * row["val_accuracy"] for row in epochs if "val_accuracy" in row]
    later = values[len(values) // 4 :]
    return min(later, default=0.0) - 3.0


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # The canvas is named here, so no display and no global pyplot state is needed.
    FigureCanvasAgg(figure).print_figure(path, dpi=130, facecolor="white")
    return path
