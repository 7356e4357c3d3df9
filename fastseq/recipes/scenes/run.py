"""The recipe `fastseq train scenes`: a class for every pixel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fastseq.recipes.scenes.config import ScenesConfig
from fastseq.recipes.scenes.data import LabelledImages
from fastseq.recipes.scenes.datasets import CLASSES
from fastseq.recipes.scenes.figures import segmentations
from fastseq.recipes.scenes.task import Segmenter
from fastseq.recipes.shared.figures import Measure, learning_curves
from fastseq.recipes.shared.run import Outcome, Run, RunResult

# Height and width of the images.
SIZES = {"scenes": 48, "pets": 128, "voc": 128}
IOU = Measure("val_iou", "mean IoU (%)", scale=100.0, unit=" %")


@dataclass(frozen=True, kw_only=True)
class ScenesResult(RunResult):
    """What `train_scenes` leaves behind, on the test images and with the best checkpoint.

    Attributes:
        iou: Mean over the classes of intersection over union, 0 to 1.
        accuracy: Share of the pixels with the right class, 0 to 1.
        baseline_class: The most frequent class.
        baseline_iou: Mean IoU of saying that class everywhere.
        baseline_accuracy: Pixel accuracy of saying that class everywhere.
    """

    iou: float
    accuracy: float
    baseline_class: str
    baseline_iou: float
    baseline_accuracy: float


class ScenesRun(Run[ScenesConfig, LabelledImages, Segmenter, ScenesResult]):
    """The recipe, built and checked before the first step."""

    layers = ("network", "width", "data")
    measures = ("train_loss", "val_loss", "val_iou", "val_accuracy")
    monitor = "val_iou"
    mode = "max"

    def build_data(self) -> LabelledImages:
        """Return labelled images in seeded batches."""
        config = self.config
        if config.data not in CLASSES:
            raise ValueError(f"data is {config.data!r}, expected one of {', '.join(CLASSES)}")
        return LabelledImages(
            config.data,
            config.data_dir,
            config.scenes,
            config.size or SIZES[config.data],
            config.batch_size,
            config.seed,
            config.download,
        )

    def build_task(self) -> Segmenter:
        """Return the network with its loss and optimizer."""
        config = self.config
        return Segmenter(
            config.network,
            config.width,
            config.native,
            config.data,
            config.pretrained,
            config.lr,
            config.weight_decay,
        )

    def headline(self) -> str:
        """Say in a line what is trained, and on what."""
        config = self.config
        sizes = " + ".join(f"{len(part):,}" for part in self.data.parts)  # type: ignore[arg-type]
        return (
            f"{self.library} {type(self.task.model).__name__}, {self.weights:,} parameters; "
            f"{config.data}: {sizes} images of {self.data.size} x {self.data.size} pixels "
            f"(train + validation + test), {len(CLASSES[config.data])} classes"
        )

    def result(self, outcome: Outcome) -> ScenesResult:
        """Return mean IoU, accuracy and baselines."""
        name, iou, accuracy = self.task.baseline()
        return ScenesResult(
            iou=outcome.metrics["test_iou"],
            accuracy=outcome.metrics["test_accuracy"],
            baseline_class=name,
            baseline_iou=iou,
            baseline_accuracy=accuracy,
            run_dir=outcome.run_dir,
            checkpoint=outcome.checkpoint,
        )

    def figures(self, outcome: Outcome) -> list[Path]:
        """Draw the learning curves, and some test images with truth and prediction."""
        config, folder = self.config, outcome.run_dir
        network = f"{self.library} {type(self.task.model).__name__}"
        iou = 100.0 * outcome.metrics["test_iou"]
        title = f"{network}, {config.data}: test mean IoU {iou:.1f} %"
        classes = CLASSES[config.data]
        name, baseline, _ = self.task.baseline()
        return [
            learning_curves(
                outcome.epochs,
                folder / "learning_curves.png",
                f"{network}, {config.data}",
                IOU,
                {f"{name} everywhere": baseline},
            ),
            segmentations(self.task.examples, classes, folder / "segmentations.png", title),
        ]

    def last_words(self, result: ScenesResult) -> str:
        """Say mean IoU and accuracy, and what saying one class everywhere would give."""
        return (
            f"baseline: {result.baseline_class} everywhere has "
            f"mean IoU {100.0 * result.baseline_iou:.2f} %, "
            f"pixel accuracy {100.0 * result.baseline_accuracy:.2f} %\n"
            f"test mean IoU {100.0 * result.iou:.2f} %, "
            f"pixel accuracy {100.0 * result.accuracy:.2f} %"
        )


def train_scenes(config: ScenesConfig | None = None) -> ScenesResult:
    """Train a segmentation network; the last line printed is mean IoU and pixel accuracy.

    Args:
        config: The options; ``None`` takes the defaults.

    Returns:
        Test metrics, baselines, run folder and best checkpoint.

    Example:
        >>> from fastseq.recipes.scenes.config import ScenesConfig
        >>> from fastseq.recipes.scenes.run import train_scenes
        >>> result = train_scenes(ScenesConfig(network="transpose", epochs=2))  # doctest: +SKIP
    """
    return ScenesRun(config or ScenesConfig()).run()
