"""What the benchmarks of LRN, max-pool and the trio share: shapes, providers, command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import harness
import rows
import torch
import typer
from harness import Provider
from torch import Tensor, nn

import fastseq

Shape = tuple[int, int, int, int]  # N, C, H, W

SHAPES: list[Shape] = [
    (32, 96, 55, 55),  # AlexNet's first and second
    (32, 256, 27, 27),
    (8, 64, 112, 112),  # GoogLeNet's first
    (5, 30, 61, 47),  # odd ones
    (3, 7, 200, 133),
]
QUICK: list[Shape] = [(2, 16, 27, 27)]
SECONDS = 1.0
QUICK_SECONDS = 0.05
COMPILED = "torch.compile"


class DType(str, Enum):
    """Element types."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Mode(str, Enum):
    """Forward alone, without gradients; or forward and the gradient of the input."""

    infer = "infer"
    train = "train"


class Layout(str, Enum):
    """Memory formats."""

    nchw = "NCHW"
    nhwc = "NHWC"


@dataclass(frozen=True)
class Op:
    """One op to measure.

    Attributes:
        name: in the tables.
        file: stem of the CSV file.
        native: the op by torch.nn.
        ours: the op by fastseq.
        tolerance: of the comparison in float32, if not the harness's. In the 16-bit types such an
            op is compared in its outputs alone: rounding decides where its gradients go.
    """

    name: str
    file: str
    native: Callable[[], nn.Module]
    ours: Callable[[], nn.Module]
    tolerance: float | None = None


def infer(module: nn.Module, x: Tensor) -> Callable[[], Sequence[Tensor]]:
    """A call that returns the output, computed without gradients."""

    def call() -> Sequence[Tensor]:
        with torch.no_grad():
            return (module(x),)

    return call


def train(module: nn.Module, x: Tensor, grad: Tensor) -> Callable[[], Sequence[Tensor]]:
    """A call that returns the output and the gradient of the input."""
    leaf = x.detach().requires_grad_()

    def call() -> Sequence[Tensor]:
        y = module(leaf)
        return (y.detach(), *torch.autograd.grad(y, leaf, grad))

    return call


def providers(
    op: Op, x: Tensor, mode: Mode, compiled: bool, threads_capability: str
) -> list[Provider]:
    """The providers of a case, all with the same input."""
    native, ours = op.native(), op.ours()
    torch.compiler.reset()
    modules: list[tuple[str, Any, str]] = [
        (rows.NATIVE, native, torch.backends.cpu.get_cpu_capability()),
        (rows.OURS, ours, threads_capability),
    ]
    if compiled:
        modules.append((COMPILED, torch.compile(native, dynamic=False), ""))
    found = []
    narrow = x.dtype in (torch.bfloat16, torch.float16)
    view = (lambda results: tuple(results)[:1]) if narrow and op.tolerance else tuple
    grad = torch.randn_like(native(x))
    for name, module, capability in modules:
        call = infer(module, x) if mode is Mode.infer else train(module, x, grad)
        shown = capability if x.device.type == "cpu" else ""
        found.append(Provider(name, call, shown, view))
    if mode is Mode.infer:
        target = torch.empty_like(x)

        def copy() -> Sequence[Tensor]:
            target.copy_(x)
            return ()

        found.append(Provider(rows.LIMIT, copy))
    return found


def parse_shape(text: str) -> Shape:
    """N,C,H,W as four positive numbers.

    Raises:
        typer.BadParameter: the text is something else.
    """
    return harness.parse_sizes(text, "NCHW")


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
        out = out or (None if quick else harness.RESULTS / f"{op.file}.csv")
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
