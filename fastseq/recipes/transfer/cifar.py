"""CIFAR-10 through torchvision, with a validation set split off the training images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import TensorDataset

from fastseq.recipes.shared.splits import Splits, stratified_split

VALIDATION_SHARE = 0.1
SPLIT_SEED = 0


def cifar10_datasets(root: str | Path, download: bool = False) -> Splits:
    """Load CIFAR-10 from ``root/cifar-10-batches-py``, where torchvision keeps it.

    Args:
        root: Folder that holds, or will hold, ``cifar-10-batches-py``.
        download: Fetch missing files with torchvision.

    Returns:
        45,000 training, 5,000 validation and 10,000 test samples: float32 images ``(3, 32, 32)``
        in [0, 1] and int64 labels.

    Raises:
        FileNotFoundError: If files are missing or broken and ``download`` is false.
    """
    from torchvision.datasets import CIFAR10

    place = Path(root) / CIFAR10.base_folder
    try:
        training = CIFAR10(str(root), train=True, download=download)
        testing = CIFAR10(str(root), train=False, download=download)
    # torchvision's way to say that files are not there.
    except RuntimeError as error:
        raise FileNotFoundError(
            f"CIFAR-10 is not complete in {place} ({error}); pass as root (--data-dir) the folder "
            f"that holds {place.name}, or let download=True (--download) fetch it"
        ) from error
    labels = torch.tensor(training.targets)
    rest, validation = stratified_split(labels, VALIDATION_SHARE, SPLIT_SEED)
    train, held = (_dataset(training, part.numpy()) for part in (rest, validation))
    return Splits(train, held, _dataset(testing, slice(None)))


def _dataset(data: Any, part: Any) -> TensorDataset:
    images = torch.from_numpy(data.data[part]).permute(0, 3, 1, 2).float().div(255.0)
    return TensorDataset(images, torch.tensor(data.targets)[part])
