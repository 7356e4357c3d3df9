"""Batching rules for vmap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_Rule = Callable[..., tuple[tuple[Tensor, ...], Any]]


def one_at_a_time(op: Callable[..., tuple[Tensor, ...]]) -> _Rule:
    """The rule that calls an op for every example: right for whatever is batched."""

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[tuple[Tensor, ...], Any]:
        def example(i: int) -> tuple[Tensor, ...]:
            return tuple(
                op(
                    *(
                        a if dim is None else a.select(dim, i)
                        for a, dim in zip(args, in_dims, strict=True)
                    )
                )
            )

        made = [example(i) for i in range(info.batch_size)]
        outputs = tuple(torch.stack(each) for each in zip(*made, strict=True))
        return outputs, (0,) * len(outputs)

    return rule
