"""The recipe `fastseq train transfer`: five old classes, five new ones, and few labels."""

from __future__ import annotations

import csv
import dataclasses
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch import seed_everything
from torch import Tensor

from fastseq.recipes.shared.figures import learning_curves
from fastseq.recipes.shared.history import History
from fastseq.recipes.shared.image_classifier import MEASURES
from fastseq.recipes.shared.images import ClassImages
from fastseq.recipes.shared.quiet import quiet
from fastseq.recipes.shared.run import Outcome, Run, RunResult
from fastseq.recipes.shared.splits import Splits
from fastseq.recipes.shared.trainer import Keepers, build_trainer
from fastseq.recipes.transfer.config import TransferConfig
from fastseq.recipes.transfer.data import few_labels, halves
from fastseq.recipes.transfer.figures import transfer_accuracy
from fastseq.recipes.transfer.task import (
    WAYS,
    TransferClassifier,
    class_share,
    trained_parameters,
)


@dataclass(frozen=True, kw_only=True)
class TransferResult(RunResult):
    """What `train_transfer` leaves behind.

    Attributes:
        source_accuracy: On the old task's test images, 0 to 1.
        accuracy: On the new task's test images, by way and labels of each class.
        trained: Parameters that each way trains.
        baseline: Share of the new task's most frequent class.
    """

    source_accuracy: float
    accuracy: dict[str, dict[int, float]]
    trained: dict[str, int]
    baseline: float


