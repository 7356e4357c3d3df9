"""The figure of `fastseq study lrn`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from fastseq.recipes.lrn.results import Variant
from fastseq.recipes.shared.figures import MUTED, TRAIN, plain, save


def lrn_figure(variants: Sequence[Variant], path: Path, title: str = "") -> Path:
    """Draw accuracies, each seed a point, and the times of a training step.

    Args:
        variants: What was measured.
        path: PNG file to write.
        title: Line above the panels.

    Returns:
        The path.
    """
    figure = Figure(figsize=(9.6, 3.9), layout="constrained")
    figure.suptitle(title, fontsize=11)
    left, right = figure.subplots(1, 2)
    places = range(len(variants))
    names = [variant.name.replace(" + ", "\n+ ") for variant in variants]
    for place, variant in zip(places, variants, strict=True):
        values = [100.0 * accuracy for accuracy in variant.accuracies]
        left.scatter([place] * len(values), values, color=TRAIN, alpha=0.6, s=28)
        mean = 100.0 * variant.accuracy
        left.plot([place - 0.2, place + 0.2], [mean, mean], color=TRAIN, linewidth=2.0)
        left.annotate(f"{mean:.2f}", (place + 0.24, mean), va="center", fontsize=9)
    left.set(ylabel="test accuracy (%)", xticks=places, xlim=(-0.5, len(variants) - 0.2))
    left.set_xticklabels(names)
    left.set_title("a point for each seed, a line for their mean", fontsize=10)
    bars = (
        (-0.2, "fastseq", TRAIN, [variant.fused_ms for variant in variants]),
        (0.2, "torch.nn", MUTED, [variant.native_ms for variant in variants]),
    )
    for offset, label, color, values in bars:
        drawn = right.bar([place + offset for place in places], values, 0.36, color=color)
        right.bar_label(drawn, fmt="%.1f", fontsize=9, padding=2)
        drawn.set_label(label)
    right.set(ylabel="time of a training step (ms)", xticks=places)
    right.set_xticklabels(names)
    right.margins(y=0.12)
    right.legend(frameon=False, loc="upper left")
    for axes in (left, right):
        plain(axes)
        axes.grid(axis="x", visible=False)
    return save(figure, path)
