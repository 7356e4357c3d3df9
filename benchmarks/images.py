"""The command line of the benchmarks of LRN, max-pool and the trio."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Annotated

import torch
import typer

import fastseq
from fastseq.bench import harness, rows
from fastseq.bench.images import (
    COMPILED,
    QUICK,
    SHAPES,
    DType,
    Layout,
    Mode,
    Op,
    Shape,
    providers,
)

RESULTS = Path(__file__).parent / "results"
SECONDS = 1.0
QUICK_SECONDS = 0.05


def parse_shape(text: str) -> Shape:
    """N,C,H,W as four positive numbers.

    Raises:
        typer.BadParameter: the text is something else.
    """
    try:
        return harness.parse_sizes(text, "NCHW")
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def command(op: Op) -> Callable[..., None]:
    """The command line of one op's benchmark."""

    def main(
        dtype: Annotated[
            list[DType] | None, typer.Option(help="Repeatable; default float32.")
        ] = None,
        mode: Annotated[list[Mode] | None, typer.Option(help="Repeatable; default all.")] = None,
        layout: Annotated[
            list[Layout] | None, typer.Option(help="Repeatable; default all.")
        ] = None,
        shape: Annotated[
            list[str] | None, typer.Option(help="N,C,H,W; repeatable; default five shapes.")
        ] = None,
        threads: Annotated[
            list[int] | None, typer.Option(min=1, help="Repeatable; default torch's number.")
        ] = None,
        device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
        compiled: Annotated[
            bool, typer.Option(help="Measure torch.compile as well; a case then takes a while.")
        ] = True,
        seconds: Annotated[
            float | None, typer.Option(help=f"For each case; default {SECONDS:g}.")
        ] = None,
        quick: Annotated[bool, typer.Option("--quick", help="One small shape, short.")] = False,
        out: Annotated[
            Path | None, typer.Option(help="CSV file; default in results/, with --quick none.")
        ] = None,
        overwrite: Annotated[
            bool, typer.Option("--overwrite", help="Start the CSV file again.")
        ] = False,
    ) -> None:
        shapes = [parse_shape(text) for text in shape or []] or (QUICK if quick else SHAPES)
        seconds = seconds if seconds is not None else QUICK_SECONDS if quick else SECONDS
        out = out or (None if quick else RESULTS / f"{op.file}.csv")
        place = torch.device(device)
        run = harness.run_columns(place)
        names = [rows.NATIVE, rows.OURS, rows.LIMIT, *([COMPILED] if compiled else [])]
        if harness.busy():
            typer.echo(harness.busy())
        if overwrite and out:
            out.unlink(missing_ok=True)
        typer.echo(f"{run['gpu'] or run['cpu']}, torch {run['torch']}, commit {run['commit']}; ms")
        typer.echo(rows.header(names))
        ours = fastseq.info()["CPU capability"].partition(" ")[0]
        measured: list[rows.Comparison] = []
        for count in threads or [torch.get_num_threads()]:
            torch.set_num_threads(count)
            for kind, how, form, size in product(
                dtype or [DType.float32], mode or list(Mode), layout or list(Layout), shapes
            ):
                torch.manual_seed(0)
                wanted = getattr(torch, kind.value)
                x = torch.randn(size).to(place, wanted)
                if form is Layout.nhwc:
                    x = x.contiguous(memory_format=torch.channels_last)
                tolerance = op.tolerance if kind is DType.float32 else None
                timings = harness.measure(
                    providers(op, x, how, compiled, ours), place, wanted, seconds, tolerance
                )
                columns = {
                    "op": op.name,
                    "dtype": kind.value,
                    "mode": how.value,
                    "layout": form.value,
                }
                sizes = dict(zip("NCHW", size, strict=True))
                found = harness.make_rows(run, count, columns, sizes, timings)
                if out:
                    rows.append(out, found)
                measured += rows.compare(found)
                typer.echo(rows.line(measured[-1], names))
        typer.echo("\n".join(rows.summary_lines(measured)))
        if out:
            typer.echo(f"rows: {out}")

    return main
