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
FROZEN = "fastseq.freeze"  # the same layer, its weights packed before
LIMIT = "copy"  # of the input: what no kernel that reads and writes as much can beat; no rival
EMPTY = "empty Function"  # a node of autograd as large that computes nothing; no rival either
LIMITS = (LIMIT, EMPTY)

RUN = ("run", "commit", "torch", "device", "cpu", "gpu", "threads")
CASE = ("op", "dtype", "mode", "layout")
# Of the recurrence alone: operations of the matrix products, in 10^9; their rate in a large one, a
# second; the time that follows; the least that must move, in 10^6 bytes.
ROOFLINE = ("gemm_gflop", "gemm_gflops", "floor_ms", "mbytes")
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
# Beside them on a GPU (gpu.py): the software below torch; and of each provider other percentiles,
# the host's time of a call, time a step and of all that is not a step, the distance to torch.nn's
# results, and the kernels that take most of the time.
SOFTWARE = ("driver", "cuda", "cudnn")
GPU = ("p10_ms", "p90_ms", "host_us", "step_us", "fixed_us", "error", "kernels")
# Beside them in the rows of `fastseq bench`: our version and the provider's; the ends of the 95 %
# interval of its median, and of its ratio to fastseq, round by round; peak memory if asked for;
# "kept" where the C library was told to keep the memory that is freed.
INTERVALS = ("low_ms", "high_ms", "ratio", "ratio_low", "ratio_high")
BENCH = ("fastseq", "version", *INTERVALS, "peak_mb", "heap")
# Instead of the milliseconds, where memory was measured.
MEMORY = ("median_mb", "p20_mb", "p80_mb")
WORSE = {"ms": "slower", "MB": "larger"}
# A case measured again on the same machine takes the place of the older measurement.
MACHINE = ("device", "cpu", "gpu", "threads")

# Above this ratio of 80th to 20th percentile, a measurement is marked as noisy; above so many cores
# lacking, as contended.
NOISY = 2.0
CONTENDED = 0.15
# Shapes whose time should be that of their matrix products, little more.
FLOOR_BATCH, FLOOR_HIDDEN = 32, 256
FLOOR_TARGET = 1.3
# Shapes that should gain from a second thread.
SCALING_BATCH = 32
FLOOR_WORDS = (
    f"Geometric mean of fastseq / floor of the matrix products where B >= {FLOOR_BATCH} and "
    f"H >= {FLOOR_HIDDEN}; wanted in training: {FLOOR_TARGET}"
)
SCALING_WORDS = f"Time with 1 thread / time with 2 where B >= {SCALING_BATCH}, geometric mean"

Row = dict[str, str]


@dataclass(frozen=True)
class Comparison:
    """The providers of one case, measured in turn in one run.

    Attributes:
        columns: the columns that the rows share: run, machine and case.
        shape: the shape columns, such as T, B, I, H.
        times: median by provider, in milliseconds or megabytes.
        spread: the largest 80th over 20th percentile of a provider.
        contention: cores that other processes kept from the benchmark.
        unit: ms or MB.
        floor: milliseconds of the matrix products alone, where the rows have that column.
    """

    columns: Row
    shape: Row
    times: dict[str, float]
    spread: float
    contention: float
    unit: str = "ms"
    floor: float | None = None

    @property
    def label(self) -> str:
        """The shape in words: ``28, 64, 28, 128``, and what is not usual about it."""
        sizes = ", ".join(self.shape.values())
        layout, heap = self.columns["layout"], self.columns.get("heap")
        words = [sizes, *[layout] * (layout != "dense"), *[f"memory {heap}"] * bool(heap)]
        return " ".join(words)

    @property
    def ratio(self) -> float:
        """Time of torch.nn over time of fastseq: above 1, fastseq is faster."""
        return self.ratio_to(NATIVE)

    @property
    def best_ratio(self) -> float:
        """Time of the fastest other provider over time of fastseq."""
        no_rivals = (OURS, FROZEN, *LIMITS)
        return min(self.ratio_to(name) for name in self.times if name not in no_rivals)

    @property
    def loses(self) -> bool:
        """Whether any other provider is faster."""
        return self.best_ratio < 1

    @property
    def floor_ratio(self) -> float | None:
        """Time of fastseq over the floor, for shapes large enough to be judged by it."""
        large = self.size("B") >= FLOOR_BATCH and self.size("H") >= FLOOR_HIDDEN
        return self.times[OURS] / self.floor if self.floor and large else None

    def ratio_to(self, provider: str) -> float:
        """Time of a provider over time of fastseq."""
        return self.times[provider] / self.times[OURS]

    def size(self, name: str) -> int:
        """A size of the shape; 0 where it has none of that name."""
        return int(self.shape.get(name, 0))


