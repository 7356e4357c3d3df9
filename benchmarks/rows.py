"""Rows of ``benchmarks/results/*.csv``: their columns, reading, writing, ratios and the text table.

Needs no torch, so that the plotter and the README's table start at once. One row is one provider in
one case; the rows of a case that were measured in one run make a ``Comparison``.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

NATIVE = "torch.nn"
OURS = "fastseq"
LIMIT = "copy"  # of the input: what no kernel that reads and writes as much can beat; no rival

RUN = ("run", "commit", "torch", "device", "cpu", "gpu", "threads")
CASE = ("op", "dtype", "mode", "layout")
MEASURED = (
    "provider",
    "capability",
    "rounds",
    "calls",
    "contention",
    "median_ms",
    "p20_ms",
    "p80_ms",
)
# A case measured again on the same machine takes the place of the older measurement.
MACHINE = ("device", "cpu", "gpu", "threads")

# Above this ratio of 80th to 20th percentile, a measurement is marked as noisy; above so many cores
# lacking, as contended.
NOISY = 2.0
CONTENDED = 0.15

Row = dict[str, str]


@dataclass(frozen=True)
class Comparison:
    """The providers of one case, measured in turn in one run.

    Attributes:
        columns: the columns that the rows share: run, machine and case.
        shape: the shape columns, such as T, B, I, H.
        times: median milliseconds by provider.
        spread: the largest 80th over 20th percentile of a provider.
        contention: cores that other processes kept from the benchmark.
    """

    columns: Row
    shape: Row
    times: dict[str, float]
    spread: float
    contention: float

    @property
    def label(self) -> str:
        """The shape in words: ``28, 64, 28, 128``, with the layout if it is not dense."""
        sizes = ", ".join(self.shape.values())
        layout = self.columns["layout"]
        return sizes if layout == "dense" else f"{sizes} {layout}"

    @property
    def ratio(self) -> float:
        """Time of torch.nn over time of fastseq: above 1, fastseq is faster."""
        return self.ratio_to(NATIVE)

    @property
    def best_ratio(self) -> float:
        """Time of the fastest other provider over time of fastseq."""
        return min(self.ratio_to(name) for name in self.times if name not in (OURS, LIMIT))

    @property
    def loses(self) -> bool:
        """Whether any other provider is faster."""
        return self.best_ratio < 1

    def ratio_to(self, provider: str) -> float:
        """Time of a provider over time of fastseq."""
        return self.times[provider] / self.times[OURS]


@dataclass(frozen=True)
class Summary:
    """Geometric means over the shapes of one op, dtype, mode and layout."""

    columns: Row
    count: int
    ratio: float
    best_ratio: float
    losing: tuple[str, ...]


def geometric_mean(values: Sequence[float]) -> float:
    """The n-th root of the product of n values."""
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def append(path: Path, rows: Sequence[Row]) -> None:
    """Add rows to a CSV file, which is made, with its header, where there is none.

    Raises:
        ValueError: the file has other columns.
    """
    names = list(rows[0])
    fresh = not path.exists() or path.stat().st_size == 0
    if not fresh:
        with path.open(newline="") as file:
            header = next(csv.reader(file))
        if header != names:
            raise ValueError(f"{path} has other columns; give --overwrite to start it again.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerows(rows)


def read(path: Path) -> list[Comparison]:
    """The newest comparison of every case in a CSV file, in the file's order."""
    with path.open(newline="") as file:
        return compare(csv.DictReader(file))


def compare(rows: Iterable[Row]) -> list[Comparison]:
    """Put the rows of each case side by side; of a case measured twice, the newest run counts.

    A case without torch.nn or without fastseq has no ratio and is left out.
    """
    cases: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        shape = _shape(row)
        key = tuple(row[name] for name in MACHINE + CASE) + tuple(shape.values())
        found = cases.setdefault(key, [])
        if found and found[0]["run"] < row["run"]:
            found.clear()
        if not found or found[0]["run"] == row["run"]:
            found.append(row)
    return [
        Comparison(
            columns={name: group[0][name] for name in RUN + CASE},
            shape=_shape(group[0]),
            times={row["provider"]: float(row["median_ms"]) for row in group},
            spread=max(float(row["p80_ms"]) / float(row["p20_ms"]) for row in group),
            contention=max(float(row["contention"]) for row in group),
        )
        for group in cases.values()
        if {NATIVE, OURS} <= {row["provider"] for row in group}
    ]


