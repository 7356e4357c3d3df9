"""What each thing costs that goes beyond torch.nn, beside the plain call.

    python benchmarks/features.py                    # two minutes, rows into results/features.csv
    python benchmarks/features.py --feature layer_norm --cell GRU
    python benchmarks/features.py --quick            # seconds; keeps no rows

Providers: ``torch.nn`` is its module on the same input (of lengths: on a PackedSequence of them; of
a stream: a call for every step), ``plain`` fastseq's without the feature, ``fastseq`` with it.
Training is forward, backward and all gradients; streams and cells are inference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import fastseq
from fastseq.bench import harness, rnn_cases, rows
from fastseq.bench.harness import Provider

RESULTS = Path(__file__).parent / "results"
TRAIN = {"T": 100, "B": 32, "I": 64, "H": 128}
STEP = {"T": 1, "B": 1, "I": 128, "H": 128}
SECONDS = 2.0
QUICK_SECONDS = 0.02
PLAIN = "plain"
DONE = Callable[[], Sequence[Tensor]]


class Cell(str, Enum):
    """Recurrences, by their names in torch.nn and in fastseq."""

    lstm = "LSTM"
    gru = "GRU"
    rnn = "RNN"


class Feature(str, Enum):
    """What a call does beside the plain one."""

    lengths = "lengths"
    full_lengths = "full lengths"
    reset = "reset"
    recurrent_dropout = "recurrent_dropout"
    zoneout = "zoneout"
    weight_dropout = "weight_dropout"
    layer_norm = "layer_norm"
    recompute = "recompute"
    cell_states = "cell states"
    step = "step"
    cell = "cell"
    invariant_cell = "batch-invariant cell"


OPTIONS: dict[Feature, dict[str, Any]] = {
    Feature.recurrent_dropout: {"recurrent_dropout": 0.25},
    Feature.zoneout: {"zoneout": 0.1},
    Feature.weight_dropout: {"weight_dropout": 0.5},
    Feature.layer_norm: {"layer_norm": True},
    Feature.recompute: {"recompute": True},
    Feature.cell_states: {"return_cell_states": True},
}
STREAMS = (Feature.step, Feature.cell, Feature.invariant_cell)


def training(module: Any, x: Any, grad: Tensor | None, **call: Any) -> DONE:
    """Forward, backward and all gradients of one call."""
    leaf = rnn_cases.first(x).detach().requires_grad_()
    inputs = x._replace(data=leaf) if not isinstance(x, Tensor) else leaf
    wanted = [leaf, *module.parameters()]

    def run() -> Sequence[Tensor]:
        y = rnn_cases.first(module(inputs, **call))
        over = torch.ones_like(y) if grad is None else grad
        return torch.autograd.grad(y, wanted, over)

    return run


def layers(cell: Cell, feature: Feature) -> list[DONE]:
    """torch.nn's, the plain and the extended call of a layer in training."""
    steps, batch, width, hidden = TRAIN.values()
    x, grad = torch.randn(steps, batch, width), torch.randn(steps, batch, hidden)
    native = getattr(nn, cell.value)(width, hidden)
    plain = getattr(fastseq, cell.value)(width, hidden)
    ours = getattr(fastseq, cell.value)(width, hidden, **OPTIONS.get(feature, {}))
    call: dict[str, Any] = {}
    theirs = training(native, x, grad)
    if feature is Feature.lengths:
        lengths = torch.randint(1, steps + 1, (batch,))
        lengths[0] = steps
        call["lengths"] = lengths
        theirs = training(native, pack_padded_sequence(x, lengths, enforce_sorted=False), None)
    elif feature is Feature.full_lengths:
        call["lengths"] = torch.full((batch,), steps)
    elif feature is Feature.reset:
        call["reset"] = torch.rand(steps, batch) < 0.02
    return [theirs, training(plain, x, grad), training(ours, x, grad, **call)]


def streams(cell: Cell, feature: Feature) -> list[DONE]:
    """The same of a single step in inference, states given."""
    _, batch, width, hidden = STEP.values()
    x, h = torch.randn(batch, width), torch.randn(batch, hidden)
    hx: Any = (h, h) if cell is Cell.lstm else h

    def inference(call: Callable[..., Any], *args: Any) -> DONE:
        return lambda: (call(*args),)

    if feature is Feature.step:
        native, plain = (getattr(m, cell.value)(width, hidden) for m in (nn, fastseq))
        batched = tuple(s.unsqueeze(0) for s in hx) if cell is Cell.lstm else h.unsqueeze(0)
        state = plain.step(x, batched)[1]
        sequence = x.unsqueeze(0)
        calls = [inference(m, sequence, batched) for m in (native, plain)]
        return [*calls, inference(plain.step, x, state)]
    native, ours = (getattr(m, f"{cell.value}Cell")(width, hidden) for m in (nn, fastseq))
    quick = inference(ours, x, hx)
    if feature is Feature.cell:
        return [inference(native, x, hx), quick, quick]

    def invariant() -> Sequence[Tensor]:
        with fastseq.batch_invariant():
            return quick()

    return [inference(native, x, hx), quick, invariant]


def main(
    cell: Annotated[list[Cell] | None, typer.Option(help="Repeatable; default all.")] = None,
    feature: Annotated[list[Feature] | None, typer.Option(help="Repeatable; default all.")] = None,
    threads: Annotated[
        list[int] | None, typer.Option(min=1, help="Repeatable; default torch's number.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help=f"For each case; default {SECONDS:g}.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Short, and keeps no rows.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="CSV file; default results/features.csv, quick: none.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start the CSV file again.")
    ] = False,
) -> None:
    """Time every feature beside the plain call."""
    seconds = seconds if seconds is not None else QUICK_SECONDS if quick else SECONDS
    out = out or (None if quick else RESULTS / "features.csv")
    if overwrite and out:
        out.unlink(missing_ok=True)
    place = torch.device("cpu")
    run = harness.run_columns(place)
    names = (rows.NATIVE, PLAIN, rows.OURS)
    if harness.busy():
        typer.echo(harness.busy())
    typer.echo(f"{run['cpu']}, torch {run['torch']}, commit {run['commit']}; ms")
    typer.echo(rows.header(names))
    for count in threads or [torch.get_num_threads()]:
        torch.set_num_threads(count)
        for what in feature or list(Feature):
            for kind in cell or list(Cell):
                if what is Feature.cell_states and kind is not Cell.lstm:
                    continue
                torch.manual_seed(0)
                calls = (streams if what in STREAMS else layers)(kind, what)
                native, ours = rnn_cases.capabilities(place)
                # Masks and lengths make other numbers: what is compared is time.
                providers = [
                    Provider(name, call, isa, view=lambda _: ())
                    for name, call, isa in zip(names, calls, (native, ours, ours), strict=True)
                ]
                # Streams and cells are inference; a mode entered at each call would be timed, too.
                with torch.set_grad_enabled(what not in STREAMS):
                    timings = harness.measure(providers, place, torch.float32, seconds)
                columns = {
                    "op": f"{kind.value} {what.value}",
                    "dtype": "float32",
                    "mode": "infer" if what in STREAMS else "train",
                    "layout": "dense",
                }
                sizes = STEP if what in STREAMS else TRAIN
                found = harness.make_rows(run, count, columns, sizes, timings)
                if out:
                    rows.append(out, found)
                item = rows.compare(found)[0]
                cost = item.times[rows.OURS] / item.times[PLAIN]
                typer.echo(f"{rows.line(item, names)}  {100 * (cost - 1):+.0f} %")
    if out:
        typer.echo(f"rows: {out}")


if __name__ == "__main__":
    typer.run(main)
