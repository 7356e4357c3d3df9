"""The frame of a recipe: build and check everything, train, test the best, report."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from lightning.pytorch import LightningDataModule, LightningModule, seed_everything

from fastseq.recipes.shared.config import RunConfig
from fastseq.recipes.shared.history import Epoch, History
from fastseq.recipes.shared.quiet import quiet
from fastseq.recipes.shared.resume import check_hyper_parameters, find_checkpoint
from fastseq.recipes.shared.trainer import KeepConfig, Keepers, build_trainer


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What every recipe leaves behind.

    Attributes:
        run_dir: Folder with ``config.yaml``, the TensorBoard log, ``checkpoints/`` and the figures.
        checkpoint: The checkpoint that was best on the validation data.
    """

    run_dir: Path
    checkpoint: Path


@dataclass(frozen=True)
class Outcome:
    """What training and testing gave, from which a recipe makes its result.

    Attributes:
        metrics: Test metrics of the best checkpoint, by the names under which the task logs them.
        epochs: Metrics of every epoch.
        run_dir: Folder of the run.
        checkpoint: The best checkpoint.
    """

    metrics: dict[str, float]
    epochs: list[Epoch]
    run_dir: Path
    checkpoint: Path


ConfigT = TypeVar("ConfigT", bound=RunConfig)
DataT = TypeVar("DataT", bound=LightningDataModule)
TaskT = TypeVar("TaskT", bound=LightningModule)
ResultT = TypeVar("ResultT", bound=RunResult)


class Run(ABC, Generic[ConfigT, DataT, TaskT, ResultT]):
    """Everything one run needs, built and checked before the first step.

    A recipe says in its subclass what its data, task, figures and last words are.

    Args:
        config: The options.

    Attributes:
        layers: Names of options that a checkpoint to resume must agree on; the task saves
            hyper-parameters of the same names.
        measures: Metrics to keep of every epoch.
        monitor: The metric that chooses the best checkpoint and stops early.
        mode: ``"min"`` where a lower monitor is better, else ``"max"``.
        bar: Show progress.

    Raises:
        ValueError: If an option, or the checkpoint to resume, cannot be used.
        FileNotFoundError: If the data or the checkpoint is not there.
    """

    layers: ClassVar[tuple[str, ...]]
    measures: ClassVar[tuple[str, ...]]
    monitor: ClassVar[str] = "val_loss"
    mode: ClassVar[str] = "min"
    bar: ClassVar[bool] = True

    def __init__(self, config: ConfigT) -> None:
        self.config = config
        self.resume = None if config.resume is None else find_checkpoint(config.resume)
        seed_everything(config.seed, workers=True, verbose=False)
        self.data = self.build_data()
        if self.resume is not None:
            check_hyper_parameters(self.resume, self.hyper_parameters())
        # Now rather than in fit(), so that missing files are met before anything is written.
        self.data.prepare_data()
        self.data.setup("fit")
        self.task = self.build_task()
        self.keepers = Keepers(History(*self.measures), self.monitor, self.mode)
        keep = KeepConfig(config, self.resume)
        self.trainer = build_trainer(
            config, self.keepers, self.max_epochs(), self.resume, self.bar, [keep]
        )

    def run(self) -> ResultT:
        """Train, test the best checkpoint, write the figures, and print what came out last."""
        zero = self.trainer.is_global_zero
        if zero:
            print(self.headline(), flush=True)
        outcome = self.train_and_test()
        result = self.result(outcome)
        if zero:
            figures = "\n            ".join(map(str, self.figures(outcome)))
            print(f"log         {result.run_dir}")
            print(f"checkpoint  {result.checkpoint}")
            print(f"figures     {figures}")
            print(self.last_words(result), flush=True)
        return result

    def train_and_test(self) -> Outcome:
        """Train, and test the best checkpoint."""
        trainer, resume = self.trainer, self.resume
        with quiet():
            trainer.fit(self.task, self.data, ckpt_path=None if resume is None else str(resume))
            # Kept here, because loading the best checkpoint takes the history back to its epoch.
            epochs = list(self.keepers.history.epochs)
            # A copied checkpoint with no epochs left to train has no better one beside it.
            best = self.keepers.best.best_model_path or str(resume)
            (metrics,) = trainer.test(self.task, self.data, ckpt_path=best, verbose=False)
        run_dir = Path(trainer.log_dir or self.config.out)
        return Outcome(dict(metrics), epochs, run_dir, Path(best))

    def max_epochs(self) -> int:
        """Return how many passes over the training data to make at most."""
        assert self.config.epochs is not None, "a recipe without a default says so here"
        return self.config.epochs

    def hyper_parameters(self) -> dict[str, Any]:
        """Return what a checkpoint to resume must agree on, by name."""
        return {name: getattr(self.config, name) for name in self.layers}

    @property
    def library(self) -> str:
        """Whose layers are trained."""
        return "torch.nn" if self.config.native else "fastseq"

    @property
    def weights(self) -> int:
        """Parameters of the task."""
        return sum(parameter.numel() for parameter in self.task.parameters())

    @abstractmethod
    def build_data(self) -> DataT:
        """Return the data module."""

    @abstractmethod
    def build_task(self) -> TaskT:
        """Return the task; the data are ready."""

    @abstractmethod
    def headline(self) -> str:
        """Say in a line or two what is trained, and on what."""

    @abstractmethod
    def result(self, outcome: Outcome) -> ResultT:
        """Return what the recipe's caller gets; every process calls it."""

    @abstractmethod
    def figures(self, outcome: Outcome) -> list[Path]:
        """Write the figures into the run's folder and return their paths."""

    @abstractmethod
    def last_words(self, result: ResultT) -> str:
        """Say what came out, beside the baseline."""
