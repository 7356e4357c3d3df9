"""Print the README's markdown table of measured figures from a CSV file of rows.

python benchmarks/readme_table.py                                 # results/rnn.csv, all of it
python benchmarks/readme_table.py --dtype bfloat16 --mode train
python benchmarks/readme_table.py --summary                       # geometric means alone
python benchmarks/readme_table.py benchmarks/results/memory.csv   # or overhead.csv
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from fastseq.bench import rows
from fastseq.bench.rows import Comparison, Scaling

RESULTS = Path(__file__).parent / "results"
MODE_NAMES = {
    "infer": "Inference",
    "forward": "Training's forward alone",
    "train": "Training (forward + backward)",
}
FLOOR_NOTE = (
    "Floor: the matrix products at the rate of a large one, for shapes with "
    f"B ≥ {rows.FLOOR_BATCH} and H ≥ {rows.FLOOR_HIDDEN}."
)
MEASURED = {"ms": "median of single calls", "MB": "peak memory, median of processes"}


def markdown(lines: Sequence[Sequence[str]], left: int) -> list[str]:
    """A markdown table; the first line is its head, and ``left`` columns are aligned left."""
    rule = ["---" if i < left else "---:" for i in range(len(lines[0]))]
    return ["| " + " | ".join(cells) + " |" for cells in (lines[0], rule, *lines[1:])]


def digits(value: float | None) -> str:
    """A figure of three digits; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def ratio(value: float, worse: str) -> str:
    """A ratio of times or memory; in a word if fastseq's is larger."""
    text = f"{value:.2f}×" if value < 10 else f"{value:.0f}×"
    return text if value >= 1 else f"**{text} ({worse})**"


def shape_table(items: Sequence[Comparison]) -> list[str]:
    """One line a shape: the medians, torch.nn / fastseq, and fastseq / floor where it counts."""
    unit, worse = items[0].unit, rows.WORSE[items[0].unit]
    floors = any(item.floor_ratio for item in items)
    providers = rows.order(name for item in items for name in item.times)
    others = [name for name in providers if name not in (rows.NATIVE, rows.OURS)]
    head = ["cell", ", ".join(items[0].shape), *(f"{name} {unit}" for name in providers)]
    head += [f"{name} / {rows.OURS}" for name in (rows.NATIVE, *others)]
    head += [f"{rows.OURS} / floor"] * floors
    lines = [head]
    for item in items:
        cells = [item.columns["op"], item.label]
        cells += [digits(item.times.get(name)) for name in providers]
        cells += [
            ratio(item.ratio_to(name), worse) if name in item.times else "–"
            for name in (rows.NATIVE, *others)
        ]
        if floors:
            cells.append(f"{item.floor_ratio:.2f}" if item.floor_ratio else "–")
        lines.append(cells)
    return markdown(lines, left=2)


def mean_table(items: Iterable[Comparison]) -> list[str]:
    """One line for each op, mode and layout: geometric means, and the shapes that lose."""
    summaries = rows.summarise(items)
    # Where torch.nn is the only other provider, the two means are one.
    several = any(item.ratio != item.best_ratio for item in summaries)
    best = ["fastest other / fastseq"] * several
    floors = any(item.floors for item in summaries)
    head = ["cell", "dtype", "mode", "shapes", "torch.nn / fastseq", *best]
    lines = [[*head, *["fastseq / floor"] * floors, f"{summaries[0].worse} on"]]
    for item in summaries:
        columns = item.columns
        lines.append(
            [
                columns["op"],
                columns["dtype"],
                columns["mode"],
                f"{item.count} {columns['layout']}",
                ratio(item.ratio, item.worse),
                *[ratio(item.best_ratio, item.worse)] * several,
                *[f"{rows.geometric_mean(item.floors):.2f}" if item.floors else "–"] * floors,
                "; ".join(item.losing) or "none",
            ]
        )
    return markdown(lines, left=3)


def scaling_table(gains: Sequence[Scaling]) -> list[str]:
    """One line for each op, dtype, mode and layout: what the second thread gains."""
    names = rows.order(name for gain in gains for name in gain.speedups)
    lines = [["cell", "dtype", "mode", "shapes", *names]]
    for gain in gains:
        columns = gain.columns
        cells = [columns["op"], columns["dtype"], columns["mode"]]
        cells.append(f"{gain.count} {columns['layout']}")
        cells += [f"{gain.speedups[n]:.2f}×" if n in gain.speedups else "–" for n in names]
        lines.append(cells)
    return markdown(lines, left=3)


def caption(item: Comparison) -> str:
    """Where and with what the figures were measured."""
    columns = item.columns
    plural = "" if columns["threads"] == "1" else "s"
    return (
        f"{columns['gpu'] or columns['cpu']}, {columns['threads']} thread{plural}, "
        f"torch {columns['torch']}, commit {columns['commit']}."
    )


def document(items: Sequence[Comparison], summary: bool) -> str:
    """The tables of every machine and number of threads, each under its caption."""
    groups: dict[tuple[str, ...], list[Comparison]] = {}
    for item in items:
        key = tuple(item.columns[name] for name in rows.MACHINE)
        groups.setdefault(key, []).append(item)
    parts = []
    for group in groups.values():
        # Cases may come from several runs: one caption for each.
        parts.append("\n".join(dict.fromkeys(caption(item) for item in group)))
        if rows.warning(group):
            parts.append(f"**{rows.warning(group)}**")
        if summary:
            parts.append("\n".join(mean_table(group)))
            continue
        for mode, dtype in dict.fromkeys((i.columns["mode"], i.columns["dtype"]) for i in group):
            chosen = [i for i in group if i.columns["mode"] == mode and i.columns["dtype"] == dtype]
            what = MEASURED[chosen[0].unit]
            parts.append(f"{MODE_NAMES.get(mode, mode)}, {dtype}, {what}:")
            parts.append("\n".join(shape_table(chosen)))
            parts.append("Geometric means:")
            parts.append("\n".join(mean_table(chosen)))
    if any(item.floor_ratio for item in items):
        parts.append(FLOOR_NOTE)
    gains = rows.scaling(items)
    if gains:
        parts.append(f"{rows.SCALING_WORDS}:")
        parts.append("\n".join(scaling_table(gains)))
    return "\n\n".join(parts)


def main(
    path: Annotated[Path, typer.Argument(help="CSV file of rows.")] = RESULTS / "rnn.csv",
    op: Annotated[list[str] | None, typer.Option(help="Repeatable; default all.")] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="Repeatable; default all.")] = None,
    mode: Annotated[list[str] | None, typer.Option(help="Repeatable; default all.")] = None,
    summary: Annotated[bool, typer.Option("--summary", help="Geometric means alone.")] = False,
) -> None:
    """Print a markdown table: shape, cell, milliseconds of each provider, ratios."""
    chosen = [
        item
        for item in rows.read(path)
        if (not op or item.columns["op"].lower() in [name.lower() for name in op])
        and (not dtype or item.columns["dtype"] in dtype)
        and (not mode or item.columns["mode"] in mode)
    ]
    if not chosen:
        typer.echo(f"{path} has no such case.", err=True)
        raise typer.Exit(1)
    typer.echo(document(chosen, summary))


if __name__ == "__main__":
    typer.run(main)
