"""`fastseq tune rows`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastseq.commands import shared
from fastseq.commands.rows import Data, DataDir, Download


def rows(
    trials: Annotated[int, typer.Option(help="Trainings, those of earlier calls included.")] = 30,
    epochs: Annotated[int, typer.Option(help="Passes over the training images, each.")] = 10,
    cell: Annotated[
        shared.Cell | None, typer.Option(help="Recurrence.", show_default="searched too")
    ] = None,
    data: Annotated[Data, typer.Option(help="Data set of handwritten digits.")] = Data.digits,
    data_dir: DataDir = Path("data"),
    download: Download = False,
    native: shared.Native = False,
    seed: shared.Seed = 0,
    accelerator: shared.Accelerator = "auto",
    precision: shared.Precision = "32-true",
    out: Annotated[
        Path, typer.Option(help="Folder of the search; one that is there goes on.")
    ] = Path("runs/tune"),
) -> None:
    """Search the hyper-parameters of `fastseq train rows` with Optuna."""
    options = shared.options(locals())
    with shared.refusing("fastseq tune", "tune"):
        from fastseq.recipes.tune_rows.config import TuneRowsConfig
        from fastseq.recipes.tune_rows.run import TuneRowsRun

        run = TuneRowsRun(TuneRowsConfig(**options))
    run.run()
