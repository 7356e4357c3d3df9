"""What the faces of the ops share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

from fastseq import _library as _library  # registers the ops

_Shapes = TypeVar("_Shapes", bound=Callable[..., Any])


def fake(name: str) -> Callable[[_Shapes], _Shapes]:
    """Register the shape function of an op, which looks at the devices first.

    One tensor on "meta" sends an op here, and nobody else looks at the others: what it returned
    would be memory that nothing has written to.

    Args:
        name: of the op, without its namespace.

    Raises:
        RuntimeError: of a call whose tensors are on several devices.
    """

    def register(function: _Shapes) -> _Shapes:
        @wraps(function)
        def checked(*args: Any) -> Any:
            # Of packed rows the batch sizes, int64, are on the CPU wherever the rest is.
            devices = {a.device for a in args if isinstance(a, Tensor) and a.dtype != torch.int64}
            if len(devices) > 1:
                found = " and ".join(sorted(map(str, devices)))
                raise RuntimeError(
                    f"fastseq::{name}: expected all tensors on one device, found {found}"
                )
            return function(*args)

        torch.library.register_fake(f"fastseq::{name}", checked)
        return function

    return register


def channels_last(x: Tensor) -> bool:
    """Whether the strides suggest (N, H, W, C): c10's rule, which takes doubtful cases as NCHW."""
    shape, strides = x.shape, x.stride()
    if x.dim() not in (4, 5) or strides[1] == 0:
        return False
    least = 0
    for d in (1, *range(x.dim() - 1, 1, -1), 0):
        if shape[d] == 0 or strides[d] < least:
            return False
        if d == 0 and least == strides[1]:
            return False
        least = strides[d]
        if shape[d] > 1:
            least = least * shape[d]
    return True


def new_images(like: Tensor, shape: Sequence[int], dtype: torch.dtype, last: bool) -> Tensor:
    """An empty tensor in the memory format, as the C++ side allocates it."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return torch.empty(
        shape,
        dtype=dtype,
        device=like.device,
        memory_format=formats[len(shape)] if last else torch.contiguous_format,
    )


def fold(x: Tensor, dim: int | None, size: int) -> Tensor:
    """A vmapped dimension, or the lack of one, folded into the batch dimension 0."""
    x = x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
    return x.flatten(0, 1)


def unfold(x: Tensor, size: int) -> Tensor:
    """The vmapped dimension of a folded result, in front."""
    return x.unflatten(0, (size, -1)) if x.shape[0] else x.reshape(size, 0, *x.shape[1:])
