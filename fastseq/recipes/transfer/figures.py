"""The picture of the transfer: accuracy against labels, a line for each way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from fastseq.recipes.shared.figures import MUTED, plain, save

STYLES = {
    "scratch": ("from scratch", "#888888", "s"),
    "frozen": ("frozen features, new head", "#4477aa", "o"),
    "norms": ("norm layers and new head", "#228833", "^"),
    "fine-tuned": ("everything fine-tuned", "#cc6633", "D"),
}


def transfer_accuracy(
    accuracy: Mapping[str, Mapping[int, float]], baseline: float, path: Path, title: str = ""
) -> Path:
    """Draw test accuracy against labelled images of each class.

    Args:
        accuracy: 0 to 1, by way and labels.
        baseline: Accuracy of the most frequent class.
        path: PNG file to write.
        title: Line above the picture.

    Returns:
        The path.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=11)
    counts = sorted({count for row in accuracy.values() for count in row})
    for way, row in accuracy.items():
        label, color, marker = STYLES[way]
        values = [100.0 * row[count] for count in counts]
        axes.plot(counts, values, color=color, marker=marker, markersize=5, label=label)
    axes.axhline(100.0 * baseline, color=MUTED, linewidth=0.9, linestyle=":")
    corner = axes.get_yaxis_transform()
    axes.text(0.99, 100.0 * baseline + 0.8, "most frequent class", ha="right", transform=corner)
    axes.set(xscale="log", xlabel="labelled images of each class", ylabel="test accuracy (%)")
    axes.xaxis.set_major_locator(FixedLocator(counts))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.set_ylim(bottom=max(0.0, 100.0 * baseline - 6.0), top=101.0)
    plain(axes)
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 0.12))
    return save(figure, path)
