"""LSTM, GRU and RNN against torch.nn and ONNX Runtime: inference and training.

    python benchmarks/rnn.py                  # everything: minutes, rows into results/rnn.csv
    python benchmarks/rnn.py --cell lstm --dtype float32 --mode train --threads 2
    python benchmarks/rnn.py --quick          # seconds, two small shapes; keeps no rows

``plot.py`` draws the rows and ``readme_table.py`` makes a table of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Annotated

import harness
import rows
import torch
import typer
from harness import Provider
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import fastseq

ONNX = "ONNX Runtime"

Shape = tuple[int, int, int, int]  # T, B, I, H

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
SECONDS = 1.0
QUICK_SECONDS = 0.1


class Cell(str, Enum):
    """Recurrences."""

    lstm = "lstm"
    gru = "gru"
    rnn = "rnn"


class DType(str, Enum):
    """Element types of parameters, input and gradients."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class Mode(str, Enum):
    """Forward alone, or forward and the gradients of every parameter and of the input."""

    infer = "infer"
    train = "train"


class Layout(str, Enum):
    """A (T, B, I) input, or a PackedSequence of rows with random lengths up to T."""

    dense = "dense"
    packed = "packed"


TORCH_DTYPE = {DType.float32: torch.float32, DType.bfloat16: torch.bfloat16}
Maker = Callable[[int, int], nn.RNNBase]
MODULES: dict[Cell, tuple[Maker, Maker]] = {
    Cell.lstm: (nn.LSTM, fastseq.LSTM),
    Cell.gru: (nn.GRU, fastseq.GRU),
    Cell.rnn: (nn.RNN, fastseq.RNN),
}


@dataclass(frozen=True)
class Case:
    """One cell of the grid."""

    cell: Cell
    dtype: DType
    mode: Mode
    layout: Layout
    shape: Shape


def data(sequence: Tensor | PackedSequence) -> Tensor:
    """The tensor that holds a sequence's elements."""
    return sequence.data if isinstance(sequence, PackedSequence) else sequence


def infer(module: nn.RNNBase, x: Tensor | PackedSequence) -> Callable[[], Sequence[Tensor]]:
    """A call that returns the output, computed without gradients."""
    module.eval()

    def call() -> Sequence[Tensor]:
        with torch.inference_mode():
            return (data(module(x)[0]),)

    return call


def train(
    module: nn.RNNBase, x: Tensor | PackedSequence, grad: Tensor
) -> Callable[[], Sequence[Tensor]]:
    """A call that returns the output and the gradients of the input and every parameter."""
    module.train()
    leaf = data(x).detach().requires_grad_()
    inputs = x._replace(data=leaf) if isinstance(x, PackedSequence) else leaf
    wanted = [leaf, *module.parameters()]

    def call() -> Sequence[Tensor]:
        output = data(module(inputs)[0])
        return (output.detach(), *torch.autograd.grad(output, wanted, grad))

    return call


def providers(case: Case, threads: int, device: torch.device) -> list[Provider]:
    """The providers of a case, all with the same weights and the same input."""
    steps, batch, width, hidden = case.shape
    dtype = TORCH_DTYPE[case.dtype]
    torch.manual_seed(0)
    native, ours = (kind(width, hidden) for kind in MODULES[case.cell])
    ours.load_state_dict(native.state_dict())
    native, ours = native.to(device, dtype), ours.to(device, dtype)
    padded = torch.randn(steps, batch, width).to(device, dtype)
    x: Tensor | PackedSequence = padded
    lengths = None
    if case.layout is Layout.packed:
        lengths = torch.randint(1, steps + 1, (batch,)).sort(descending=True).values
        x = pack_padded_sequence(padded, lengths)
        padded = padded[: lengths[0]]
    if case.mode is Mode.train:
        grad = torch.randn(*data(x).shape[:-1], hidden).to(device, dtype)
        calls = [train(native, x, grad), train(ours, x, grad)]
    else:
        calls = [infer(native, x), infer(ours, x)]
    cpu = device.type == "cpu"
    names = (rows.NATIVE, rows.OURS)
    built_for = (
        torch.backends.cpu.get_cpu_capability(),
        fastseq.info()["CPU capability"].partition(" ")[0],
    )
    found = [
        Provider(name, call, capability if cpu else "")
        for name, call, capability in zip(names, calls, built_for, strict=True)
    ]
    if case.mode is Mode.infer and cpu and dtype == torch.float32 and onnx_installed():
        found.append(onnx_provider(native, padded, lengths, threads))
    return found


