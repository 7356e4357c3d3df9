"""The commands of `fastseq`; heavy imports only inside them, so that --help is quick."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

app = typer.Typer(
    name="fastseq",
    help="Drop-in LSTM, GRU and RNN for PyTorch on fused C++/CUDA kernels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
train = typer.Typer(help="Train a recipe.", no_args_is_help=True)
app.add_typer(train, name="train")


class Cell(str, Enum):
    """Recurrences of the row network."""

    lstm = "lstm"
    gru = "gru"
    rnn = "rnn"


class Data(str, Enum):
    """Data sets of handwritten digits."""

    digits = "digits"
    mnist = "mnist"


@app.command()
def info() -> None:
    """Print versions, loaded libraries, CPU capability and CUDA architectures."""
    import fastseq

    facts = fastseq.info()
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        typer.echo(f"{name:<{width}}  {value}")


@app.command()
def check(
    device: Annotated[str, typer.Option(help="Device to check: cpu, cuda or cuda:N.")] = "cpu",
    quick: Annotated[bool, typer.Option("--quick", help="Only float32.")] = False,
    full: Annotated[bool, typer.Option("--all", help="Print every row.")] = False,
) -> None:
    """Compare every op with the native PyTorch op and a float64 reference."""
    import fastseq.check

    try:
        report = fastseq.check.run(device, quick)
    except ValueError as error:
        _refuse(str(error))
    typer.echo(report.table(full))
    typer.echo(report.verdict())
    if not report.ok:
        raise typer.Exit(1)


@train.command()
def rows(
    cell: Annotated[Cell, typer.Option(help="Recurrence.")] = Cell.lstm,
    data: Annotated[
        Data, typer.Option(help="digits comes with scikit-learn; mnist is torchvision's.")
    ] = Data.digits,
    data_dir: Annotated[Path, typer.Option(help="Folder that holds MNIST/raw.")] = Path("data"),
    download: Annotated[bool, typer.Option("--download", help="Fetch MNIST if missing.")] = False,
    native: Annotated[
        bool, typer.Option("--native", help="Use torch.nn's layers, to compare.")
    ] = False,
    epochs: Annotated[
        int | None,
        typer.Option(help="Passes over the training images.", show_default="60, mnist 10"),
    ] = None,
    patience: Annotated[int, typer.Option(help="Epochs without progress before stopping.")] = 15,
    batch_size: Annotated[int, typer.Option(help="Images in a batch, on each device.")] = 32,
    hidden_size: Annotated[int, typer.Option(help="Units of each recurrent layer.")] = 128,
    num_layers: Annotated[int, typer.Option(help="Recurrent layers.")] = 2,
    dropout: Annotated[float, typer.Option(help="Between recurrent layers.")] = 0.0,
    max_shift: Annotated[float, typer.Option(help="Shift training images by up to this.")] = 1.5,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-3,
    weight_decay: Annotated[float, typer.Option(help="AdamW's weight decay.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Seed of parameters, order and shifts.")] = 0,
    accelerator: Annotated[str, typer.Option(help="Lightning's: cpu, gpu, auto.")] = "auto",
    devices: Annotated[str, typer.Option(help="Lightning's: a number, or a list like 0,1.")] = "1",
    strategy: Annotated[str, typer.Option(help="Lightning's: auto, ddp, ...")] = "auto",
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed, ...")] = "32-true",
    resume: Annotated[
        Path | None, typer.Option(help="Run folder or checkpoint to go on from.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs/rows"),
) -> None:
    """Classify handwritten digits from the sequence of their rows."""
    try:
        from lightning.fabric.utilities.exceptions import MisconfigurationException

        from fastseq.training.rows import RowsConfig, RowsRun

        try:
            run = RowsRun(
                RowsConfig(
                    cell=cell.value,
                    data=data.value,
                    data_dir=data_dir,
                    download=download,
                    native=native,
                    epochs=epochs,
                    patience=patience,
                    batch_size=batch_size,
                    hidden_size=hidden_size,
                    num_layers=num_layers,
                    dropout=dropout,
                    max_shift=max_shift,
                    lr=lr,
                    weight_decay=weight_decay,
                    seed=seed,
                    accelerator=accelerator,
                    devices=devices,
                    strategy=strategy,
                    precision=precision,
                    resume=resume,
                    out=out,
                )
            )
        # Only while building: an error in the middle of training deserves its traceback.
        except (ValueError, OSError, MisconfigurationException) as error:
            _refuse(str(error))
    except ModuleNotFoundError as error:
        # A part of fastseq itself that is missing is no matter of extras.
        if (error.name or "").partition(".")[0] == "fastseq":
            raise
        needed = error.name or "a package that is not installed"
        _refuse(f"fastseq train needs {needed}: pip install 'fastseq[train]'")
    run.run()


def _refuse(sentence: str) -> NoReturn:
    typer.echo(f"fastseq: {sentence}", err=True)
    raise typer.Exit(1)
