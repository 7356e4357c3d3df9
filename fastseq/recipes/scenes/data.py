"""Labelled images as a LightningDataModule: seeded batches, photographs mirrored at random."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from fastseq.recipes.scenes.datasets import (
    CLASSES,
    LabelledParts,
    Sample,
    pets_datasets,
    scene_datasets,
    voc_datasets,
)
from fastseq.recipes.shared.loading import training_loader

EVALUATION_BATCH = 50


class LabelledImages(LightningDataModule):
    """Batches of images ``(B, 3, S, S)`` and the classes of their pixels ``(B, S, S)``.

    Order and mirroring are functions of the seed and the step alone: a resumed run sees the same
    batches as one that was never stopped.

    Args:
        source: ``"scenes"`` (made here), ``"pets"`` or ``"voc"`` (torchvision's).
        data_dir: Folder that holds ``oxford-iiit-pet`` or ``VOCdevkit``.
        count: Training scenes; of the photographs all are used.
        size: Height and width of the images.
        batch_size: Training samples in a batch, on each process.
        seed: Of scenes, order and mirroring.
        download: Let torchvision fetch photographs that are missing.
    """

    def __init__(
        self,
        source: str = "scenes",
        data_dir: str | Path = "data",
        count: int = 1600,
        size: int = 48,
        batch_size: int = 16,
        seed: int = 0,
        download: bool = False,
    ) -> None:
        super().__init__()
        if source not in CLASSES:
            raise ValueError(f"source is {source!r}, expected one of {', '.join(CLASSES)}")
        self.source = source
        self.data_dir = Path(data_dir)
        self.count = count
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.download = download
        self._parts: LabelledParts | None = None

    def prepare_data(self) -> None:
        """Fetch photographs, on one process only, so that no two write the same file."""
        if self._parts is None:
            self._parts = self._load(self.download)

    def setup(self, stage: str | None = None) -> None:
        """Make or find the three parts, once."""
        if self._parts is None:
            self._parts = self._load(download=False)

    def _load(self, download: bool) -> LabelledParts:
        if self.source == "scenes":
            return scene_datasets(self.count, self.size, self.seed)
        load = pets_datasets if self.source == "pets" else voc_datasets
        return load(self.data_dir, self.size, download)

    @property
    def parts(self) -> LabelledParts:
        """The three parts, made or found when first asked for."""
        self.setup()
        assert self._parts is not None
        return self._parts

    def train_dataloader(self) -> DataLoader[Sample]:
        """Shuffled batches; the sampler derives its order from seed and epoch."""
        return training_loader(self.parts.train, self.batch_size, self.seed, self.trainer)

    def val_dataloader(self) -> DataLoader[Sample]:
        """The validation part, in order and whole on every process."""
        return DataLoader(self.parts.validation, EVALUATION_BATCH)

    def test_dataloader(self) -> DataLoader[Sample]:
        """The test part, in order and whole on every process."""
        return DataLoader(self.parts.test, EVALUATION_BATCH)

    def on_after_batch_transfer(self, batch: Sample, dataloader_idx: int) -> Sample:
        """Mirror half of the training photographs; a mirrored digit is none."""
        trainer = self.trainer
        if trainer is None or not trainer.training or self.source == "scenes":
            return batch
        step = trainer.global_step * trainer.world_size + trainer.global_rank
        return mirror(*batch, self.seed * 1_000_003 + step)


def mirror(images: Tensor, classes: Tensor, seed: int) -> Sample:
    """Turn left to right about half of the images ``(B, C, H, W)``, and their classes."""
    draws = torch.rand(len(images), generator=torch.Generator().manual_seed(seed))
    turned = (draws < 0.5).to(images.device)
    return (
        torch.where(turned[:, None, None, None], images.flip(-1), images),
        torch.where(turned[:, None, None], classes.flip(-1), classes),
    )
