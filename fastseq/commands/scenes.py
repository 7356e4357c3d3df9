"""`fastseq train scenes`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from fastseq.commands import shared


class Network(str, Enum):
    """Segmentation networks."""

    unet = "unet"
    deeplab = "deeplab"
    upsample = "upsample"
    transpose = "transpose"


class Data(str, Enum):
    """Data sets with a class for every pixel."""

    scenes = "scenes"
    pets = "pets"
    voc = "voc"


def scenes(
    network: Annotated[Network, typer.Option(help="Architecture.")] = Network.unet,
    data: Annotated[
        Data, typer.Option(help="Digit scenes are made here; pets and voc are torchvision's.")
    ] = Data.scenes,
    data_dir: Annotated[
        Path, typer.Option(help="Folder that holds oxford-iiit-pet or VOCdevkit.")
    ] = Path("data"),
    download: Annotated[bool, typer.Option("--download", help="Fetch missing images.")] = False,
    scenes: Annotated[int, typer.Option(help="Digit scenes to train on.")] = 1600,
    size: Annotated[
        int | None,
        typer.Option(help="Height and width of the images.", show_default="48, photographs 128"),
    ] = None,
    width: Annotated[
        int, typer.Option(help="Channels of the first block; of deeplab's head 4 times as many.")
    ] = 16,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Deeplab's encoder: torchvision's weights.")
    ] = False,
    native: shared.Native = False,
    epochs: shared.Epochs = 12,
    patience: shared.Patience = 15,
    batch_size: shared.BatchSize = 16,
    lr: shared.LearningRate = 4e-3,
    weight_decay: shared.WeightDecay = 0.01,
    clip: shared.Clip = 1.0,
    seed: shared.Seed = 0,
    accelerator: shared.Accelerator = "auto",
    devices: shared.Devices = "1",
    strategy: shared.Strategy = "auto",
    precision: shared.Precision = "32-true",
    resume: shared.Resume = None,
    out: shared.Out = Path("runs/scenes"),
) -> None:
    """Tell handwritten digits, or pets, from what is around them, pixel by pixel."""
    options = shared.options(locals())
    with shared.refusing("fastseq train"):
        from fastseq.recipes.scenes.config import ScenesConfig
        from fastseq.recipes.scenes.run import ScenesRun

        run = ScenesRun(ScenesConfig(**options))
    run.run()
