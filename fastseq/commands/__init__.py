"""The commands of `fastseq`, a module each; heavy imports only inside them: --help is quick."""

from __future__ import annotations

import typer

from fastseq.commands import (
    chars,
    check,
    gradients,
    info,
    invariance,
    lrn,
    rows,
    scenes,
    tags,
    transfer,
    translate,
    tune_rows,
)


def _group(help: str) -> typer.Typer:
    return typer.Typer(help=help, no_args_is_help=True)


app = typer.Typer(
    name="fastseq",
    help="Drop-in LSTM, GRU and RNN for PyTorch on fused C++/CUDA kernels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(info.info)
app.command()(check.check)

train = _group("Train a recipe.")
train.command()(rows.rows)
train.command()(scenes.scenes)
train.command()(transfer.transfer)
train.command()(chars.chars)
train.command()(tags.tags)
train.command()(translate.translate)
app.add_typer(train, name="train")

tune = _group("Search the hyper-parameters of a recipe.")
tune.command()(tune_rows.rows)
app.add_typer(tune, name="tune")

study = _group("Measure what the lectures claim, and draw it.")
study.command()(gradients.gradients)
study.command()(invariance.invariance)
study.command()(lrn.lrn)
app.add_typer(study, name="study")
