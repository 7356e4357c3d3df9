"""`fastseq train tags`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastseq.commands import shared

_EMBEDDED = "an embedded corpus"


def tags(
    train: Annotated[
        Path | None, typer.Option(help="CoNLL file to learn from.", show_default=_EMBEDDED)
    ] = None,
    val: Annotated[
        Path | None, typer.Option(help="CoNLL file to choose by.", show_default=_EMBEDDED)
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="CoNLL file to report on.", show_default=_EMBEDDED)
    ] = None,
    native: shared.Native = False,
    epochs: shared.Epochs = 12,
    patience: shared.Patience = 6,
    batch_size: shared.BatchSize = 32,
    embedding_size: shared.EmbeddingSize = 64,
    hidden_size: Annotated[int, typer.Option(help="Units of each direction.")] = 64,
    num_layers: shared.NumLayers = 1,
    dropout: shared.Dropout = 0.3,
    word_dropout: Annotated[
        float, typer.Option(help="Share of the training words to hide behind their shapes.")
    ] = 0.3,
    lr: shared.LearningRate = 5e-3,
    weight_decay: shared.WeightDecay = 0.01,
    clip: shared.Clip = 1.0,
    seed: shared.Seed = 0,
    accelerator: shared.Accelerator = "auto",
    devices: shared.Devices = "1",
    strategy: shared.Strategy = "auto",
    precision: shared.Precision = "32-true",
    resume: shared.Resume = None,
    out: shared.Out = Path("runs/tags"),
) -> None:
    """Find the names of people, places and organisations in sentences."""
    options = shared.options(locals())
    with shared.refusing("fastseq train"):
        from fastseq.recipes.tags.config import TagsConfig
        from fastseq.recipes.tags.run import TagsRun

        run = TagsRun(TagsConfig(**options))
    run.run()
