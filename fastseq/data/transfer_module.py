"""Half of the classes of a data set as a LightningDataModule, with all labels or with few."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from fastseq.data.cifar import cifar10_datasets
from fastseq.data.digits import digits_datasets
from fastseq.data.loading import training_loader
from fastseq.data.module import Batch, random_shift
from fastseq.data.splits import Splits

SOURCES = ("digits", "cifar10")
# The old task has classes 0 to 4, the new one 5 to 9.
HALF = 5
EVALUATION_BATCH = 512
# An epoch has at least this many batches, however few images there are.
MIN_BATCHES = 10


def halves(
    source: str, data_dir: str | Path = "data", download: bool = False
) -> tuple[Splits, Splits]:
    """Load a data set and return classes 0 to 4, and classes 5 to 9 counted from 0.

    Args:
        source: ``"digits"`` (scikit-learn's) or ``"cifar10"`` (torchvision's).
        data_dir: Folder that holds ``cifar-10-batches-py``.
        download: Let torchvision fetch CIFAR-10.

    Raises:
        ValueError: If there is no such source.
        FileNotFoundError: If the files are missing.
    """
    if source not in SOURCES:
        raise ValueError(f"source is {source!r}, expected one of {', '.join(SOURCES)}")
    whole = digits_datasets() if source == "digits" else cifar10_datasets(data_dir, download)
    old, new = [], []
    for part in whole:
        images, labels = part.tensors
        first = labels < HALF
        old.append(TensorDataset(images[first], labels[first]))
        new.append(TensorDataset(images[~first], labels[~first] - HALF))
    return Splits(*old), Splits(*new)


def few_labels(data: TensorDataset, per_class: int, seed: int = 0) -> TensorDataset:
    """Return ``per_class`` images of each class; a larger number keeps those of a smaller one.

    Raises:
        ValueError: If a class has not so many images.
    """
    images, labels = data.tensors
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for label in torch.unique(labels):
        places = (labels == label).nonzero().flatten()
        if not 1 <= per_class <= len(places):
            raise ValueError(
                f"labels is {per_class}, expected 1 to {len(places)}, the images of a class"
            )
        chosen.append(places[torch.randperm(len(places), generator=generator)][:per_class])
    together = torch.cat(chosen)
    return TensorDataset(images[together], labels[together])


class ClassImages(LightningDataModule):
    """Images of some classes in seeded batches, shifted a little for training.

    Order and shifts are functions of the seed and the step alone. Of few images an epoch makes
    several passes, so that it has at least ten batches.

    Args:
        splits: Train, validation and test samples.
        batch_size: Training samples in a batch, on each process.
        max_shift: Training images are moved by up to this many pixels, 0 for not at all.
        seed: Of the order and of the shifts.
    """

    def __init__(
        self, splits: Splits, batch_size: int = 32, max_shift: float = 1.5, seed: int = 0
    ) -> None:
        super().__init__()
        self.splits = splits
        self.batch_size = batch_size
        self.max_shift = max_shift
        self.seed = seed

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Shuffled batches; the sampler derives its order from seed and epoch."""
        train = self.splits.train
        passes = max(1, math.ceil(MIN_BATCHES * self.batch_size / len(train)))
        images, labels = train.tensors
        repeated = TensorDataset(images.repeat(passes, 1, 1, 1), labels.repeat(passes))
        return training_loader(repeated, self.batch_size, self.seed, self.trainer)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """The validation part, in order and whole on every process."""
        return DataLoader(self.splits.validation, EVALUATION_BATCH)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """The test part, in order and whole on every process."""
        return DataLoader(self.splits.test, EVALUATION_BATCH)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Shift training images; validation and test images stay as they are."""
        trainer = self.trainer
        if trainer is None or not trainer.training or self.max_shift == 0.0:
            return batch
        images, labels = batch
        step = trainer.global_step * trainer.world_size + trainer.global_rank
        return random_shift(images, self.max_shift, self.seed * 1_000_003 + step), labels
