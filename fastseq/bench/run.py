"""A run of `fastseq bench`: every case measured, its rows kept, its line printed, a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch

import fastseq
from fastseq.bench import harness, rows
from fastseq.bench.cases import Work, version_of
from fastseq.bench.harness import Timing
from fastseq.bench.interval import ROUNDS, median_interval, ratio_interval
from fastseq.bench.peak import growth_elsewhere

Say = Callable[[str], None]


def measured_rows(
    work: Work,
    run: rows.Row,
    threads: int,
    device: torch.device,
    seconds: float,
    memory: bool,
    heap: str = "",
) -> list[rows.Row]:
    """Measure a case: a row for every provider.

    Args:
        work: the case.
        run: of ``harness.run_columns``.
        threads: that every provider is given.
        device: where.
        seconds: of all providers together.
        memory: their peak memory as well, each in a process of its own; on the CPU.
        heap: ``heap.KEPT`` where this process keeps the memory that it frees.

    Raises:
        RuntimeError: the providers do not agree.
    """
    timings = harness.measure(
        work.providers(threads), device, work.dtype, seconds, work.tolerance, ROUNDS
    )
    ours = next(t for t in timings if t.provider.name == rows.OURS)
    made = harness.make_rows(run, threads, work.columns, work.sizes, timings)
    found = []
    for row, timing in zip(made, timings, strict=True):
        peak = ""
        if memory and timing.provider.name != rows.LIMIT:
            asked = {**work.asked, "provider": timing.provider.name, "threads": threads}
            peak = f"{growth_elsewhere(asked):.5g}"
        found.append({**row, **_intervals(timing, ours), "peak_mb": peak, "heap": heap})
    return found


def _intervals(timing: Timing, ours: Timing) -> rows.Row:
    _, low, high = median_interval(timing.turns)
    ratio, least, most = ratio_interval(timing.turns, ours.turns)
    numbers = (low, high, ratio, least, most)
    return {
        "fastseq": fastseq.__version__,
        "version": version_of(timing.provider.name),
        **dict(zip(rows.INTERVALS, (f"{value:.5g}" for value in numbers), strict=True)),
    }


def line(found: list[rows.Row]) -> str:
    """The rows of a case in a line: medians, and each ratio to fastseq with its interval."""
    first = found[0]
    (item,) = rows.compare(found)
    head = f"{first['op']} {item.label} {first['dtype']} {first['mode']}"
    parts = []
    for row in found:
        text = f"{row['provider']} {float(row['median_ms']):.4g} ms"
        if row["provider"] not in (rows.OURS, rows.LIMIT):
            low, high = float(row["ratio_low"]), float(row["ratio_high"])
            said = "slower" if low > 1 else "FASTER" if high < 1 else "no difference"
            text += f" ({float(row['ratio']):.2f}x, {low:.2f} to {high:.2f}: {said})"
        if row["peak_mb"]:
            text += f", {float(row['peak_mb']):.4g} MB"
        parts.append(text)
    noisy = rows.mark(item)
    return f"{head}, {first['threads']} threads: {'; '.join(parts)}{noisy and '  ' + noisy}"


def bench(
    works: Iterable[Work],
    threads: Iterable[int],
    device: torch.device,
    seconds: float,
    memory: bool,
    out: Path | None,
    say: Say,
    done: Callable[[], None],
    heap: str = "",
) -> list[rows.Row]:
    """Measure all cases; rows are kept as they come, so that an interrupt loses one case.

    Args:
        works: the cases.
        threads: numbers of threads, each with all cases.
        device: where.
        seconds: for each case.
        memory: peak memory as well.
        out: a CSV file that the rows are added to.
        say: prints a line.
        done: called after each case.
        heap: ``heap.KEPT`` where this process keeps the memory that it frees.

    Raises:
        ValueError: ``out`` has other columns.
    """
    run = harness.run_columns(device)
    if harness.busy():
        say(harness.busy())
    say(f"{run['gpu'] or run['cpu']}, torch {run['torch']}, fastseq {fastseq.__version__}")
    say("ratio: time of a provider over fastseq's, median of the rounds and its 95 % interval")
    everything: list[rows.Row] = []
    cases = list(works)
    before = torch.get_num_threads()
    try:
        for count in threads:
            torch.set_num_threads(count)
            for work in cases:
                found = measured_rows(work, run, count, device, seconds, memory, heap)
                if out:
                    rows.append(out, found)
                say(line(found))
                everything += found
                done()
    finally:
        torch.set_num_threads(before)
    return everything
