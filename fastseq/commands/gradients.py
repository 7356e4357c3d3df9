"""`fastseq study gradients`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastseq.commands import shared


def gradients(
    steps: Annotated[int, typer.Option(help="T, the length of the sequences.")] = 60,
    input_size: Annotated[int, typer.Option(help="Features of x_t.")] = 16,
    hidden_size: Annotated[int, typer.Option(help="Units.")] = 64,
    batch: Annotated[int, typer.Option(help="Sequences that norms are averaged over.")] = 32,
    open_bias: Annotated[
        float, typer.Option(help="Opens the LSTM's forget gate and the GRU's update gate.")
    ] = 2.0,
    gain: Annotated[
        float, typer.Option(help="Recurrent weights are multiplied by this to explode.")
    ] = 3.0,
    updates: Annotated[int, typer.Option(help="Steps of the exploding RNN's training.")] = 100,
    lr: Annotated[float, typer.Option(help="Its learning rate.")] = 0.1,
    clip: Annotated[float, typer.Option(help="Norm to which gradients are clipped.")] = 1.0,
    native: shared.Native = False,
    seed: shared.Seed = 0,
    out: Annotated[Path, typer.Option(help="Folder of figure and numbers.")] = Path(
        "runs/gradients"
    ),
) -> None:
    """Measure how far gradients reach back in RNN, GRU and LSTM: vanishing, exploding, clipped."""
    options = shared.options(locals())
    with shared.refusing("fastseq study"):
        from fastseq.recipes.gradients.config import GradientsConfig
        from fastseq.recipes.gradients.run import study_gradients

        config = GradientsConfig(**options)
    study_gradients(config)
