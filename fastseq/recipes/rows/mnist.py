"""MNIST through torchvision, with a validation set split off the training images."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

from torch import Tensor
from torch.utils.data import TensorDataset

from fastseq.recipes.shared.splits import Splits, stratified_split

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
# 60,000 training images leave 55,000, which is 550 batches of 100.
VALIDATION_SHARE = 1 / 12
SPLIT_SEED = 0


def mnist_datasets(
    root: str | Path, download: bool = False, split_seed: int = SPLIT_SEED
) -> Splits:
    """Load MNIST from ``root/MNIST/raw``, where torchvision keeps it.

    Files that are there only as ``.gz`` are unpacked beside themselves first.

    Args:
        root: Folder that holds, or will hold, ``MNIST/raw``.
        download: Fetch missing files with torchvision.
        split_seed: Seed of the stratified split of validation from training images.

    Returns:
        About 55,000 training, 5,000 validation and 10,000 test samples: float32 images
        ``(1, 28, 28)`` in [0, 1] and int64 labels.

    Raises:
        FileNotFoundError: If files are missing and ``download`` is false.
        ValueError: If a file is not a readable IDX file.
    """
    from torchvision.datasets import MNIST

    raw = Path(root) / "MNIST" / "raw"
    _unpack(raw)
    missing = _missing(raw)
    if missing and not download:
        raise FileNotFoundError(
            f"MNIST is not complete in {raw}: {', '.join(missing)} missing, plain or .gz; pass "
            f"as root (--data-dir) the folder that holds MNIST/raw, or let download=True "
            f"(--download) fetch the files"
        )
    try:
        training = MNIST(str(root), train=True, download=download)
        testing = MNIST(str(root), train=False, download=False)
    # torchvision meets a broken file with a bare assertion, or an index or buffer error.
    except (AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # A failed download says so itself.
        if _missing(raw):
            raise
        raise ValueError(
            f"a file in {raw} is not a whole IDX file ({type(error).__name__}: {error}); "
            f"delete it and fetch it again"
        ) from error

    rest, validation = stratified_split(training.targets, VALIDATION_SHARE, split_seed)
    train = _dataset(training.data[rest], training.targets[rest], raw)
    held = _dataset(training.data[validation], training.targets[validation], raw)
    return Splits(train, held, _dataset(testing.data, testing.targets, raw))


def _missing(raw: Path) -> list[str]:
    return [name for name in FILES if not (raw / name).is_file()]


def _unpack(raw: Path) -> None:
    for name in FILES:
        packed, plain = raw / f"{name}.gz", raw / name
        if plain.is_file() or not packed.is_file():
            continue
        partial = raw / f"{name}.partial"
        try:
            with gzip.open(packed, "rb") as source, partial.open("wb") as target:
                shutil.copyfileobj(source, target)
        except (EOFError, gzip.BadGzipFile) as error:
            partial.unlink(missing_ok=True)
            raise ValueError(
                f"{packed} is not a whole gzip file ({error}); delete it and fetch it again"
            ) from error
        # Renamed when whole, so that an interrupted run leaves no half file behind.
        partial.replace(plain)


def _dataset(images: Tensor, labels: Tensor, raw: Path) -> TensorDataset:
    if len(images) != len(labels) or images.shape[1:] != (28, 28):
        raise ValueError(
            f"the files in {raw} hold images of shape {tuple(images.shape)} and {len(labels)} "
            f"labels, expected (N, 28, 28) and N; fetch them again"
        )
    return TensorDataset(images.float().div(255.0).unsqueeze(1), labels.long())
