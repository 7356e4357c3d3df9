"""A matrix product whose rows do not depend on one another to the last bit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastseq.ops._common import fake


def linear(x: Tensor, weight: Tensor, turned: bool = False) -> Tensor:
    """``x W^T``, or ``x W`` if turned.

    Args:
        x: (..., K); (..., M) if turned.
        weight: (M, K).
        turned: multiply with W itself.

    Returns:
        (..., M), or (..., K).

    Raises:
        RuntimeError: shapes, dtypes or devices do not fit.
    """
    y: Tensor = torch.ops.fastseq.linear(x, weight, turned)
    return y


@fake("linear")
def _fake(x: Tensor, weight: Tensor, turned: bool) -> Tensor:
    return x.new_empty([*x.shape[:-1], weight.shape[1 if turned else 0]])


@torch.library.register_vmap("fastseq::linear")
def _vmap(
    info: Any, in_dims: tuple[Any, ...], x: Tensor, weight: Tensor, turned: bool
) -> tuple[Tensor, int]:
    if in_dims[1] is None:
        return torch.ops.fastseq.linear(x.movedim(in_dims[0], 0), weight, turned), 0

    def example(t: Tensor, dim: int | None, i: int) -> Tensor:
        return t if dim is None else t.select(dim, i)

    made = [
        torch.ops.fastseq.linear(example(x, in_dims[0], i), example(weight, in_dims[1], i), turned)
        for i in range(info.batch_size)
    ]
    return torch.stack(made), 0
