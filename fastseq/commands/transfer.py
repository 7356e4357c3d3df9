"""`fastseq train transfer`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from fastseq.commands import shared


class Data(str, Enum):
    """Data sets of ten classes."""

    digits = "digits"
    cifar10 = "cifar10"


def transfer(
    data: Annotated[
        Data, typer.Option(help="digits comes with scikit-learn; cifar10 is for mobilenet_v2.")
    ] = Data.digits,
    data_dir: Annotated[Path, typer.Option(help="Folder that holds cifar-10-batches-py.")] = Path(
        "data"
    ),
    download: Annotated[
        bool, typer.Option("--download", help="Fetch CIFAR-10 if missing.")
    ] = False,
    labels: Annotated[
        str, typer.Option(help="Labelled images of each new class, several runs.")
    ] = "1,3,10,50",
    target_epochs: Annotated[int, typer.Option(help="Passes over the new task's images.")] = 12,
    width: Annotated[int, typer.Option(help="Channels of the small network's first block.")] = 16,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Begin mobilenet_v2 with ImageNet weights.")
    ] = False,
    max_shift: Annotated[float, typer.Option(help="Shift training images by up to this.")] = 1.5,
    native: shared.Native = False,
    epochs: Annotated[int, typer.Option(help="Passes over the old task's images.")] = 15,
    patience: shared.Patience = 15,
    batch_size: shared.BatchSize = 32,
    lr: Annotated[float, typer.Option(help="Peak rate of copied layers; new ones: 10 x.")] = 1e-3,
    weight_decay: shared.WeightDecay = 0.01,
    clip: shared.Clip = 1.0,
    seed: shared.Seed = 0,
    accelerator: shared.Accelerator = "auto",
    devices: shared.Devices = "1",
    strategy: shared.Strategy = "auto",
    precision: shared.Precision = "32-true",
    resume: shared.Resume = None,
    out: shared.Out = Path("runs/transfer"),
) -> None:
    """Learn five classes, then five others from few labels: in four ways, side by side."""
    options = shared.options(locals())
    with shared.refusing("fastseq train"):
        from fastseq.recipes.transfer.config import TransferConfig
        from fastseq.recipes.transfer.run import TransferRun

        run = TransferRun(TransferConfig(**options))
    run.run()
