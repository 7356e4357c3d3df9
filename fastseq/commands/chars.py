"""`fastseq train chars`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastseq.commands import shared


def chars(
    cell: shared.AnyCell = shared.Cell.lstm,
    text: Annotated[
        Path | None,
        typer.Option(help="UTF-8 file to learn from.", show_default="Python's documentation"),
    ] = None,
    native: shared.Native = False,
    epochs: shared.Epochs = 12,
    patience: shared.Patience = 3,
    batch_size: shared.BatchSize = 16,
    window: Annotated[int, typer.Option(help="Characters in a training window.")] = 128,
    embedding_size: shared.EmbeddingSize = 64,
    hidden_size: shared.HiddenSize = 256,
    num_layers: shared.NumLayers = 1,
    dropout: shared.Dropout = 0.0,
    prompt: Annotated[str, typer.Option(help="What the sample begins with.")] = "The ",
    sample: Annotated[int, typer.Option(help="Characters to write at the end.")] = 400,
    temperature: Annotated[
        float, typer.Option(help="Of the sample: below 1 safer, above 1 bolder.")
    ] = 0.7,
    lr: shared.LearningRate = 5e-3,
    weight_decay: shared.WeightDecay = 0.01,
    clip: shared.Clip = 1.0,
    seed: shared.Seed = 0,
    accelerator: shared.Accelerator = "auto",
    devices: shared.Devices = "1",
    strategy: shared.Strategy = "auto",
    precision: shared.Precision = "32-true",
    resume: shared.Resume = None,
    out: shared.Out = Path("runs/chars"),
) -> None:
    """Learn to write a text, character by character."""
    options = shared.options(locals())
    with shared.refusing("fastseq train"):
        from fastseq.recipes.chars.config import CharsConfig
        from fastseq.recipes.chars.run import CharsRun

        run = CharsRun(CharsConfig(**options))
    run.run()
