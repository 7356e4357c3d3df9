"""Half of the classes of a data set, with all labels or with few."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.utils.data import TensorDataset

from fastseq.recipes.shared.digits import digits_datasets
from fastseq.recipes.shared.splits import Splits
from fastseq.recipes.transfer.cifar import cifar10_datasets

SOURCES = ("digits", "cifar10")
# The old task has classes 0 to 4, the new one 5 to 9.
HALF = 5


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
