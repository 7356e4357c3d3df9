"""The figure of `fastseq train tags`: F1 by kind of name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from fastseq.recipes.shared.figures import MUTED, TRAIN, plain, save
from fastseq.recipes.tags.metrics import Score


def entity_bars(scores: Mapping[str, Mapping[str, Score]], path: Path) -> Path:
    """Draw the F1 of every kind of entity, for a network and what it is compared with.

    Args:
        scores: For each method, by name, the scores of each kind; kinds are the first method's.
        path: PNG file to write.

    Returns:
        The path.
    """
    kinds = list(next(iter(scores.values())))
    figure = Figure(figsize=(1.6 + 1.3 * len(kinds), 3.8), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(scores)
    for number, (method, table) in enumerate(scores.items()):
        places = [place + (number - (len(scores) - 1) / 2) * width for place in range(len(kinds))]
        values = [100.0 * table[kind].f1 if kind in table else 0.0 for kind in kinds]
        color = (TRAIN, MUTED)[number % 2]
        bars = axes.bar(places, values, 0.92 * width, label=method, color=color)
        axes.bar_label(bars, fmt="%.1f", fontsize=8)
    axes.set_xticks(range(len(kinds)), kinds)
    axes.set(ylabel="F1 (%)", ylim=(0.0, 108.0), yticks=range(0, 101, 20))
    plain(axes)
    axes.grid(visible=False, axis="x")
    # Above the axes: inside it would lie on the bars.
    figure.legend(loc="outside upper center", ncols=len(scores), frameon=False)
    return save(figure, path)
