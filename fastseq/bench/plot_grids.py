"""Figures of the recurrence's two grids: speed-up over B x H, and time against T.

``plot.py`` calls these for the CSV files of ``rnn.py --grid heat`` and ``--grid steps``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from fastseq.bench import rows
from fastseq.bench.rows import Comparison

MODE_NAMES = {"infer": "inference", "forward": "training's forward", "train": "training"}
# Beyond this ratio colours stay as they are, so that small losses are still seen.
HEAT_END = 4.0
MISSING = "#e3e5e8"
COLOURS = {rows.NATIVE: "#6a6f76", rows.OURS: "#2f6fb0"}
OTHERS = ("#c8862d", "#4f9a6b", "#8b6bb1")
MARKERS = {rows.NATIVE: "s", rows.OURS: "o"}


def machine(item: Comparison) -> str:
    """Where the rows come from, in a line."""
    columns = item.columns
    plural = "" if columns["threads"] == "1" else "s"
    return (
        f"{columns['gpu'] or columns['cpu']}, {columns['threads']} thread{plural}, "
        f"torch {columns['torch']}"
    )


def title(items: Sequence[Comparison], words: str) -> str:
    """The head of a figure: what, where, and a warning if others disturbed it."""
    lines = [f"{words}, {items[0].columns['dtype']}", machine(items[0]), rows.warning(items)]
    return "\n".join(filter(None, lines))


def _values(items: Iterable[Comparison], column: str) -> list[str]:
    return list(dict.fromkeys(item.columns[column] for item in items))


def _panels(items: Sequence[Comparison], width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with a row for each mode and a column for each op, and its panels row by row."""
    modes, ops = _values(items, "mode"), _values(items, "op")
    shown = Figure(
        figsize=(0.9 + width * len(ops), 1.3 + height * len(modes)), layout="constrained"
    )
    FigureCanvasAgg(shown)
    axes = shown.subplots(len(modes), len(ops), squeeze=False)
    for ax, (mode, op) in zip(axes.flat, ((m, o) for m in modes for o in ops), strict=True):
        ax.set_title(f"{op} {MODE_NAMES.get(mode, mode)}", fontsize=11)
    return shown, list(axes.flat)


def _cases(items: Sequence[Comparison]) -> list[list[Comparison]]:
    """The comparisons of each panel, in the panels' order."""
    return [
        [i for i in items if i.columns["mode"] == mode and i.columns["op"] == op]
        for mode in _values(items, "mode")
        for op in _values(items, "op")
    ]


def heat_figure(items: Sequence[Comparison]) -> Figure:
    """torch.nn / fastseq in colours, batch upwards and width to the right."""
    shown, axes = _panels(items, 4.0, 3.1)
    batches, widths = (sorted({item.size(name) for item in items}) for name in "BH")
    norm = LogNorm(1 / HEAT_END, HEAT_END)
    colours = colormaps["RdBu"].with_extremes(bad=MISSING)
    for ax, panel in zip(axes, _cases(items), strict=True):
        ratios = {(item.size("B"), item.size("H")): item.ratio for item in panel}
        grid = [[ratios.get((batch, width), math.nan) for width in widths] for batch in batches]
        ax.imshow(grid, cmap=colours, norm=norm, origin="lower", aspect="auto")
        for row, line in enumerate(grid):
            for column, value in enumerate(line):
                _annotate(ax, column, row, value)
        ax.set_xticks(range(len(widths)), [str(width) for width in widths])
        ax.set_yticks(range(len(batches)), [str(batch) for batch in batches])
        ax.set_xlabel("H = I")
        ax.set_ylabel("B")
        ax.tick_params(length=0)
        for side in ax.spines.values():
            side.set_visible(False)
    ticks = [0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4]
    bar = shown.colorbar(
        ScalarMappable(norm, colours), ax=axes, extend="both", fraction=0.03, pad=0.01
    )
    bar.ax.yaxis.set_major_locator(FixedLocator(ticks))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    steps = ", ".join(sorted({item.shape["T"] for item in items}, key=int))
    shown.suptitle(
        title(items, f"Speed-up over torch.nn, T = {steps} (red: fastseq is slower)"), fontsize=12
    )
    return shown


def times(ratio: float) -> str:
    """A ratio as the map shows it."""
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"


def _annotate(ax: Axes, x: int, y: int, ratio: float) -> None:
    """A ratio on its colour; bold where torch.nn is faster."""
    if math.isnan(ratio):
        ax.text(x, y, "–", ha="center", va="center", color="#6a6f76")
        return
    dark = abs(math.log(ratio)) > 0.65 * math.log(HEAT_END)
    ax.text(
        x,
        y,
        times(ratio),
        ha="center",
        va="center",
        fontsize=11,
        fontweight="bold" if ratio < 1 else "normal",
        color="white" if dark else "black",
    )


def steps_figure(items: Sequence[Comparison]) -> Figure:
    """Milliseconds of every provider against T, both in logarithms, and the floor."""
    shown, axes = _panels(items, 4.4, 3.4)
    names = rows.order(name for item in items for name in item.times)
    spare = iter(OTHERS * len(names))
    colours = {name: COLOURS.get(name) or next(spare) for name in names}
    counts = sorted({item.size("T") for item in items})
    for ax, panel in zip(axes, _cases(items), strict=True):
        panel = sorted(panel, key=lambda item: item.size("T"))
        for name in names:
            known = [item for item in panel if name in item.times]
            ax.plot(
                [item.size("T") for item in known],
                [item.times[name] for item in known],
                marker=MARKERS.get(name, "^"),
                markersize=5,
                color=colours[name],
            )
        known = [item for item in panel if item.floor]
        xs, ys = [item.size("T") for item in known], [item.floor or 0 for item in known]
        ax.plot(xs, ys, linestyle="--", linewidth=1, color="black")
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.xaxis.set_major_locator(FixedLocator(counts))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.set_xlabel("T")
        ax.set_ylabel("ms")
        ax.grid(color="#e3e5e8", linewidth=0.7)
        ax.set_axisbelow(True)
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
    handles = [
        Line2D([], [], color=colours[name], marker=MARKERS.get(name, "^"), markersize=5, label=name)
        for name in names
    ]
    if any(item.floor for item in items):
        words = "matrix products at the rate of a large one"
        handles.append(Line2D([], [], color="black", linestyle="--", linewidth=1, label=words))
    shown.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    shape = ", ".join(f"{name} = {size}" for name, size in items[0].shape.items() if name != "T")
    shown.suptitle(title(items, f"Time of a call against T, {shape}"), fontsize=12)
    return shown
