"""How far the planner is from the best plan: every plan of many shapes, measured in turn.

    python benchmarks/plans.py                     # 60 shapes, both ways: some minutes
    python benchmarks/plans.py --shapes 6 --threads 2 --out plans.csv

A plan cuts a recurrence into slices of the batch and of the hidden units, and makes the input
product for so many rows at a time (``FASTSEQ_PLAN``). The planner's own is measured with all that
make sense for the threads; its regret is its time over that of the best, less one. Both are medians
of rounds in which all plans have their turn, so that the best of many is flattered by noise: what
remains is an upper bound.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer

import fastseq
from fastseq import _native
from fastseq.bench import harness, rows

RESULTS = Path(__file__).parent / "results"
SHAPES = 60
CHUNKS = ("", "/48", "/96", "/192", "/384")
GOOD = 0.03  # of the best time
OWN = "planner"
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


def measured(call: Callable[[], object], names: list[str], seconds: float) -> dict[str, float]:
    """The median time of each plan in seconds, the planner's own first."""
    every = [OWN, *names]
    times: dict[str, list[float]] = {name: [] for name in every}

    def turn(name: str) -> float:
        _native.ask_for_plan(None if name == OWN else name)
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    for name in every:
        turn(name)
    calls = max(1, round(0.002 / max(1e-7, turn(OWN))))
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[OWN]) < harness.MIN_ROUNDS:
        for name in every:
            turn(name)
            times[name].append(statistics.median(turn(name) for _ in range(calls)))
    return {name: statistics.median(found) for name, found in times.items()}


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
                found = measured(partial(layer, x), plans(number, batch), seconds)
            _native.ask_for_plan(None)
            best = min(found, key=lambda name: found[name])
            regrets.append(found[OWN] / found[best] - 1)
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
                "regret": f"{regrets[-1]:.4f}",
            }])  # fmt: skip
            shape = ", ".join(map(str, sizes.values()))
            typer.echo(
                f"{number} threads {cell:<5}{shape:<24}{1e3 * found[OWN]:>9.3f} ms"
                f"{1e3 * found[best]:>9.3f} ms {regrets[-1]:>+7.1%}  {best}"
            )
        good = sum(regret <= GOOD for regret in regrets)
        typer.echo(
            f"{number} threads: within {GOOD:.0%} of the best on {good} of {len(regrets)} shapes; "
            f"median {statistics.median(regrets):.1%}, most {max(regrets):.1%}"
        )
    typer.echo(f"rows: {out}")


if __name__ == "__main__":
    typer.run(main)
