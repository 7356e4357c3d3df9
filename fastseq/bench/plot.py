"""Draw the rows of a CSV file: the speed-up over torch.nn by shape, a panel for each op and mode.

One PNG for each machine, dtype and number of threads in the CSV file. A file whose name ends in
``_heat`` or ``_steps`` is drawn as a map over B x H or as lines over T, if not told otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from fastseq.bench import plot_grids, rows
from fastseq.bench.rows import Comparison

FASTER, SLOWER = "#2f6fb0", "#c8502d"
OTHERS = ("#b9bec5", "#dcc98f", "#9cc3a5")
QUANTITY = {"ms": "Speed-up over torch.nn", "MB": "Peak memory of torch.nn over fastseq's"}
DECADES = (0.001, 0.01, 0.1, 1, 10, 100, 1000, 10000)
TICKS = tuple(sorted(step * decade for decade in DECADES for step in (1, 2, 5)))
MODE_NAMES = plot_grids.MODE_NAMES


class Kind(str, Enum):
    """Bars by shape, a heat map over B x H, or lines over T."""

    bars = "bars"
    heat = "heat"
    steps = "steps"


def figure(comparisons: Sequence[Comparison]) -> Figure:
    """The panels of one machine, dtype and number of threads: a row an op, a column a mode."""
    ops = list(dict.fromkeys(item.columns["op"] for item in comparisons))
    modes = list(dict.fromkeys(item.columns["mode"] for item in comparisons))
    names = rows.order(name for item in comparisons for name in item.times)
    names = [name for name in names if name != rows.NATIVE]
    shown = Figure(
        figsize=(1.5 + 5.2 * len(modes), 1.5 + sum(_height(comparisons, op) for op in ops)),
        layout="constrained",
    )
    FigureCanvasAgg(shown)
    axes = shown.subplots(
        len(ops),
        len(modes),
        squeeze=False,
        sharex=True,
        gridspec_kw={"height_ratios": [_height(comparisons, op) for op in ops]},
    )
    low, high = _limits(comparisons)
    marks = TICKS if high / low < 500 else DECADES
    ticks = [tick for tick in marks if low <= tick <= high]
    for i, op in enumerate(ops):
        for j, mode in enumerate(modes):
            panel = [c for c in comparisons if c.columns["op"] == op and c.columns["mode"] == mode]
            ax = axes[i][j]
            _bars(ax, panel, names)
            ax.set_xscale("log")
            ax.set_xlim(low, high)
            ax.xaxis.set_major_locator(FixedLocator(ticks))
            ax.xaxis.set_minor_locator(NullLocator())
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
            ax.tick_params(axis="x", labelbottom=True)
            ax.set_title(f"{op} {MODE_NAMES.get(mode, mode)}{_mean(panel)}", fontsize=10)
            if j == 0:
                ax.set_ylabel(", ".join(comparisons[0].shape))
            if i == len(ops) - 1:
                ax.set_xlabel(f"{QUANTITY[comparisons[0].unit]} (log scale)")
    _legend(shown, names, rows.WORSE[comparisons[0].unit])
    shown.suptitle(plot_grids.title(comparisons, QUANTITY[comparisons[0].unit]), fontsize=11)
    return shown


def _height(comparisons: Sequence[Comparison], op: str) -> float:
    """Inches of an op's panels: by the number of shapes."""
    labels = {item.label for item in comparisons if item.columns["op"] == op}
    return 0.8 + 0.31 * len(labels)


def _limits(comparisons: Sequence[Comparison]) -> tuple[float, float]:
    """Ends of the speed-up axis: around every bar and its label, and at least 0.5 to 2."""
    speedups = [
        item.times[rows.NATIVE] / time for item in comparisons for time in item.times.values()
    ]
    low, high = min(0.7, *speedups), max(1.4, *speedups)
    room = (high / low) ** 0.13
    return low / room, high * room


def _mean(panel: Sequence[Comparison]) -> str:
    """The geometric mean over the shapes that are not packed, for a title."""
    packed = any(item.columns["layout"] == "packed" for item in panel)
    plain = [item.ratio for item in panel if item.columns["layout"] != "packed"]
    note = " (dense)" if packed else ""
    return f", geometric mean {rows.geometric_mean(plain):.2f}×{note}" if plain else ""


def _bars(ax: Axes, panel: Sequence[Comparison], names: Sequence[str]) -> None:
    """Bars from the line at 1 to each provider's speed-up, fastseq's below the others'."""
    present = [name for name in names if any(name in item.times for item in panel)]
    thickness = 0.8 / max(len(present), 1)
    for row, item in enumerate(panel):
        for k, name in enumerate(present):
            if name not in item.times:
                continue
            speedup = item.times[rows.NATIVE] / item.times[name]
            y = row - 0.4 + (k + 0.5) * thickness
            ours = name == rows.OURS
            colour = (SLOWER if item.loses else FASTER) if ours else OTHERS[names.index(name)]
            ax.barh(y, speedup - 1, left=1, height=0.9 * thickness, color=colour)
            ax.annotate(
                f"{speedup:.2f}×" if speedup < 10 else f"{speedup:.0f}×",
                (speedup, y),
                xytext=(3 if speedup >= 1 else -3, 0),
                textcoords="offset points",
                ha="left" if speedup >= 1 else "right",
                va="center",
                fontsize=7.5 if len(present) > 1 else 8,
                color="black" if ours else "#6a6f76",
            )
    ax.axvline(1, color="black", linewidth=1)
    ax.set_yticks(range(len(panel)), [item.label for item in panel], fontsize=8)
    ax.set_ylim(len(panel) - 0.4, -0.6)
    ax.grid(axis="x", color="#e3e5e8", linewidth=0.7)
    ax.set_axisbelow(True)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.tick_params(axis="y", length=0)


def _legend(shown: Figure, names: Sequence[str], worse: str) -> None:
    others = [name for name in names if name != rows.OURS]
    handles = [
        Patch(color=FASTER, label="fastseq"),
        Patch(color=SLOWER, label=f"fastseq, {worse} than another provider"),
        *(Patch(color=OTHERS[names.index(name)], label=name) for name in others),
    ]
    shown.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)


def kind_of(path: Path) -> Kind:
    """What a CSV file is drawn as, by its name."""
    ending = path.stem.rpartition("_")[2]
    return Kind(ending) if ending in set(Kind) else Kind.bars


def draw(path: Path, folder: Path, kind: Kind) -> list[Path]:
    """Write the figures of a CSV file and return their paths.

    Raises:
        ValueError: the file has no case with both torch.nn and fastseq.
    """
    groups: dict[tuple[str, ...], list[Comparison]] = {}
    for item in rows.read(path):
        key = tuple(item.columns[name] for name in ("cpu", "gpu", "device", "dtype", "threads"))
        groups.setdefault(key, []).append(item)
    if not groups:
        raise ValueError(f"{path} has no case with both torch.nn and fastseq.")
    drawn = {
        Kind.bars: figure,
        Kind.heat: plot_grids.heat_figure,
        Kind.steps: plot_grids.steps_figure,
    }[kind]
    several = len({key[:2] for key in groups}) > 1
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for (cpu, gpu, device, dtype, threads), comparisons in groups.items():
        machine = "_" + re.sub(r"\W+", "-", (gpu or cpu).lower()).strip("-") if several else ""
        target = folder / f"{path.stem}_{device}{machine}_{dtype}_{threads}threads.png"
        drawn(comparisons).savefig(target, dpi=130)
        written.append(target)
    return written