def onnx_installed() -> bool:
    """Whether onnx and onnxruntime are there."""
    return all(find_spec(name) is not None for name in ("onnx", "onnxruntime"))


def onnx_provider(
    layer: nn.RNNBase, padded: Tensor, lengths: Tensor | None, threads: int
) -> Provider:
    """ONNX Runtime with a layer's weights; a ragged batch goes in and comes out padded."""
    import onnx_rnn

    call = onnx_rnn.inference(layer, padded, lengths, threads)
    if lengths is None:
        return Provider(ONNX, call)

    def pack(results: Sequence[Tensor]) -> Sequence[Tensor]:
        return tuple(pack_padded_sequence(result, lengths).data for result in results)

    return Provider(ONNX, call, view=pack)


def grid(
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
    return harness.parse_sizes(text, "TBIH")


def main(
    cell: Annotated[list[Cell] | None, typer.Option(help="Repeatable; default all.")] = None,
    dtype: Annotated[list[DType] | None, typer.Option(help="Repeatable; default all.")] = None,
    mode: Annotated[list[Mode] | None, typer.Option(help="Repeatable; default all.")] = None,
    layout: Annotated[list[Layout] | None, typer.Option(help="Repeatable; default all.")] = None,
    shape: Annotated[
        list[str] | None, typer.Option(help="T,B,I,H; repeatable; default this file's grid.")
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option(min=1, help="Repeatable; default torch's number.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    seconds: Annotated[
        float | None, typer.Option(help=f"For each case; default {SECONDS:g}.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Two small shapes, short.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="CSV file; default results/rnn.csv, with --quick none.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start the CSV file again.")
    ] = False,
) -> None:
    """Time fastseq's LSTM, GRU and RNN beside torch.nn's and ONNX Runtime's, in turn."""
    given = [parse_shape(text) for text in shape or []]
    shapes = {
        Layout.dense: given or (QUICK if quick else SHAPES),
        Layout.packed: given or (QUICK_PACKED if quick else PACKED),
    }
    seconds = seconds if seconds is not None else QUICK_SECONDS if quick else SECONDS
    out = out or (None if quick else harness.RESULTS / "rnn.csv")
    place = torch.device(device)
    run = harness.run_columns(place)
    names = [rows.NATIVE, rows.OURS]
    if place.type == "cpu" and onnx_installed():
        names.append(ONNX)
    elif place.type == "cpu":
        typer.echo("ONNX Runtime is left out: pip install onnx onnxruntime")
    if harness.busy():
        typer.echo(harness.busy())
    if overwrite and out:
        out.unlink(missing_ok=True)
    typer.echo(f"{run['gpu'] or run['cpu']}, torch {run['torch']}, commit {run['commit']}; ms")
    typer.echo(rows.header(names))
    measured: list[rows.Comparison] = []
    for count in threads or [torch.get_num_threads()]:
        torch.set_num_threads(count)
        for case in grid(
            cell or list(Cell),
            dtype or list(DType),
            mode or list(Mode),
            layout or list(Layout),
            shapes,
        ):
            timings = harness.measure(
                providers(case, count, place), place, TORCH_DTYPE[case.dtype], seconds
            )
            columns = {
                "op": case.cell.value.upper(),
                "dtype": case.dtype.value,
                "mode": case.mode.value,
                "layout": case.layout.value,
            }
            sizes = dict(zip("TBIH", case.shape, strict=True))
            found = harness.make_rows(run, count, columns, sizes, timings)
            if out:
                rows.append(out, found)
            measured += rows.compare(found)
            typer.echo(rows.line(measured[-1], names))
    typer.echo("\n".join(rows.summary_lines(measured)))
    if out:
        typer.echo(f"rows: {out}")


if __name__ == "__main__":
    typer.run(main)
