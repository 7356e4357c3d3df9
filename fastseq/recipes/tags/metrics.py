"""F1 of whole entities, by kind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from fastseq.recipes.tags.conll import entities

MICRO = "all"
Tags = Sequence[str]


class Score(NamedTuple):
    """How well entities of a kind were found.

    Attributes:
        precision: Share of the entities found that are right, 0 to 1.
        recall: Share of the true entities that were found.
        f1: Their harmonic mean.
        true: How many there are.
    """

    precision: float
    recall: float
    f1: float
    true: int


class EntityF1(Metric):
    """F1 of entities whose kind, beginning and end are all right, as conlleval counts.

    Args:
        tags: Names of the tags that occur.
    """

    right: Tensor
    found: Tensor
    true: Tensor

    def __init__(self, tags: Iterable[str]) -> None:
        super().__init__()
        self.kinds = sorted({tag.partition("-")[2] for tag in tags} - {""})
        for name in ("right", "found", "true"):
            zeros = torch.zeros(len(self.kinds), dtype=torch.long)
            self.add_state(name, zeros, dist_reduce_fx="sum")

    def update(self, predictions: Iterable[Tags], targets: Iterable[Tags]) -> None:
        """Count the entities of sentences, given as the names of their tags."""
        for given, wanted in zip(predictions, targets, strict=True):
            found, true = entities(given), entities(wanted)
            for counts, some in (
                (self.right, found & true),
                (self.found, found),
                (self.true, true),
            ):
                for entity in some:
                    counts[self.kinds.index(entity.kind)] += 1

    def compute(self) -> Tensor:
        """Return the F1 over the entities of all kinds together."""
        f1: Tensor = 2.0 * self.right.sum() / (self.found.sum() + self.true.sum()).clamp(min=1)
        return f1

    def scores(self) -> dict[str, Score]:
        """Return the scores of each kind, and of all together under ``"all"``."""
        counts = torch.stack([self.right, self.found, self.true], dim=1).cpu()  # (kinds, 3)
        table = {kind: _score(row) for kind, row in zip(self.kinds, counts, strict=True)}
        return {**table, MICRO: _score(counts.sum(dim=0))}


def _score(counts: Tensor) -> Score:
    right, found, true = counts.tolist()
    f1 = 2.0 * right / max(found + true, 1)
    return Score(right / max(found, 1), right / max(true, 1), f1, true)
