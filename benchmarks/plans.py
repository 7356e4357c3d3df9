"""How far the planner is from the best plan: every plan of many shapes, measured in turn.

    python benchmarks/plans.py                     # 60 shapes, both ways: some minutes
    python benchmarks/plans.py --shapes 6 --threads 2 --out plans.csv

A plan cuts a recurrence into slices of the batch and of the hidden units, and makes the input
product for so many rows at a time (``FASTSEQ_PLAN``). The planner's own is measured with all that
make sense for the threads; its regret is its time over that of the best, less one. All plans have
their turn in every round, in any order, and are compared within it. The best of many is flattered
by noise, so it is chosen by one half of the rounds and judged, beside the planner's, by the other
half, and the other way round: below zero there was none better. How far the planner's plan is from
itself, as one more that has its turn, tells how much of all this is noise.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer

import fastseq
from fastseq import _native
from fastseq.bench import harness, rows

RESULTS = Path(__file__).parent / "results"
SHAPES = 60
CHUNKS = ("", "/48", "/96", "/192", "/384")
GOOD = 0.03  # of the best time
OWN, AGAIN = "planner", "planner, again"
LARGEST = 2e9  # multiply-adds of a call: the largest takes some tens of milliseconds


def shapes(count: int) -> Iterator[tuple[str, int, int, int, int]]:
    """Cells and T, B, I, H, drawn over the sizes that people have; always the same ones."""
    drawn = random.Random(0)

    def around(low: int, high: int) -> int:
        return int(low * (high / low) ** drawn.random())

    while count:
        cell = drawn.choice(("LSTM", "GRU", "RNN"))
        steps, batch = around(1, 500), around(1, 256)
        inputs, hidden = around(8, 1024), around(16, 1024)
        gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[cell]
        if steps * batch * gates * hidden * (inputs + hidden) < LARGEST:
            count -= 1
            yield cell, steps, batch, inputs, hidden


def plans(threads: int, batch: int) -> list[str]:
    """Every grid of at most so many threads, each with every chunk."""
    grids = {
        (batches, units)
        for batches in range(1, min(threads, batch) + 1)
        for units in range(1, threads // batches + 1)
        if batches * units in (1, threads)
    }
    return [f"{b}x{u}{chunk}" for b, u in sorted(grids) for chunk in CHUNKS]


Times = dict[str, list[float]]


def measured(call: Callable[[], object], names: list[str], seconds: float) -> Times:
    """The times of each plan in seconds, round by round, the planner's own twice."""
    every = [OWN, AGAIN, *names]
    times: Times = {name: [] for name in every}
    drawn = random.Random(0)

    def turn(name: str) -> float:
        _native.ask_for_plan(None if name in (OWN, AGAIN) else name)
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    for name in every:
        turn(name)
    calls = max(1, round(0.002 / max(1e-7, turn(OWN))))
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[OWN]) < harness.MIN_ROUNDS:
        for name in drawn.sample(every, len(every)):
            turn(name)  # whose threads and memory are those of another plan
            times[name].append(statistics.median(turn(name) for _ in range(calls)))
    return times


def medians(times: Times, first: int = 0, step: int = 1) -> dict[str, float]:
    """Of every ``step``-th round from the ``first`` on."""
    return {name: statistics.median(found[first::step]) for name, found in times.items()}


class Regret(NamedTuple):
    """How much longer the planner's plan takes than the best one, and than itself, less one."""

    best: float
    again: float

    @classmethod
    def of(cls, times: Times) -> Regret:
        """Of the times of every plan, the rounds in the same order."""
        own = times[OWN]
        ratios = {
            name: [a / b for a, b in zip(own, found, strict=True)] for name, found in times.items()
        }
        again = statistics.median(ratios.pop(AGAIN)) - 1
        halves = [medians(ratios, first, 2) for first in (0, 1)]
        best = statistics.mean(
            judge[max(choose, key=lambda name: choose[name])] - 1
            for choose, judge in (halves, halves[::-1])
        )
        return cls(best, again)


def main(
    threads: Annotated[
        list[int] | None, typer.Option(min=1, help="Repeatable; default torch's number.")
    ] = None,
    count: Annotated[int, typer.Option("--shapes", min=1, help="So many of them.")] = SHAPES,
    seconds: Annotated[float, typer.Option(help="For each shape.")] = 2.0,
    out: Annotated[Path | None, typer.Option(help="CSV; default results/plans.csv.")] = None,
) -> None:
    """Measure the planner's regret in inference, shape by shape."""
    out = out or RESULTS / "plans.csv"
    out.unlink(missing_ok=True)
    run = harness.run_columns(torch.device("cpu"))
    if harness.busy():
        typer.echo(harness.busy())
    for number in threads or [torch.get_num_threads()]:
        torch.set_num_threads(number)
        regrets = []
        for cell, steps, batch, inputs, hidden in shapes(count):
            torch.manual_seed(0)
            layer = getattr(fastseq, cell)(inputs, hidden).eval()
            x = torch.randn(steps, batch, inputs)
            with torch.inference_mode():
                times = measured(partial(layer, x), plans(number, batch), seconds)
            _native.ask_for_plan(None)
            found = {name: each for name, each in medians(times).items() if name != AGAIN}
            best = min(found, key=lambda name: found[name])
            regrets.append(Regret.of(times))
            sizes = {"T": steps, "B": batch, "I": inputs, "H": hidden}
            rows.append(out, [{
                **run,
                "threads": str(number),
                "capability": _native.cpu_capability(),
                "op": cell,
                **{name: str(size) for name, size in sizes.items()},
                "planner_ms": f"{1e3 * found[OWN]:.5g}",
                "best_ms": f"{1e3 * found[best]:.5g}",
                "best": best,
                "regret": f"{regrets[-1].best:.4f}",
                "again": f"{regrets[-1].again:.4f}",
            }])  # fmt: skip
            shape = ", ".join(map(str, sizes.values()))
            typer.echo(
                f"{number} threads {cell:<5}{shape:<24}{1e3 * found[OWN]:>9.3f} ms"
                f"{1e3 * found[best]:>9.3f} ms {regrets[-1].best:>+7.1%}"
                f"{regrets[-1].again:>+7.1%}  {best}"
            )
        good = sum(regret.best <= GOOD for regret in regrets)
        same = sum(abs(regret.again) <= GOOD for regret in regrets)
        typer.echo(
            f"{number} threads: within {GOOD:.0%} of the best on {good} of {len(regrets)} shapes, "
            f"of itself on {same}; median {statistics.median(r.best for r in regrets):.1%}, most "
            f"{max(r.best for r in regrets):.1%}"
        )
    typer.echo(f"rows: {out}")


if __name__ == "__main__":
    typer.run(main)