class TransferRun(Run[TransferConfig, ClassImages, TransferClassifier, TransferResult]):
    """The recipe: the run itself learns the old task; the ways to the new one follow it.

    Each of them is a run of its own, in a folder such as ``frozen_10`` within that of the old task,
    and is resumed with it.
    """

    layers = ("data", "width", "pretrained")
    measures = MEASURES

    def build_data(self) -> ClassImages:
        """Return the old task's images, and keep the new one's."""
        config = self.config
        old, self.new = halves(config.data, config.data_dir, config.download)
        # Now, so that too large a number is refused before the first step.
        few_labels(self.new.train, max(config.counts), config.seed)
        return ClassImages(old, config.batch_size, config.max_shift, config.seed)

    def build_task(self) -> TransferClassifier:
        """Return the network of the old task."""
        return self._task("source", 0)

    def _task(self, way: str, labels: int) -> TransferClassifier:
        config = self.config
        return TransferClassifier(
            config.data,
            config.width,
            config.native,
            config.pretrained,
            way,
            labels,
            config.lr,
            config.weight_decay,
        )

    def headline(self) -> str:
        """Say in a line what is trained, and on what."""
        old, new = (
            " + ".join(f"{len(part):,}" for part in splits)
            for splits in (self.data.splits, self.new)
        )
        return (
            f"{self.library} {type(self.task.model).__name__}, {self.weights:,} parameters; "
            f"{self.config.data}: {old} images of classes 0 to 4 (train + validation + test), "
            f"then few of {new} images of classes 5 to 9"
        )

    def result(self, outcome: Outcome) -> TransferResult:
        """Learn the new task in every way, with every number of labels."""
        source = {name: value.clone() for name, value in self.task.model.state_dict().items()}
        accuracy: dict[str, dict[int, float]] = {way: {} for way in WAYS}
        trained = {}
        for labels in self.config.counts:
            for way in WAYS:
                accuracy[way][labels], trained[way] = self._learn(way, labels, source, outcome)
        result = TransferResult(
            source_accuracy=outcome.metrics["test_accuracy"],
            accuracy=accuracy,
            trained=trained,
            baseline=class_share(self.new.test.tensors[1]),
            run_dir=outcome.run_dir,
            checkpoint=outcome.checkpoint,
        )
        if self.trainer.is_global_zero:
            self._write(result)
        self.compared = result
        return result

    def _learn(
        self, way: str, labels: int, source: dict[str, Tensor], outcome: Outcome
    ) -> tuple[float, int]:
        """Return the test accuracy of one way, after its last epoch, and what it trained."""
        config = self.config
        folder = outcome.run_dir / f"{way}_{labels}"
        last = folder / "version_0" / "checkpoints" / "last.ckpt"
        resume = last if self.resume is not None and last.is_file() else None
        # The same numbers whether the ways before it ran in this process or in one that died.
        seed_everything(config.seed, workers=True, verbose=False)
        task = self._task(way, labels)
        task.carry_over(source)
        few = few_labels(self.new.train, labels, config.seed)
        splits = Splits(few, self.new.validation, self.new.test)
        data = ClassImages(splits, config.batch_size, config.max_shift, config.seed)
        epochs = config.target_epochs
        # Who has few labels has none to choose an epoch by: all run to the end, the last counts.
        own = dataclasses.replace(config, out=folder, patience=epochs + 1)
        trainer = build_trainer(own, Keepers(History(*MEASURES)), epochs, resume)
        with quiet():
            if trainer.is_global_zero:
                print(f"{way}, labels of each class: {labels}", flush=True)
            trainer.fit(task, data, ckpt_path=None if resume is None else str(resume))
            (metrics,) = trainer.test(task, data, ckpt_path=None, verbose=False)
        return float(metrics["test_accuracy"]), trained_parameters(task)

    def _write(self, result: TransferResult) -> None:
        with (result.run_dir / "transfer.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["way", "labels_per_class", "trained_parameters", "test_accuracy"])
            for way, row in result.accuracy.items():
                for labels, accuracy in row.items():
                    writer.writerow([way, labels, result.trained[way], f"{accuracy:.4f}"])

    def figures(self, outcome: Outcome) -> list[Path]:
        """Draw the old task's learning curves, and accuracy against labels in every way."""
        data, folder = self.config.data, outcome.run_dir
        title = f"{data}: classes 0 to 4 learned, 5 to 9 from few labels"
        return [
            learning_curves(
                outcome.epochs, folder / "learning_curves.png", f"{data}, classes 0 to 4"
            ),
            transfer_accuracy(
                self.compared.accuracy, self.compared.baseline, folder / "transfer.png", title
            ),
        ]

    def last_words(self, result: TransferResult) -> str:
        """Return the table, with the baseline."""
        counts = self.config.counts
        width = max(map(len, ("labels of each class", *WAYS)))
        lines = [
            f"{'labels of each class':<{width}}  {'trained':>10}"
            + "".join(f"{count:>9}" for count in counts)
        ]
        for way, row in result.accuracy.items():
            cells = "".join(f"{100.0 * row[count]:>7.2f} %" for count in counts)
            lines.append(f"{way:<{width}}  {result.trained[way]:>10,}{cells}")
        best = max(result.accuracy, key=lambda way: result.accuracy[way][counts[-1]])
        return "\n".join(
            [
                f"old task: test accuracy {100.0 * result.source_accuracy:.2f} %",
                f"baseline of the new task: the most frequent class has "
                f"{100.0 * result.baseline:.2f} %",
                *lines,
                f"test accuracy {100.0 * result.accuracy[best][counts[-1]]:.2f} % ({best}, "
                f"labels of each class: {counts[-1]})",
            ]
        )


def train_transfer(config: TransferConfig | None = None) -> TransferResult:
    """Learn classes 5 to 9 from few labels, with and without what 0 to 4 taught.

    Args:
        config: The options; ``None`` takes the defaults.

    Returns:
        Accuracies, run folder and the old task's best checkpoint.

    Example:
        >>> from fastseq.recipes.transfer.config import TransferConfig
        >>> from fastseq.recipes.transfer.run import train_transfer
        >>> result = train_transfer(TransferConfig(labels="5,20"))  # doctest: +SKIP
    """
    return TransferRun(config or TransferConfig()).run()
