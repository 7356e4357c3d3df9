"""Learning rates: mild where weights were copied, high where they are new."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from fastseq.transfer.head import find_heads


def param_groups(
    model: nn.Module, lr: float, new_lr_scale: float = 10.0, new_bias_lr_scale: float = 20.0
) -> list[dict[str, Any]]:
    """Return the trained parameters in groups for an optimizer.

    The rule of the course (CSE471, transfer learning): copied layers learn at ``lr``, the weights
    of the new head at 10 times that rate and its biases at 20 times.

    Args:
        model: A classifier with a new head; see `replace_head`. Frozen parameters are left out.
        lr: Rate of the copied layers.
        new_lr_scale: Times ``lr``, for the weights of the head.
        new_bias_lr_scale: Times ``lr``, for the biases of the head.

    Returns:
        Up to three groups with ``params``, ``lr`` and a ``name``: ``"copied"``, ``"new weights"``
        and ``"new biases"``. Empty ones are left out.

    Raises:
        ValueError: If a number is not positive, the model has no head that can be found, or
            nothing in it is trained.

    Example:
        >>> import torch
        >>> from fastseq.models import LeNet5
        >>> from fastseq.transfer import param_groups, replace_head
        >>> model = replace_head(LeNet5(), 5)
        >>> optimizer = torch.optim.SGD(param_groups(model, lr=0.001), momentum=0.9)
        >>> schedule = torch.optim.lr_scheduler.StepLR(optimizer, 7, 0.1)
        >>> [(group["name"], group["lr"]) for group in optimizer.param_groups]
        [('copied', 0.001), ('new weights', 0.01), ('new biases', 0.02)]
    """
    scales = {"lr": lr, "new_lr_scale": new_lr_scale, "new_bias_lr_scale": new_bias_lr_scale}
    for name, value in scales.items():
        if not (value > 0.0 and math.isfinite(value)):
            raise ValueError(f"{name} is {value}, expected a positive number")
    rates = {"copied": lr, "new weights": lr * new_lr_scale, "new biases": lr * new_bias_lr_scale}
    heads = find_heads(model).values()
    weights = {head.weight for head in heads}
    biases = {head.bias for head in heads}
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in rates}
    for parameter in model.parameters():
        if parameter.requires_grad:
            new = "new weights" if parameter in weights else "new biases"
            groups[new if parameter in weights | biases else "copied"].append(parameter)
    if not any(groups.values()):
        raise ValueError(
            f"nothing in {type(model).__name__} is trained: every parameter is frozen; "
            f"call freeze_features() or unfreeze() first"
        )
    return [
        {"params": members, "lr": rates[name], "name": name}
        for name, members in groups.items()
        if members
    ]