@dataclass(frozen=True)
class Summary:
    """Geometric means over the shapes of one op, dtype, mode and layout.

    Attributes:
        columns: of the first shape.
        count: of the shapes.
        ratio: torch.nn over fastseq.
        best_ratio: the fastest other provider over fastseq.
        losing: the shapes where another provider is faster.
        floors: fastseq over the floor, of the shapes that are judged by it.
        worse: what losing means, in a word.
    """

    columns: Row
    count: int
    ratio: float
    best_ratio: float
    losing: tuple[str, ...]
    floors: tuple[float, ...]
    worse: str


@dataclass(frozen=True)
class Scaling:
    """Time with one thread over time with two: geometric means over the shapes of one case."""

    columns: Row
    count: int
    speedups: dict[str, float]


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
        shape = shape_of(row)
        machine = *(row[name] for name in MACHINE + CASE), row.get("heap", "")
        key = machine + tuple(shape.values())
        found = cases.setdefault(key, [])
        if found and found[0]["run"] < row["run"]:
            found.clear()
        if not found or found[0]["run"] == row["run"]:
            found.append(row)
    return [
        _comparison(group)
        for group in cases.values()
        if {NATIVE, OURS} <= {row["provider"] for row in group}
    ]


def _comparison(group: Sequence[Row]) -> Comparison:
    memory = MEMORY[0] in group[0]
    median, low, high = MEMORY if memory else MEASURED[-3:]
    floor = group[0].get("floor_ms")
    return Comparison(
        columns={
            **{name: group[0][name] for name in RUN + CASE},
            "heap": group[0].get("heap", ""),
        },
        shape=shape_of(group[0]),
        times={row["provider"]: float(row[median]) for row in group},
        spread=max(float(row[high]) / float(row[low]) for row in group),
        contention=max(float(row.get("contention", 0)) for row in group),
        unit="MB" if memory else "ms",
        floor=float(floor) if floor else None,
    )


def shape_of(row: Row) -> Row:
    """The columns of a row's shape: those of no other meaning."""
    known = {*RUN, *SOFTWARE, *CASE, *ROOFLINE, *MEASURED, *BENCH, *GPU, *MEMORY}
    return {name: text for name, text in row.items() if name not in known}


def summarise(comparisons: Iterable[Comparison]) -> list[Summary]:
    """Geometric means of the ratios by machine, op, dtype, mode and layout."""
    groups: dict[tuple[str, ...], list[Comparison]] = {}
    for item in comparisons:
        key = tuple(item.columns.get(name, "") for name in (*MACHINE, *CASE, "heap"))
        groups.setdefault(key, []).append(item)
    return [
        Summary(
            columns=group[0].columns,
            count=len(group),
            ratio=geometric_mean([item.ratio for item in group]),
            best_ratio=geometric_mean([item.best_ratio for item in group]),
            losing=tuple(item.label for item in group if item.loses),
            floors=tuple(item.floor_ratio for item in group if item.floor_ratio),
            worse=WORSE[group[0].unit],
        )
        for group in groups.values()
    ]


def scaling(comparisons: Iterable[Comparison]) -> list[Scaling]:
    """What a second thread gains where B >= 32, by machine, op, dtype, mode and layout.

    A shape counts if it was measured with both, a provider if it was measured in all shapes.
    """
    groups: dict[tuple[str, ...], dict[str, dict[str, Comparison]]] = {}
    for item in comparisons:
        if item.size("B") >= SCALING_BATCH and item.columns["threads"] in ("1", "2"):
            key = tuple(item.columns[n] for n in MACHINE + CASE if n != "threads")
            counts = groups.setdefault(key, {}).setdefault(item.label, {})
            counts[item.columns["threads"]] = item
    found = []
    for shapes in groups.values():
        pairs = [(shape["1"], shape["2"]) for shape in shapes.values() if len(shape) == 2]
        names = [set(one.times) & set(two.times) for one, two in pairs]
        if pairs:
            speedups = {
                name: geometric_mean([one.times[name] / two.times[name] for one, two in pairs])
                for name in order(set.intersection(*names))
            }
            found.append(Scaling(pairs[0][0].columns, len(pairs), speedups))
    return found


