"""Figures of the recipes on sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from fastseq.training.entity_f1 import Score
from fastseq.training.figures import MUTED, TRAIN, plain, save


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


def attention_map(
    weights: Tensor, read: Sequence[str], written: Sequence[str], path: Path, title: str = ""
) -> Path:
    """Draw where a decoder looked as it wrote each token.

    Args:
        weights: ``(T, S)``, rows that sum to 1.
        read: The S tokens of the encoder.
        written: The T tokens of the decoder.
        path: PNG file to write.
        title: Line above.

    Returns:
        The path.
    """
    figure = Figure(
        figsize=(2.4 + 0.45 * len(read), 1.8 + 0.38 * len(written)), layout="constrained"
    )
    axes = figure.subplots()
    image = axes.imshow(weights.float().numpy(), cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    axes.set_xticks(range(len(read)), read, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(written)), written)
    axes.set(xlabel="read", ylabel="written")
    if title:
        figure.suptitle(title)
    figure.colorbar(image, ax=axes, label="attention weight")
    return save(figure, path)
