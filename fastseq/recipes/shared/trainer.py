"""The Trainer of every recipe: log, checkpoints, early stopping, one bar an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from fastseq.recipes.shared.config import RunConfig, keep_config
from fastseq.recipes.shared.history import History
from fastseq.recipes.shared.quiet import EpochBar, quiet


@dataclass
class Keepers:
    """The callbacks that remember: metrics, and two checkpoints.

    Attributes:
        history: The metrics of every epoch.
        monitor: Metric by which the best checkpoint is chosen.
        mode: ``"min"`` or ``"max"``.
        best: Keeps ``best.ckpt``.
        last: Keeps ``last.ckpt``, to resume from.
    """

    history: History
    monitor: str = "val_loss"
    mode: str = "min"
    best: ModelCheckpoint = field(init=False)
    last: ModelCheckpoint = field(init=False)

    def __post_init__(self) -> None:
        """Make the two checkpoint callbacks."""
        # Saved when the epoch is over, so that a resumed run begins a new one.
        common: dict[str, Any] = {"save_on_train_epoch_end": True, "enable_version_counter": False}
        self.best = ModelCheckpoint(filename="best", monitor=self.monitor, mode=self.mode, **common)
        self.last = ModelCheckpoint(filename="last", **common)


class EpochSeed(Callback):
    """Seed torch's own generator at the beginning of every epoch.

    What is drawn from it, dropout above all, is then a function of seed, epoch and process: a
    resumed run draws what one that was never stopped does.

    Args:
        seed: Of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Seed the generator at the first batch, another way for each epoch and process."""
        # Lightning leaves out on_train_epoch_start in the first epoch after a checkpoint.
        if batch_idx == 0:
            epoch = trainer.current_epoch * trainer.world_size + trainer.global_rank
            torch.manual_seed(self.seed * 1_000_003 + epoch)


class KeepConfig(Callback):
    """Write the options into the run's folder when training begins.

    Args:
        config: The options.
        resume: Checkpoint that the run goes on from.
    """

    def __init__(self, config: RunConfig, resume: Path | None) -> None:
        self.config = config
        self.resume = resume

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``config.yaml``."""
        folder = Path(trainer.log_dir or self.config.out)
        config = self.config
        if self.resume is not None and folder.resolve() in self.resume.resolve().parents:
            # The run goes on in its own folder: from its beginning, it resumes nothing.
            config = replace(config, resume=None)
        if trainer.is_global_zero:
            keep_config(config, folder)


def build_trainer(
    config: RunConfig,
    keepers: Keepers,
    epochs: int,
    resume: Path | None = None,
    bar: bool = True,
    callbacks: Sequence[Callback] = (),
) -> Trainer:
    """Return a Trainer that logs and saves in a ``version_N`` of the config's folder.

    Args:
        config: Where and how to train.
        keepers: Callbacks that remember.
        epochs: Passes over the training data at most.
        resume: Checkpoint that the run goes on from; one in a run's folder goes on in that folder.
        bar: Show progress.
        callbacks: What else is told of the training.

    Raises:
        ValueError: If Lightning does not know a device, strategy or precision.
    """
    place: dict[str, Any] = {"save_dir": config.out}
    if resume is not None and resume.resolve().parent.name == "checkpoints":
        # The same folder again: one run, one log, one set of figures.
        run_dir = resume.resolve().parent.parent
        place = {"save_dir": run_dir.parent, "version": run_dir.name}
    precision: Any = config.precision
    with quiet():
        try:
            return Trainer(
                max_epochs=epochs,
                accelerator=config.accelerator,
                devices=config.devices,
                strategy=config.strategy,
                precision=precision,
                gradient_clip_val=config.clip,
                logger=TensorBoardLogger(name="", **place),
                callbacks=[
                    keepers.history,
                    EpochSeed(config.seed),
                    EarlyStopping(keepers.monitor, patience=config.patience, mode=keepers.mode),
                    *([EpochBar(refresh_rate=10)] if bar else []),
                    keepers.best,
                    keepers.last,
                    *callbacks,
                ],
                log_every_n_steps=10,
                num_sanity_val_steps=0,
                enable_model_summary=False,
                enable_progress_bar=bar,
                # The recipes' own sampler already divides the training data among processes.
                use_distributed_sampler=False,
            )
        except MisconfigurationException as error:
            raise ValueError(str(error)) from error
