"""LSTM, GRU and RNN against torch.nn, ONNX Runtime and torch.compile.

    python benchmarks/rnn.py                  # everything: minutes, rows into results/rnn.csv
    python benchmarks/rnn.py --cell lstm --dtype float32 --mode train --threads 1 --threads 2
    python benchmarks/rnn.py --grid heat      # B x H, into results/rnn_heat.csv
    python benchmarks/rnn.py --grid steps     # T from 1 to 1024, into results/rnn_steps.csv
    python benchmarks/rnn.py --quick          # seconds, small shapes; keeps no rows

``plot.py`` draws the rows and ``readme_table.py`` makes a table of them. On ``--device cuda``
torch.nn is cuDNN.

torch.compile leaves torch.nn's recurrences out by default: the graph breaks before the module,
which then runs eagerly, so that its time is torch.nn's. ``--compiled`` tells Dynamo to trace them
(``allow_rnn``) and adds that as a provider of its own, for dense sequences of at most 32 steps: the
time loop is unrolled, and every case compiles for up to half a minute.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import product
from pathlib import Path
from typing import Annotated

import torch
import typer

from fastseq.bench import harness, rnn_cases, roofline, rows
from fastseq.bench.rnn_cases import TORCH_DTYPE, Case, Cell, DType, Layout, Mode, Shape

RESULTS = Path(__file__).parent / "results"
SHAPES: list[Shape] = [
    (28, 1, 28, 128),
    (28, 64, 28, 128),
    (28, 128, 28, 256),
    (128, 1, 256, 256),
    (128, 32, 256, 256),
    (100, 64, 512, 512),
    (64, 16, 1024, 1024),
    (512, 1, 64, 64),
    # Odd ones: B and H no multiples of 16, and long sequences.
    (1000, 3, 10, 50),
    (1000, 20, 40, 100),
    (75, 33, 39, 200),
    (20, 100, 300, 333),
]
PACKED: list[Shape] = [(1000, 16, 16, 64)]
QUICK: list[Shape] = [(28, 1, 28, 128), (28, 64, 28, 128)]
QUICK_PACKED: list[Shape] = [(50, 16, 16, 64)]
QUICK_SECONDS = 0.1


class Grid(str, Enum):
    """Sets of shapes: real and odd ones, batch by width, or sequence lengths."""

    shapes = "shapes"
    heat = "heat"
    steps = "steps"


@dataclass(frozen=True)
class Plan:
    """What a grid measures by default.

    Attributes:
        dense: shapes of (T, B, I) inputs.
        packed: shapes of ragged batches.
        quick: the same for ``--quick``.
        modes: what is timed.
        seconds: for each case.
        rounds: for each case, at least.
        file: the CSV file's stem.
    """

    dense: list[Shape]
    packed: list[Shape]
    quick: tuple[list[Shape], list[Shape]]
    modes: list[Mode]
    seconds: float
    rounds: int
    file: str


def heat(batches: tuple[int, ...], widths: tuple[int, ...]) -> list[Shape]:
    """Every batch with every width, as wide inside as outside."""
    return [(32, batch, width, width) for batch in batches for width in widths]


def steps(counts: tuple[int, ...]) -> list[Shape]:
    """A middling batch of sequences of each length."""
    return [(count, 8, 128, 128) for count in counts]


PLANS = {
    Grid.shapes: Plan(
        SHAPES, PACKED, (QUICK, QUICK_PACKED), list(Mode), 1.0, harness.MIN_ROUNDS, "rnn"
    ),
    # The corner of 256 x 1024 takes seconds a call: three rounds, or the grid takes too long.
    Grid.heat: Plan(
        heat((1, 4, 16, 64, 256), (32, 64, 128, 256, 512, 1024)),
        [],
        (heat((1, 4), (32, 64)), []),
        [Mode.train],
        0.4,
        3,
        "rnn_heat",
    ),
    Grid.steps: Plan(
        steps((1, 4, 16, 64, 256, 1024)),
        [],
        (steps((1, 4, 16)), []),
        [Mode.infer, Mode.train],
        0.5,
        harness.MIN_ROUNDS,
        "rnn_steps",
    ),
}


def cases(
    cells: list[Cell],
    dtypes: list[DType],
    modes: list[Mode],
    layouts: list[Layout],
    shapes: dict[Layout, list[Shape]],
) -> Iterator[Case]:
    """Every case to measure."""
    for cell, dtype, mode, layout in product(cells, dtypes, modes, layouts):
        for shape in shapes[layout]:
            yield Case(cell, dtype, mode, layout, shape)


def parse_shape(text: str) -> Shape:
    """T,B,I,H as four positive numbers.

    Raises:
        typer.BadParameter: the text is something else.
    """
    try:
        return harness.parse_sizes(text, "TBIH")
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def main(
    grid: Annotated[Grid, typer.Option(help="Shapes, and what is timed by default.")] = Grid.shapes,
    cell: Annotated[list[Cell] | None, typer.Option(help="Repeatable; default all.")] = None,
    dtype: Annotated[
        list[DType] | None, typer.Option(help="Repeatable; default all, on a CPU without float16.")
    ] = None,
    mode: Annotated[
        list[Mode] | None,
        typer.Option(help="Repeatable; default all; heat: train; steps: infer and train."),
    ] = None,
    layout: Annotated[list[Layout] | None, typer.Option(help="Repeatable; default all.")] = None,
    shape: Annotated[
        list[str] | None, typer.Option(help="T,B,I,H; repeatable; default the grid's.")
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option(min=1, help="Repeatable; default torch's number.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    compiled: Annotated[
        bool,
        typer.Option(
            "--compiled",
            help=f"torch.compile as well, up to T = {rnn_cases.COMPILED_STEPS}; slow to start.",
        ),
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(help="For each case; default 1; heat: 0.4; steps: 0.5.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few small shapes, short.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="CSV file; default results/rnn[_GRID].csv, with --quick none."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start the CSV file again.")
    ] = False,
) -> None:
    """Time fastseq's LSTM, GRU and RNN beside torch.nn's and ONNX Runtime's, in turn."""
    plan = PLANS[grid]
    given = [parse_shape(text) for text in shape or []]
    dense, packed = plan.quick if quick else (plan.dense, plan.packed)
    shapes = {Layout.dense: given or dense, Layout.packed: given or packed}
    layouts = layout or [kind for kind in Layout if plan.packed or kind is Layout.dense]
    seconds = seconds if seconds is not None else QUICK_SECONDS if quick else plan.seconds
    out = out or (None if quick else RESULTS / f"{plan.file}.csv")
    place = torch.device(device)
    run = harness.run_columns(place)
    names = [rows.NATIVE, rows.OURS, *[rnn_cases.COMPILED] * compiled]
    if place.type == "cpu" and rnn_cases.onnx_installed():
        names.append(rnn_cases.ONNX)
    elif place.type == "cpu":
        typer.echo("ONNX Runtime is left out: pip install onnx onnxruntime")
    if harness.busy():
        typer.echo(harness.busy())
    if overwrite and out:
        out.unlink(missing_ok=True)
    typer.echo(f"{run['gpu'] or run['cpu']}, torch {run['torch']}, commit {run['commit']}; ms")
    typer.echo(rows.header(names, floor=True))
    measured: list[rows.Comparison] = []
    for count in threads or [torch.get_num_threads()]:
        torch.set_num_threads(count)
        for case in cases(
            cell or list(Cell),
            dtype or rnn_cases.DTYPES[place.type],
            mode or plan.modes,
            layouts,
            shapes,
        ):
            limits = roofline.columns(case, place, count, quick)
            timings = harness.measure(
                rnn_cases.providers(case, count, place, compiled),
                place,
                TORCH_DTYPE[case.dtype],
                seconds,
                rnn_cases.tolerance(case, place),
                plan.rounds,
            )
            found = harness.make_rows(run, count, case.columns(), case.sizes(), timings, limits)
            if out:
                rows.append(out, found)
            measured += rows.compare(found)
            typer.echo(rows.line(measured[-1], names))
    typer.echo("\n".join(rows.summary_lines(measured)))
    if out:
        typer.echo(f"rows: {out}")


if __name__ == "__main__":
    typer.run(main)
