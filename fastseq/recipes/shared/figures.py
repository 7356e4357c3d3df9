"""Figures that a recipe writes beside its log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from fastseq.recipes.shared.history import Epoch

TRAIN, VALIDATION, MUTED = "#4477aa", "#cc6633", "#666666"


@dataclass(frozen=True)
class Measure:
    """A metric as the learning curves draw it.

    Attributes:
        name: Under which the task logs it.
        label: Of the axis, with the unit.
        scale: Drawn is the metric times this.
        best: ``max`` where higher is better, else ``min``.
        logarithmic: Whether the axis is.
        unit: Behind the best value.
    """

    name: str
    label: str
    scale: float = 1.0
    best: Callable[..., Any] = max
    logarithmic: bool = False
    unit: str = ""


ACCURACY = Measure("val_accuracy", "accuracy (%)", scale=100.0, unit=" %")


def learning_curves(
    epochs: Sequence[Epoch],
    path: Path,
    title: str = "",
    measure: Measure = ACCURACY,
    baselines: Mapping[str, float] | None = None,
) -> Path:
    """Draw the losses of every epoch, and beside them a measure of the validation data.

    Args:
        epochs: Rows with ``epoch``, ``train_loss``, ``val_loss`` and the measure's name.
        path: PNG file to write.
        title: Line above the panels.
        measure: What the right panel shows.
        baselines: Values of the measure to compare with, by name.

    Returns:
        The path.
    """
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    if title:
        figure.suptitle(title)
    loss, right = figure.subplots(1, 2)
    curve(loss, epochs, "train_loss", "training", TRAIN)
    curve(loss, epochs, "val_loss", "validation", VALIDATION)
    loss.set(xlabel="epoch", ylabel="cross-entropy (nats)")
    curve(right, epochs, measure.name, "validation", VALIDATION, measure.scale)
    right.set(xlabel="epoch", ylabel=measure.label)
    compared = baselines or {}
    for name, value in compared.items():
        right.axhline(measure.scale * value, color=MUTED, linewidth=0.8, linestyle="--")
        corner = right.get_yaxis_transform()
        right.text(0.97, measure.scale * value, name, ha="right", va="bottom", transform=corner)
    if measure.scale == 100.0:
        # The end of the curve is what one reads; the first epochs may run off the bottom.
        lowest = min([_lowest(epochs, measure), *(100.0 * v - 3.0 for v in compared.values())])
        right.set_ylim(bottom=max(0.0, lowest))
        if lowest > 50.0:
            right.set_ylim(top=100.5)
    rows = [row for row in epochs if measure.name in row]
    if rows:
        best = measure.best(rows, key=lambda row: row[measure.name])
        value = measure.scale * best[measure.name]
        right.axhline(value, color=MUTED, linewidth=0.8, linestyle=":")
        label = f"best {value:.2f}{measure.unit} (epoch {best['epoch']:.0f})"
        right.set_title(label, loc="right", fontsize="medium", color=MUTED)
    logarithmic(loss)
    if measure.logarithmic:
        logarithmic(right)
    for axes in (loss, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        plain(axes)
    loss.legend(frameon=False)
    return save(figure, path)


def curve(
    axes: Axes, epochs: Sequence[Epoch], name: str, label: str, color: str, scale: float = 1.0
) -> None:
    """Draw a metric against the epoch, where an epoch has it."""
    rows = [row for row in epochs if name in row]
    # One epoch is a point, and a line of one point would not show.
    marker = "o" if len(rows) < 3 else ""
    numbers, values = [row["epoch"] for row in rows], [scale * row[name] for row in rows]
    axes.plot(numbers, values, color=color, label=label, marker=marker)


def logarithmic(axes: Axes, which: str = "y") -> None:
    """Make the y (or x) axis of drawn curves logarithmic, its numbers spelled out: 0.5."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.yaxis if which == "y" else axes.xaxis
    low, high = axis.get_view_interval()
    # The more decades there are, the fewer numbers each has room for.
    few = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if which == "y" else (1.0, 2.0, 5.0)
    subs = few if high < 30.0 * low else (1.0, 3.0)
    axis.set_major_locator(LogLocator(subs=subs if high < 1e4 * low else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def plain(axes: Axes) -> None:
    """Give axes a light grid and no box."""
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG, make its folder where needed, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The canvas is named here, so no display and no global pyplot state is needed.
    FigureCanvasAgg(figure).print_figure(path, dpi=130, facecolor="white")
    return path


def _lowest(epochs: Sequence[Epoch], measure: Measure) -> float:
    values = [measure.scale * row[measure.name] for row in epochs if measure.name in row]
    later = values[len(values) // 4 :]
    return min(later, default=0.0) - 3.0
