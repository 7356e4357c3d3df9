"""Images as a LightningDataModule: seeded batches, shifted a little for training."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from fastseq.recipes.shared.loading import training_loader
from fastseq.recipes.shared.splits import Splits

Batch = tuple[Tensor, Tensor]
EVALUATION_BATCH = 512
# An epoch has at least this many batches, however few images there are.
MIN_BATCHES = 10


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


def random_shift(images: Tensor, max_shift: float, seed: int) -> Tensor:
    """Move every image by its own random number of pixels, black flowing in at the edges.

    Args:
        images: ``(B, C, H, W)``.
        max_shift: Largest move along each axis, in pixels; fractions interpolate.
        seed: The same seed makes the same moves, on any device.

    Returns:
        Images of the same shape.
    """
    batch, _, height, width = images.shape
    generator = torch.Generator().manual_seed(seed)
    shift = torch.rand(batch, 2, generator=generator).mul(2.0).sub(1.0).mul(max_shift)  # (B, 2)
    # grid_sample counts in half images, x before y.
    moves = (shift / torch.tensor([width / 2, height / 2])).to(images)
    theta = torch.eye(2, 3).to(images).repeat(batch, 1, 1)  # (B, 2, 3)
    theta[:, :, 2] = moves
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)  # (B, H, W, 2)
    return F.grid_sample(images, grid, mode="bilinear", align_corners=False)
