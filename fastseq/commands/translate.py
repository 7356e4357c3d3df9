"""`fastseq train translate`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from fastseq.commands import shared


class Cell(str, Enum):
    """Recurrences of an encoder and its decoder."""

    lstm = "lstm"
    gru = "gru"


def translate(
    cell: Annotated[Cell, typer.Option(help="Recurrence of encoder and decoder.")] = Cell.lstm,
    attention: Annotated[
        bool, typer.Option(help="Whether the decoder looks at all of the encoder's steps.")
    ] = True,
    native: shared.Native = False,
    epochs: shared.Epochs = 12,
    patience: shared.Patience = 5,
    batch_size: shared.BatchSize = 64,
    embedding_size: shared.EmbeddingSize = 32,
    hidden_size: shared.HiddenSize = 128,
    num_layers: shared.NumLayers = 1,
    dropout: shared.Dropout = 0.1,
    beams: Annotated[int, typer.Option(help="Beginnings that beam search keeps.")] = 4,
    lr: shared.LearningRate = 3e-3,
    weight_decay: shared.WeightDecay = 0.01,
    clip: shared.Clip = 1.0,
    seed: shared.Seed = 0,
    accelerator: shared.Accelerator = "auto",
    devices: shared.Devices = "1",
    strategy: shared.Strategy = "auto",
    precision: shared.Precision = "32-true",
    resume: shared.Resume = None,
    out: shared.Out = Path("runs/translate"),
) -> None:
    """Translate numbers from words to digits."""
    options = shared.options(locals())
    with shared.refusing("fastseq train"):
        from fastseq.recipes.translate.config import TranslateConfig
        from fastseq.recipes.translate.run import TranslateRun

        run = TranslateRun(TranslateConfig(**options))
    run.run()
