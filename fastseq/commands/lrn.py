"""`fastseq study lrn`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastseq.commands import shared


def lrn(
    seeds: Annotated[int, typer.Option(help="Trainings of each network.")] = 3,
    width: Annotated[int, typer.Option(help="Maps of the first convolution.")] = 32,
    repeats: Annotated[int, typer.Option(help="Steps that are timed of each network.")] = 15,
    native: shared.Native = False,
    epochs: shared.Epochs = 6,
    batch_size: shared.BatchSize = 32,
    lr: shared.LearningRate = 2e-3,
    weight_decay: shared.WeightDecay = 0.01,
    seed: shared.Seed = 0,
    accelerator: shared.Accelerator = "auto",
    precision: shared.Precision = "32-true",
    out: shared.Out = Path("runs/lrn"),
) -> None:
    """Measure what LRN and overlapping pooling do to accuracy and to the time of a step."""
    options = shared.options(locals())
    with shared.refusing("fastseq study"):
        from fastseq.recipes.lrn.config import LrnConfig
        from fastseq.recipes.lrn.run import study_lrn

        config = LrnConfig(**options)
    study_lrn(config)
