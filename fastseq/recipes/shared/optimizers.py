"""The optimizer that the recipes share."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.nn import Parameter
from torch.optim.lr_scheduler import LambdaLR

# Share of the steps over which the learning rate rises to its peak.
WARMUP = 0.1


def warmup_cosine(
    task: LightningModule,
    lr: float,
    weight_decay: float,
    parameters: Iterable[Parameter] | list[dict[str, Any]] | None = None,
) -> OptimizerLRScheduler:
    """Return AdamW whose rate rises linearly, then falls along half a cosine to zero.

    Args:
        task: Its Trainer knows how many steps there will be.
        lr: Peak learning rate.
        weight_decay: AdamW's.
        parameters: Those to train, or groups of them with a ``lr`` of their own; ``None`` is all of
            the task's.
    """
    trained = task.parameters() if parameters is None else parameters
    optimizer = torch.optim.AdamW(trained, lr, weight_decay=weight_decay)
    total = max(1, int(task.trainer.estimated_stepping_batches))
    warmup = max(1, round(WARMUP * total))

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / (total - warmup + 1))
        return 0.5 * (1.0 + math.cos(math.pi * progress))

    # A closure is not saved with the scheduler: a run resumed for more epochs decays later.
    schedule = LambdaLR(optimizer, rate)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
