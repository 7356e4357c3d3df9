"""What all architectures share: checks of arguments in words, and the evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode for as long as the block runs."""
    # Of each module: some may have been in evaluation mode before.
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def check_sizes(**sizes: int) -> None:
    """Refuse sizes below one, by the name of the argument."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}, expected at least 1; pass a positive {name}")


def check_dropout(dropout: float) -> None:
    """Refuse what is no probability below one, NaN among it."""
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout is {dropout}, expected 0 <= dropout < 1; pass 0 for none")
