"""`fastseq train rows`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from fastseq.commands import shared


class Data(str, Enum):
    """Data sets of handwritten digits."""

    digits = "digits"
    mnist = "mnist"


DataDir = Annotated[Path, typer.Option(help="Folder that holds MNIST/raw.")]
Download = Annotated[bool, typer.Option("--download", help="Fetch MNIST if missing.")]


def rows(
    cell: shared.AnyCell = shared.Cell.lstm,
    data: Annotated[
        Data, typer.Option(help="digits comes with scikit-learn; mnist is torchvision's.")
    ] = Data.digits,
    data_dir: DataDir = Path("data"),
    download: Download = False,
    native: shared.Native = False,
    epochs: Annotated[
        int | None,
        typer.Option(help="Passes over the training images.", show_default="60, mnist 10"),
    ] = None,
    patience: shared.Patience = 15,
    batch_size: shared.BatchSize = 32,
    hidden_size: shared.HiddenSize = 128,
    num_layers: shared.NumLayers = 2,
    dropout: Annotated[float, typer.Option(help="Between recurrent layers.")] = 0.0,
    max_shift: Annotated[float, typer.Option(help="Shift training images by up to this.")] = 1.5,
    lr: shared.LearningRate = 2e-3,
    weight_decay: shared.WeightDecay = 0.1,
    clip: shared.Clip = 1.0,
    seed: shared.Seed = 0,
    accelerator: shared.Accelerator = "auto",
    devices: shared.Devices = "1",
    strategy: shared.Strategy = "auto",
    precision: shared.Precision = "32-true",
    resume: shared.Resume = None,
    out: shared.Out = Path("runs/rows"),
) -> None:
    """Classify handwritten digits from the sequence of their rows."""
    options = shared.options(locals())
    with shared.refusing("fastseq train"):
        from fastseq.recipes.rows.config import RowsConfig
        from fastseq.recipes.rows.run import RowsRun

        run = RowsRun(RowsConfig(**options))
    run.run()