def _shape(row: Row) -> Row:
    return {name: text for name, text in row.items() if name not in RUN + CASE + MEASURED}


def summarise(comparisons: Iterable[Comparison]) -> list[Summary]:
    """Geometric means of the ratios by machine, op, dtype, mode and layout."""
    groups: dict[tuple[str, ...], list[Comparison]] = {}
    for item in comparisons:
        key = tuple(item.columns[name] for name in MACHINE + CASE)
        groups.setdefault(key, []).append(item)
    return [
        Summary(
            columns=group[0].columns,
            count=len(group),
            ratio=geometric_mean([item.ratio for item in group]),
            best_ratio=geometric_mean([item.best_ratio for item in group]),
            losing=tuple(item.label for item in group if item.loses),
        )
        for group in groups.values()
    ]


def order(names: Iterable[str]) -> list[str]:
    """Providers as the tables show them: torch.nn first, fastseq last."""
    return sorted(set(names), key=lambda name: (name == OURS, name != NATIVE, name))


def header(providers: Sequence[str]) -> str:
    """The head of the text table."""
    columns = "".join(f"{name:>15}" for name in order(providers))
    return f"{'op':<6}{'dtype':<10}{'mode':<7}{'thr':<5}{'shape':<28}{columns}{'ratio':>9}{'':>3}"


def line(item: Comparison, providers: Sequence[str]) -> str:
    """One case of the text table: medians in ms, and torch.nn / fastseq.

    A case where another provider is faster, or the times scatter, ends in words that say so.
    """
    columns = item.columns
    times = "".join(
        f"{item.times[name]:>15.3f}" if name in item.times else f"{'-':>15}"
        for name in order(providers)
    )
    return (
        f"{columns['op']:<6}{columns['dtype']:<10}{columns['mode']:<7}{columns['threads']:<5}"
        f"{item.label:<28}{times}{item.ratio:>8.2f}x   {mark(item)}"
    ).rstrip()


def mark(item: Comparison) -> str:
    """Plain words for a case that fastseq loses or that is not to be trusted, or nothing."""
    words = []
    if item.loses:
        rivals = {name: time for name, time in item.times.items() if name != LIMIT}
        winner = min(rivals, key=lambda name: rivals[name])
        words.append(f"SLOWER than {winner} ({item.best_ratio:.2f}x)")
    if item.spread > NOISY:
        words.append("noisy")
    if item.contention > CONTENDED:
        words.append(f"contended ({item.contention:.1f} cores)")
    return ", ".join(words)


def warning(comparisons: Sequence[Comparison]) -> str:
    """A sentence if other processes took cores from the benchmark, or nothing."""
    count = sum(item.contention > CONTENDED for item in comparisons)
    if not count:
        return ""
    return (
        f"{count} of {len(comparisons)} cases ran while other processes held cores that they "
        "needed: measure again on a quiet machine."
    )


def summary_lines(comparisons: Sequence[Comparison]) -> list[str]:
    """The end of the text table: geometric means, and every losing shape by name."""
    several = any(len(item.times) > 2 for item in comparisons)
    lines = [
        "",
        "geometric mean of torch.nn / fastseq" + several * ", and of fastest other / fastseq",
    ]
    for item in summarise(comparisons):
        columns = item.columns
        plural = "" if item.count == 1 else "s"
        text = (
            f"{columns['op']:<6}{columns['dtype']:<10}{columns['mode']:<7}{columns['threads']:<5}"
            f"{columns['layout']:<8}{item.count:>3} shape{plural:<2}{item.ratio:>8.2f}x"
        )
        if several:
            text += f"{item.best_ratio:>8.2f}x"
        if item.losing:
            text += f"   SLOWER on {len(item.losing)}: {'; '.join(item.losing)}"
        lines.append(text)
    return [*lines, *filter(None, [warning(comparisons)])]
