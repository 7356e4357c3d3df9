"""Images whose every pixel has a class: digit scenes, and torchvision's pets and VOC."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from fastseq.recipes.scenes.digit_scenes import SCENE_CLASSES, DigitScenes
from fastseq.recipes.shared.digits import digits_datasets

Sample = tuple[Tensor, Tensor]
# The class of pixels that count for nothing: borders of objects in VOC.
IGNORE = 255
PET_CLASSES = ("pet", "background", "border")
VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair"),
    *("cow", "table", "dog", "horse", "motorbike", "person", "plant", "sheep", "sofa", "train"),
    "monitor",
)
# By the name of the data set.
CLASSES: dict[str, tuple[str, ...]] = {
    "scenes": SCENE_CLASSES,
    "pets": PET_CLASSES,
    "voc": VOC_CLASSES,
}
VALIDATION_SHARE = 0.1
SPLIT_SEED = 0
# The scenes to validate and test are the same whatever the seed, so that figures compare.
HELD_OUT_SEED = 1_000_000


class LabelledParts(NamedTuple):
    """Train, validation and test sets: images ``(3, S, S)`` in [0, 1] and classes ``(S, S)``."""

    train: Dataset[Sample]
    validation: Dataset[Sample]
    test: Dataset[Sample]


def scene_datasets(count: int = 1600, size: int = 48, seed: int = 0) -> LabelledParts:
    """Compose digit scenes: ``count`` to train on, an eighth to validate, a quarter to test.

    Args:
        count: Training scenes.
        size: Height and width of the scenes.
        seed: Of the training scenes.
    """
    digits = digits_datasets()
    return LabelledParts(
        DigitScenes(digits.train, count, size, seed),
        DigitScenes(digits.validation, max(1, count // 8), size, HELD_OUT_SEED),
        DigitScenes(digits.test, max(1, count // 4), size, HELD_OUT_SEED + 1),
    )


def pets_datasets(root: str | Path, size: int = 128, download: bool = False) -> LabelledParts:
    """Load the Oxford-IIIT pets from ``root/oxford-iiit-pet``, where torchvision keeps them.

    Args:
        root: Folder that holds, or will hold, ``oxford-iiit-pet``.
        size: Height and width to which images are resized.
        download: Fetch missing files with torchvision.

    Raises:
        FileNotFoundError: If files are missing and ``download`` is false.
    """
    from torchvision.datasets import OxfordIIITPet

    def load(part: str) -> Dataset[Any]:
        pairs: Dataset[Any] = OxfordIIITPet(str(root), part, "segmentation", download=download)
        return pairs

    training, test = _find(load, ("trainval", "test"), Path(root) / "oxford-iiit-pet")
    # Trimaps count from 1.
    rest, validation = _split(Resized(training, size, lambda trimap: trimap - 1))
    return LabelledParts(rest, validation, Resized(test, size, lambda trimap: trimap - 1))


def voc_datasets(root: str | Path, size: int = 128, download: bool = False) -> LabelledParts:
    """Load VOC 2012 from ``root/VOCdevkit/VOC2012``; its validation images are the test part.

    Args:
        root: Folder that holds, or will hold, ``VOCdevkit``.
        size: Height and width to which images are resized.
        download: Fetch missing files with torchvision.

    Raises:
        FileNotFoundError: If files are missing and ``download`` is false.
    """
    from torchvision.datasets import VOCSegmentation

    def load(part: str) -> Dataset[Any]:
        pairs: Dataset[Any] = VOCSegmentation(str(root), "2012", part, download)
        return pairs

    place = Path(root) / "VOCdevkit" / "VOC2012"
    training, test = _find(load, ("train", "val"), place)
    rest, validation = _split(Resized(training, size))
    return LabelledParts(rest, validation, Resized(test, size))


class Resized(Dataset[Sample]):
    """Pictures and their label pictures as square tensors of one size.

    Args:
        pairs: Gives a PIL image and a PIL label image.
        size: Height and width of the results.
        classes: Makes classes of the numbers in a label image.
    """

    def __init__(
        self, pairs: Dataset[Any], size: int, classes: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        if size < 1:
            raise ValueError(f"size is {size}, expected at least 1")
        self.pairs = pairs
        self.size = size
        self.classes = classes

    def __len__(self) -> int:
        """Return how many pairs there are."""
        return len(self.pairs)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Sample:
        """Return an image ``(3, size, size)`` in [0, 1] and classes ``(size, size)``."""
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.v2 import functional

        picture, labels = self.pairs[index]
        image = functional.pil_to_tensor(picture.convert("RGB"))  # (3, H, W)
        image = functional.resize(image, [self.size, self.size], antialias=True)
        classes = functional.pil_to_tensor(labels).long()  # (1, H, W)
        nearest = InterpolationMode.NEAREST_EXACT
        classes = functional.resize(classes, [self.size, self.size], interpolation=nearest)[0]
        return image.float().div(255.0), classes if self.classes is None else self.classes(classes)


def _find(
    load: Callable[[str], Dataset[Any]], parts: tuple[str, str], place: Path
) -> tuple[Dataset[Any], Dataset[Any]]:
    try:
        return load(parts[0]), load(parts[1])
    # torchvision's way to say that a folder is not there.
    except (RuntimeError, FileNotFoundError) as error:
        raise FileNotFoundError(
            f"the images are not complete in {place} ({error}); pass as root (--data-dir) the "
            f"folder that holds {place.parent.name if place.name == 'VOC2012' else place.name}, "
            f"or let download=True (--download) fetch them"
        ) from error


def _split(data: Dataset[Sample]) -> tuple[Dataset[Sample], Dataset[Sample]]:
    """Split a tenth off for validation, the same one each time."""
    count = len(data)  # type: ignore[arg-type]
    order = torch.randperm(count, generator=torch.Generator().manual_seed(SPLIT_SEED)).tolist()
    held = max(1, round(VALIDATION_SHARE * count))
    return Subset(data, sorted(order[held:])), Subset(data, sorted(order[:held]))
