"""The digit images as a LightningDataModule: seeded batches, shifted a little for training."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from fastseq.recipes.rows.mnist import mnist_datasets
from fastseq.recipes.shared.digits import digits_datasets
from fastseq.recipes.shared.images import EVALUATION_BATCH, Batch, random_shift
from fastseq.recipes.shared.loading import training_loader
from fastseq.recipes.shared.splits import Splits

SOURCES = ("digits", "mnist")


class DigitImages(LightningDataModule):
    """Handwritten digits in batches of images ``(B, 1, 28, 28)`` and labels ``(B,)``.

    Order and shifts are functions of the seed and the step alone: a resumed run sees the same
    batches as one that was never stopped.

    Args:
        source: ``"digits"`` (scikit-learn's, no download) or ``"mnist"`` (torchvision's).
        data_dir: Folder that holds ``MNIST/raw``; ``"digits"`` does not read it.
        batch_size: Training samples in a batch, on each process.
        max_shift: Training images are moved by up to this many pixels, 0 for not at all.
        seed: Seed of the order and of the shifts.
        download: Let torchvision fetch MNIST when it is missing.
    """

    def __init__(
        self,
        source: str = "digits",
        data_dir: str | Path = "data",
        batch_size: int = 64,
        max_shift: float = 2.0,
        seed: int = 0,
        download: bool = False,
    ) -> None:
        super().__init__()
        if source not in SOURCES:
            raise ValueError(f"source is {source!r}, expected one of {', '.join(SOURCES)}")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1")
        # `not >=` so that NaN is caught too.
        if not (max_shift >= 0.0 and math.isfinite(max_shift)):
            raise ValueError(f"max_shift is {max_shift}, expected a number of pixels, 0 or more")
        self.source = source
        self.data_dir = Path(data_dir)
        self.batch_size = batch_size
        self.max_shift = max_shift
        self.seed = seed
        self.download = download
        self._splits: Splits | None = None

    def prepare_data(self) -> None:
        """Fetch and unpack, on one process only, so that no two write the same file."""
        if self.source == "mnist" and self._splits is None:
            # Kept, so that this process does not read the files a second time in setup().
            self._splits = mnist_datasets(self.data_dir, download=self.download)

    def setup(self, stage: str | None = None) -> None:
        """Load the three parts, once."""
        if self._splits is None:
            load: dict[str, Callable[[], Splits]] = {
                "digits": digits_datasets,
                "mnist": lambda: mnist_datasets(self.data_dir),
            }
            self._splits = load[self.source]()

    @property
    def splits(self) -> Splits:
        """The three parts, loaded when first asked for."""
        self.setup()
        assert self._splits is not None
        return self._splits

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Shuffled batches; the sampler derives its order from seed and epoch."""
        return training_loader(self.splits.train, self.batch_size, self.seed, self.trainer)

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
