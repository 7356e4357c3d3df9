"""What the faces of the ops share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastseq import _library as _library  # registers the ops


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
