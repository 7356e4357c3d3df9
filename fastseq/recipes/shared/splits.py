"""Stratified splits: the share of every class is the same in every part."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import TensorDataset


class Splits(NamedTuple):
    """Train, validation and test sets; each item is an image ``(1, 28, 28)`` and its label."""

    train: TensorDataset
    validation: TensorDataset
    test: TensorDataset


def stratified_split(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split positions into a part with ``1 - share`` of every class and a part with ``share``.

    Args:
        labels: Class of every sample, ``(N,)``.
        share: Part of every class that goes to the second tensor, between 0 and 1.
        seed: Seed of the shuffle, so that the split never depends on the global generator.

    Returns:
        Two sorted tensors of positions that do not overlap and together cover ``range(N)``.
    """
    if not 0.0 < share < 1.0:
        raise ValueError(f"share is {share}, expected 0 < share < 1; pass for example 0.2")
    generator = torch.Generator().manual_seed(seed)
    first, second = [], []
    for label in torch.unique(labels):
        positions = (labels == label).nonzero().squeeze(1)
        positions = positions[torch.randperm(len(positions), generator=generator)]
        cut = round(len(positions) * share)
        second.append(positions[:cut])
        first.append(positions[cut:])
    return torch.cat(first).sort().values, torch.cat(second).sort().values
