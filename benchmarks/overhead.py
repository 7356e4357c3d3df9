"""What a call costs where there is next to nothing to compute: one step, one row, 32 units.

    python benchmarks/overhead.py                   # a minute, rows into results/overhead.csv
    python benchmarks/overhead.py --op GRUCell --mode infer --seconds 3
    python benchmarks/overhead.py --quick           # seconds; keeps no rows

Layers LSTM, GRU, RNN and the single-step cells, by torch.nn and by fastseq; states are left out and
so start from zeros. In training also a node of autograd made in Python that takes as many tensors,
saves them and computes nothing: what no layer without a node in C++ can be below.
"""

from __future__ import annotations

from enum import Enum
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

import fastseq
from fastseq.bench import harness, rnn_cases, rows
from fastseq.bench.harness import Provider
from fastseq.bench.rnn_cases import TORCH_DTYPE, DType, Mode

RESULTS = Path(__file__).parent / "results"
SIZES = {"T": 1, "B": 1, "I": 32, "H": 32}
SECONDS = 1.0
QUICK_SECONDS = 0.05


class Op(str, Enum):
    """Modules, by their names in torch.nn and in fastseq."""

    lstm = "LSTM"
    gru = "GRU"
    rnn = "RNN"
    lstm_cell = "LSTMCell"
    gru_cell = "GRUCell"
    rnn_cell = "RNNCell"


class EmptyFunction(torch.autograd.Function):
    """Takes x and the parameters, and gives every one of them a gradient that nobody filled."""

    @staticmethod
    def forward(ctx: Any, hidden: int, x: Tensor, *weights: Tensor) -> Tensor:  # type: ignore[override]
        """An output, not filled."""
        ctx.save_for_backward(x, *weights)
        return x.new_empty((*x.shape[:-1], hidden))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Gradients, not filled."""
        return (None, *map(torch.empty_like, ctx.saved_tensors))


class Empty(nn.Module):
    """The parameters of a layer around ``EmptyFunction``."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """``(..., I)`` to ``(..., H)``."""
        made: Tensor = EmptyFunction.apply(SIZES["H"], x, *self.layer.parameters())
        return made


def providers(op: Op, dtype: torch.dtype, mode: Mode) -> list[Provider]:
    """Both modules with the same weights and the same input."""
    torch.manual_seed(0)
    steps, batch, width, hidden = SIZES.values()
    native: nn.Module = getattr(nn, op.value)(width, hidden).to(dtype)
    ours: nn.Module = getattr(fastseq, op.value)(width, hidden).to(dtype)
    ours.load_state_dict(native.state_dict())
    # A cell takes the rows of one step.
    leading = (batch,) if op.value.endswith("Cell") else (steps, batch)
    x = torch.randn(*leading, width).to(dtype)
    grad = torch.randn(*leading, hidden).to(dtype)
    names = (rows.NATIVE, rows.OURS)
    built_for = rnn_cases.capabilities(x.device)
    found = [
        Provider(name, rnn_cases.caller(module, mode, x, grad), capability)
        for name, module, capability in zip(names, (native, ours), built_for, strict=True)
    ]
    if mode is Mode.train:
        call = rnn_cases.caller(Empty(native), mode, x, grad)
        found.append(Provider(rows.EMPTY, call, view=lambda _: ()))
    return found


def main(
    op: Annotated[list[Op] | None, typer.Option(help="Repeatable; default all.")] = None,
    dtype: Annotated[list[DType] | None, typer.Option(help="Repeatable; default float32.")] = None,
    mode: Annotated[
        list[Mode] | None, typer.Option(help="Repeatable; default infer and train.")
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option(min=1, help="Repeatable; default torch's number.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help=f"For each case; default {SECONDS:g}.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Short, and keeps no rows.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="CSV file; default results/overhead.csv, with --quick none.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start the CSV file again.")
    ] = False,
) -> None:
    """Time a call of each module at its smallest."""
    seconds = seconds if seconds is not None else QUICK_SECONDS if quick else SECONDS
    out = out or (None if quick else RESULTS / "overhead.csv")
    if overwrite and out:
        out.unlink(missing_ok=True)
    place = torch.device("cpu")
    run = harness.run_columns(place)
    names = (rows.NATIVE, rows.OURS, rows.EMPTY)
    if harness.busy():
        typer.echo(harness.busy())
    typer.echo(f"{run['cpu']}, torch {run['torch']}, commit {run['commit']}; ms")
    typer.echo(rows.header(names))
    measured: list[rows.Comparison] = []
    for count in threads or [torch.get_num_threads()]:
        torch.set_num_threads(count)
        for kind, how, what in product(
            dtype or [DType.float32], mode or [Mode.infer, Mode.train], op or list(Op)
        ):
            wanted = TORCH_DTYPE[kind]
            timings = harness.measure(providers(what, wanted, how), place, wanted, seconds)
            columns = {
                "op": what.value,
                "dtype": kind.value,
                "mode": how.value,
                "layout": "dense",
            }
            found = harness.make_rows(run, count, columns, SIZES, timings)
            if out:
                rows.append(out, found)
            measured += rows.compare(found)
            typer.echo(rows.line(measured[-1], names))
    typer.echo("\n".join(rows.summary_lines(measured)))
    if out:
        typer.echo(f"rows: {out}")


if __name__ == "__main__":
    typer.run(main)
