"""The recipe `fastseq train rows`: handwritten digits, read row by row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from fastseq.recipes.rows.config import RowsConfig
from fastseq.recipes.rows.data import DigitImages
from fastseq.recipes.rows.figures import misread_digits
from fastseq.recipes.rows.task import RowClassifier
from fastseq.recipes.shared.figures import learning_curves
from fastseq.recipes.shared.run import Outcome, Run, RunResult

# Small data take more passes to make as many steps.
EPOCHS = {"digits": 60, "mnist": 10}


@dataclass(frozen=True, kw_only=True)
class RowsResult(RunResult):
    """What `train_rows` leaves behind.

    Attributes:
        accuracy: Share of the test images read right, 0 to 1, with the best checkpoint.
    """

    accuracy: float


class RowsRun(Run[RowsConfig, DigitImages, RowClassifier, RowsResult]):
    """The recipe, built and checked before the first step."""

    layers = ("cell", "hidden_size", "num_layers")
    measures = ("train_loss", "val_loss", "val_accuracy")

    def build_data(self) -> DigitImages:
        """Return digits in seeded batches."""
        config = self.config
        return DigitImages(
            config.data,
            config.data_dir,
            batch_size=config.batch_size,
            max_shift=config.max_shift,
            seed=config.seed,
            download=config.download,
        )

    def build_task(self) -> RowClassifier:
        """Return the RowRNN with its loss and optimizer."""
        config = self.config
        return RowClassifier(
            config.cell,
            config.hidden_size,
            config.num_layers,
            config.dropout,
            config.native,
            config.lr,
            config.weight_decay,
        )

    def max_epochs(self) -> int:
        """Return the epochs asked for, or as many as the data set takes."""
        return self.config.epochs or EPOCHS[self.config.data]

    def headline(self) -> str:
        """Say in a line what is trained, and on what."""
        config = self.config
        sizes = " + ".join(f"{len(part):,}" for part in self.data.splits)
        return (
            f"{self.library} {config.cell.upper()}, {config.num_layers} x {config.hidden_size} "
            f"units, {self.weights:,} parameters; {config.data}: {sizes} images "
            f"(train + validation + test)"
        )

    def result(self, outcome: Outcome) -> RowsResult:
        """Return accuracy, run folder and best checkpoint."""
        return RowsResult(
            accuracy=outcome.metrics["test_accuracy"],
            run_dir=outcome.run_dir,
            checkpoint=outcome.checkpoint,
        )

    def figures(self, outcome: Outcome) -> list[Path]:
        """Draw the learning curves and the misread digits."""
        config, total = self.config, len(self.data.splits.test)
        images, labels, read = (torch.cat(part) for part in zip(*self.task.misread, strict=True))
        title = f"{self.library} {config.cell.upper()} reading {config.data} row by row"
        folder = outcome.run_dir
        return [
            learning_curves(outcome.epochs, folder / "learning_curves.png", title),
            misread_digits(images, labels, read, folder / "misread_digits.png", total),
        ]

    def last_words(self, result: RowsResult) -> str:
        """Say the baseline, and in the last line the test accuracy."""
        labels = self.data.splits.test.tensors[1]
        frequent = float(labels.bincount().max() / len(labels))
        return (
            f"baseline: the most frequent digit has {100.0 * frequent:.2f} %\n"
            f"test accuracy {100.0 * result.accuracy:.2f} %"
        )


def train_rows(config: RowsConfig | None = None) -> RowsResult:
    """Train a RowRNN on handwritten digits; the last line printed is the test accuracy.

    Args:
        config: The options; ``None`` takes the defaults.

    Returns:
        Test accuracy, run folder and best checkpoint.

    Example:
        >>> from fastseq.recipes.rows.config import RowsConfig
        >>> from fastseq.recipes.rows.run import train_rows
        >>> result = train_rows(RowsConfig(cell="gru", epochs=2))  # doctest: +SKIP
    """
    return RowsRun(config or RowsConfig()).run()
