"""Peak memory of a training step of LSTM, GRU and RNN, by torch.nn and by fastseq, on the CPU.

    python benchmarks/memory.py                     # some minutes, rows into results/memory.csv
    python benchmarks/memory.py --cell gru --shape 100,64,512,512 --repeats 1
    python benchmarks/memory.py --quick             # one small shape; keeps no rows

Each figure is the growth of the resident set of a fresh process from before its first step, with
parameters, input and the output's gradient in place, to the peak of two steps. So it holds output,
saved tensors, gradients, scratch memory and what a library keeps.
"""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Annotated

import torch
import typer
from rnn import parse_shape

from fastseq.bench import harness, rnn_cases, rows
from fastseq.bench.peak import growth_of
from fastseq.bench.rnn_cases import Case, Cell, DType, Layout, Mode, Shape

RESULTS = Path(__file__).parent / "results"
SHAPES: list[Shape] = [(128, 32, 256, 256), (100, 64, 512, 512), (1000, 20, 40, 100)]
PACKED: list[Shape] = [(1000, 16, 16, 64)]
QUICK: list[Shape] = [(100, 16, 64, 64)]
PROVIDERS = (rows.NATIVE, rows.OURS)
REPEATS = 3


def growth(case: Case, provider: str) -> float:
    """The peak of a training step above what was resident before, in 10^6 bytes.

    For a fresh process: memory that was freed before would be used again unseen.
    """
    place = torch.device("cpu")
    module = rnn_cases.layers(case, place)[PROVIDERS.index(provider)]
    # Small steps load libraries and start threads.
    small = Case(case.cell, case.dtype, case.mode, case.layout, (2, 2, *case.shape[2:]))
    warm = rnn_cases.caller(module, case.mode, *rnn_cases.tensors(small, place))
    for _ in range(2):
        warm()
    call = rnn_cases.caller(module, case.mode, *rnn_cases.tensors(case, place))
    return growth_of(call)


def growth_elsewhere(case: Case, provider: str, threads: int) -> float:
    """``growth`` in a process of its own.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, __file__, "--here", provider, "--threads", str(threads)]
    command += ["--cell", case.cell.value, "--dtype", case.dtype.value]
    command += ["--layout", case.layout.value, "--shape", ",".join(map(str, case.shape))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{provider}, {case}: {done.stderr}")
    return float(done.stdout)


def main(
    cell: Annotated[list[Cell] | None, typer.Option(help="Repeatable; default all.")] = None,
    dtype: Annotated[list[DType] | None, typer.Option(help="Repeatable; default float32.")] = None,
    layout: Annotated[list[Layout] | None, typer.Option(help="Repeatable; default all.")] = None,
    shape: Annotated[
        list[str] | None, typer.Option(help="T,B,I,H; repeatable; default four shapes.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of torch; default torch's number.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Processes for each figure.")] = REPEATS,
    quick: Annotated[bool, typer.Option("--quick", help="One small shape, once.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="CSV file; default results/memory.csv, with --quick none.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start the CSV file again.")
    ] = False,
    here: Annotated[
        str | None, typer.Option(help="Measure this provider in this process; print the figure.")
    ] = None,
) -> None:
    """Measure the peak memory of a training step in fresh processes."""
    given = [parse_shape(text) for text in shape or []]
    small = QUICK if quick else []
    shapes = {
        Layout.dense: given or small or SHAPES,
        Layout.packed: given or small or PACKED,
    }
    count = threads or torch.get_num_threads()
    torch.set_num_threads(count)
    cases = [
        Case(op, kind, Mode.train, form, size)
        for op, kind, form in product(
            cell or list(Cell), dtype or [DType.float32], layout or list(Layout)
        )
        for size in shapes[form]
    ]
    if here:
        typer.echo(growth(cases[0], here))
        return
    out = out or (None if quick else RESULTS / "memory.csv")
    if overwrite and out:
        out.unlink(missing_ok=True)
    run = harness.run_columns(torch.device("cpu"))
    typer.echo(f"{run['cpu']}, torch {run['torch']}, commit {run['commit']}; MB")
    typer.echo(rows.header(PROVIDERS))
    measured: list[rows.Comparison] = []
    for case in cases:
        found = []
        for name in PROVIDERS:
            peaks = torch.tensor(
                [growth_elsewhere(case, name, count) for _ in range(1 if quick else repeats)],
                dtype=torch.float64,
            )
            quantiles = [f"{float(peaks.quantile(q)):.5g}" for q in (0.5, 0.2, 0.8)]
            found.append(
                {
                    **run,
                    "threads": str(count),
                    **case.columns(),
                    **{name: str(size) for name, size in case.sizes().items()},
                    "provider": name,
                    "calls": str(len(peaks)),
                    **dict(zip(rows.MEMORY, quantiles, strict=True)),
                }
            )
        if out:
            rows.append(out, found)
        measured += rows.compare(found)
        typer.echo(rows.line(measured[-1], PROVIDERS))
    typer.echo("\n".join(rows.summary_lines(measured)))
    if out:
        typer.echo(f"rows: {out}")


if __name__ == "__main__":
    typer.run(main)
