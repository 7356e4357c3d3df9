"""Seeded batches, divided among processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, Dataset, DistributedSampler


def training_loader(
    data: Dataset[Any],
    batch_size: int,
    seed: int,
    trainer: Trainer | None,
    collate: Callable[[list[Any]], Any] | None = None,
) -> DataLoader[Any]:
    """Return shuffled batches whose order is a function of seed and epoch alone.

    A resumed run then sees the same batches as one that was never stopped. Each process of the
    trainer gets its own share; Lightning tells the sampler which epoch it is.

    Args:
        data: Training set.
        batch_size: Samples in a batch, on each process.
        seed: Of the order.
        trainer: Knows the processes; ``None`` (in a notebook) is one process.
        collate: Makes a batch of a list of samples; ``None`` stacks them.
    """
    world, rank = (1, 0) if trainer is None else (trainer.world_size, trainer.global_rank)
    sampler: DistributedSampler[Any] = DistributedSampler(
        data, num_replicas=world, rank=rank, seed=seed
    )
    return DataLoader(data, batch_size, sampler=sampler, collate_fn=collate)