def order(names: Iterable[str]) -> list[str]:
    """Providers as the tables show them: torch.nn first, fastseq last."""
    return sorted(set(names), key=lambda name: (name == OURS, name != NATIVE, name))


def header(providers: Sequence[str], floor: bool = False) -> str:
    """The head of the text table; ``floor`` is for rows that have a floor."""
    columns = "".join(f"{name:>15}" for name in order(providers))
    ends = f"{'ratio':>9}" + floor * f"{'/ floor':>9}"
    return f"{'op':<9}{'dtype':<10}{'mode':<9}{'thr':<5}{'shape':<28}{columns}{ends}{'':>3}"


def line(item: Comparison, providers: Sequence[str]) -> str:
    """One case of the text table: medians in ms, torch.nn / fastseq, and fastseq / floor.

    A case where another provider is faster, or the times scatter, ends in words that say so.
    """
    times = "".join(
        f"{_digits(item.times[name]):>15}" if name in item.times else f"{'-':>15}"
        for name in order(providers)
    )
    limit = ""
    if item.floor is not None:
        limit = f"{'':>9}" if item.floor_ratio is None else f"{item.floor_ratio:>8.2f}x"
    return (
        f"{_case(item.columns)}{item.label:<28}{times}{item.ratio:>8.2f}x{limit}   {mark(item)}"
    ).rstrip()


def _case(columns: Row) -> str:
    """The first columns of the text table."""
    widths = {"op": 9, "dtype": 10, "mode": 9, "threads": 5}
    return "".join(f"{columns[name]:<{width}}" for name, width in widths.items())


def _digits(value: float) -> str:
    """A number of at least three digits."""
    return f"{value:.3f}" if value >= 1 else f"{value:.5f}"


def mark(item: Comparison) -> str:
    """Plain words for a case that fastseq loses or that is not to be trusted, or nothing."""
    words = []
    if item.loses:
        ours = (OURS, FROZEN, *LIMITS)
        rivals = {name: time for name, time in item.times.items() if name not in ours}
        winner = min(rivals, key=lambda name: rivals[name])
        words.append(f"{WORSE[item.unit].upper()} than {winner} ({item.best_ratio:.2f}x)")
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
    """The end of the text table: geometric means, every losing shape by name, floors, scaling."""
    several = any(len(item.times) > 2 for item in comparisons)
    lines = [
        "",
        "Geometric mean of torch.nn / fastseq" + several * ", and of fastest other / fastseq",
    ]
    summaries = summarise(comparisons)
    for item in summaries:
        text = f"{_case(item.columns)}{_count(item.columns, item.count)}{item.ratio:>8.2f}x"
        if several:
            text += f"{item.best_ratio:>8.2f}x"
        if item.losing:
            text += f"   {item.worse.upper()} on {len(item.losing)}: {'; '.join(item.losing)}"
        lines.append(text)
    judged = [item for item in summaries if item.floors]
    lines += ["", FLOOR_WORDS] * bool(judged)
    for item in judged:
        mean, worst = geometric_mean(item.floors), max(item.floors)
        text = f"{_case(item.columns)}{_count(item.columns, len(item.floors))}{mean:>8.2f}x"
        lines.append(text + f", at most {worst:.2f}x")
    gains = scaling(comparisons)
    lines += ["", SCALING_WORDS] * bool(gains)
    for gain in gains:
        speedups = ", ".join(f"{name} {value:.2f}x" for name, value in gain.speedups.items())
        columns = gain.columns | {"threads": "1-2"}
        lines.append(f"{_case(columns)}{_count(columns, gain.count)}   {speedups}")
    return [*lines, *filter(None, [warning(comparisons)])]


def _count(columns: Row, count: int) -> str:
    """How many shapes of which layout."""
    plural = "" if count == 1 else "s"
    return f"{columns['layout']:<8}{count:>3} shape{plural:<2}"
