"""The recipe `fastseq train rows`: handwritten digits, read row by row."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from fastseq.data.module import DigitImages
from fastseq.training.classifier import RowClassifier
from fastseq.training.figures import learning_curves, misread_digits
from fastseq.training.history import Epoch, History
from fastseq.training.quiet import EpochBar, quiet
from fastseq.training.resume import check_hyper_parameters, find_checkpoint

# Small data take more passes to make as many steps.
EPOCHS = {"digits": 60, "mnist": 10}


@dataclass(frozen=True)
class RowsConfig:
    """Options of the recipe; the command line's have the same names.

    Attributes:
        cell: ``"lstm"``, ``"gru"`` or ``"rnn"``.
        data: ``"digits"`` (no download) or ``"mnist"``.
        data_dir: Folder that holds ``MNIST/raw``.
        download: Let torchvision fetch MNIST.
        native: Train the same model with torch.nn's layers, to compare.
        epochs: Passes over the training images at most; ``None`` is 60 for digits, 10 for MNIST.
        patience: Epochs without a better validation loss before stopping early.
        batch_size: Images in a batch, on each device.
        hidden_size: Units of each recurrent layer.
        num_layers: Recurrent layers, stacked.
        dropout: Between stacked layers.
        max_shift: Training images move by up to this many pixels.
        lr: Peak learning rate.
        weight_decay: AdamW's.
        seed: Of the parameters, the order and the shifts.
        accelerator: Handed to Lightning, as are the next three.
        devices: Number or list of devices.
        strategy: For instance ``"ddp"``.
        precision: For instance ``"bf16-mixed"``.
        resume: Checkpoint, or folder of a run, to go on from.
        out: Folder of the runs; each makes a ``version_N`` in it.
    """

    cell: str = "lstm"
    data: str = "digits"
    data_dir: Path = Path("data")
    download: bool = False
    native: bool = False
    epochs: int | None = None
    patience: int = 15
    batch_size: int = 32
    hidden_size: int = 128
    num_layers: int = 2
    dropout: float = 0.0
    max_shift: float = 1.5
    lr: float = 2e-3
    weight_decay: float = 0.1
    seed: int = 0
    accelerator: str = "auto"
    devices: str = "1"
    strategy: str = "auto"
    precision: str = "32-true"
    resume: Path | None = None
    out: Path = Path("runs/rows")

    def __post_init__(self) -> None:
        """Refuse what no later part would refuse in words."""
        for name in ("epochs", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1")
        if not (self.lr > 0.0 and math.isfinite(self.lr)):
            raise ValueError(f"lr is {self.lr}, expected a positive number such as 0.003")
        if not (self.weight_decay >= 0.0 and math.isfinite(self.weight_decay)):
            raise ValueError(f"weight_decay is {self.weight_decay}, expected 0 or more")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}, expected 0 to {2**32 - 1}")


@dataclass(frozen=True)
class RowsResult:
    """What `train_rows` leaves behind.

    Attributes:
        accuracy: Share of the test images read right, 0 to 1, with the best checkpoint.
        run_dir: Folder with the TensorBoard log, ``checkpoints/`` and the figures.
        checkpoint: The checkpoint with the lowest validation loss.
    """

    accuracy: float
    run_dir: Path
    checkpoint: Path


class RowsRun:
    """Everything one run needs, built and checked before the first step.

    Args:
        config: The options.

    Raises:
        ValueError: If an option, or the checkpoint to resume, cannot be used.
        FileNotFoundError: If the data or the checkpoint is not there.
    """

    def __init__(self, config: RowsConfig) -> None:
        self.config = config
        self.resume = None if config.resume is None else find_checkpoint(config.resume)
        if self.resume is not None:
            names = ("cell", "hidden_size", "num_layers")
            check_hyper_parameters(self.resume, {name: getattr(config, name) for name in names})
        seed_everything(config.seed, workers=True, verbose=False)
        self.data = DigitImages(
            config.data,
            config.data_dir,
            batch_size=config.batch_size,
            max_shift=config.max_shift,
            seed=config.seed,
            download=config.download,
        )
        # Now rather than in fit(), so that missing files are met before anything is written.
        self.data.prepare_data()
        self.data.setup()
        self.task = RowClassifier(
            config.cell,
            config.hidden_size,
            config.num_layers,
            config.dropout,
            config.native,
            config.lr,
            config.weight_decay,
        )
        self.history = History("train_loss", "val_loss", "val_accuracy")
        # Saved when the epoch is over, so that a resumed run begins a new one.
        common: dict[str, Any] = {"save_on_train_epoch_end": True, "enable_version_counter": False}
        self.best = ModelCheckpoint(filename="best", monitor="val_loss", mode="min", **common)
        self.last = ModelCheckpoint(filename="last", **common)
        with quiet():
            self.trainer = self._trainer()

    def _trainer(self) -> Trainer:
        config = self.config
        place: dict[str, Any] = {"save_dir": config.out}
        if self.resume is not None and self.resume.resolve().parent.name == "checkpoints":
            # The same folder again: one run, one log, one pair of figures.
            run_dir = self.resume.resolve().parent.parent
            place = {"save_dir": run_dir.parent, "version": run_dir.name}
        precision: Any = config.precision
        return Trainer(
            max_epochs=config.epochs or EPOCHS[config.data],
            accelerator=config.accelerator,
            devices=config.devices,
            strategy=config.strategy,
            precision=precision,
            gradient_clip_val=1.0,
            logger=TensorBoardLogger(name="", **place),
            callbacks=[
                self.history,
                EarlyStopping("val_loss", patience=config.patience, mode="min"),
                EpochBar(refresh_rate=10),
                self.best,
                self.last,
            ],
            log_every_n_steps=10,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            # The data module's sampler already divides the training images among processes.
            use_distributed_sampler=False,
        )

    def run(self) -> RowsResult:
        """Train, test the best checkpoint, write the figures, and print the accuracy last."""
        trainer, resume = self.trainer, self.resume
        with quiet():
            if trainer.is_global_zero:
                print(self.headline(), flush=True)
            trainer.fit(self.task, self.data, ckpt_path=None if resume is None else str(resume))
            # Kept here, because loading the best checkpoint takes the history back to its epoch.
            epochs = list(self.history.epochs)
            # A copied checkpoint with no epochs left to train has no better one beside it.
            best = self.best.best_model_path or str(resume)
            (metrics,) = trainer.test(self.task, self.data, ckpt_path=best, verbose=False)
        run_dir = Path(trainer.log_dir or self.config.out)
        result = RowsResult(metrics["test_accuracy"], run_dir, Path(best))
        if trainer.is_global_zero:
            self._report(result, epochs)
        return result

    def headline(self) -> str:
        """Say in a line what is trained, and on what."""
        config = self.config
        weights = sum(parameter.numel() for parameter in self.task.parameters())
        sizes = " + ".join(f"{len(part):,}" for part in self.data.splits)
        library = "torch.nn" if config.native else "fastseq"
        return (
            f"{library} {config.cell.upper()}, {config.num_layers} x {config.hidden_size} units, "
            f"{weights:,} parameters; {config.data}: {sizes} images (train + validation + test)"
        )

    def _report(self, result: RowsResult, epochs: list[Epoch]) -> None:
        config, total = self.config, len(self.data.splits.test)
        images, labels, read = (torch.cat(part) for part in zip(*self.task.misread, strict=True))
        library = "torch.nn" if config.native else "fastseq"
        title = f"{library} {config.cell.upper()} reading {config.data} row by row"
        curves = learning_curves(epochs, result.run_dir / "learning_curves.png", title)
        wrong = misread_digits(images, labels, read, result.run_dir / "misread_digits.png", total)
        print(f"log         {result.run_dir}")
        print(f"checkpoint  {result.checkpoint}")
        print(f"figures     {curves}\n            {wrong}")
        print(f"test accuracy {100.0 * result.accuracy:.2f} %", flush=True)


def train_rows(config: RowsConfig | None = None) -> RowsResult:
    """Train a RowRNN on handwritten digits; the last line printed is the test accuracy.

    Args:
        config: The options; ``None`` takes the defaults.

    Returns:
        Test accuracy, run folder and best checkpoint.

    Example:
        >>> from fastseq.training.rows import RowsConfig, train_rows
        >>> result = train_rows(RowsConfig(cell="gru", epochs=2))  # doctest: +SKIP
    """
    return RowsRun(config or RowsConfig()).run()
