"""`fastseq study invariance`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastseq.commands import shared


def invariance(
    width: Annotated[int, typer.Option(help="Maps of the first convolution.")] = 32,
    images: Annotated[int, typer.Option(help="Test images that are transformed.")] = 200,
    native: shared.Native = False,
    epochs: shared.Epochs = 10,
    batch_size: shared.BatchSize = 32,
    lr: shared.LearningRate = 2e-3,
    weight_decay: shared.WeightDecay = 0.01,
    seed: shared.Seed = 0,
    accelerator: shared.Accelerator = "auto",
    precision: shared.Precision = "32-true",
    out: shared.Out = Path("runs/invariance"),
) -> None:
    """Measure how far a network's features move under translation, scaling and rotation."""
    options = shared.options(locals())
    with shared.refusing("fastseq study"):
        from fastseq.recipes.invariance.config import InvarianceConfig
        from fastseq.recipes.invariance.run import study_invariance

        config = InvarianceConfig(**options)
    study_invariance(config)
