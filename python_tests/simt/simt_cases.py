"""Inputs and oracles of the LRN, pool and trio tests: torch's native ops in float64."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SIMT = torch.ops.fastseq_simt
# Relative to the largest value, after one rounding to the dtype.
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 2e-6,
    torch.bfloat16: 1.6e-2,
    torch.float16: 2e-3,
}
DTYPES = list(TOLERANCE)
FORMATS = (torch.contiguous_format, torch.channels_last)


def images(
    *shape: int,
    dtype: torch.dtype = torch.float32,
    memory: torch.memory_format = torch.contiguous_format,
    seed: int = 0,
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * 2
    return x.to(dtype).contiguous(memory_format=memory)


@contextmanager
def poisoned() -> Iterator[None]:
    """Fresh tensors hold NaN: a kernel that leaves an element out shows."""
    before = torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = fill


def assert_near(found: Tensor, exact: Tensor, dtype: torch.dtype, slack: float = 1.0) -> None:
    assert found.shape == exact.shape
    assert found.dtype == dtype
    assert bool(found.isfinite().all()), "not written, or not finite"
    scale = max(1e-3, exact.abs().max().item()) if exact.numel() else 1.0
    off = (found.double() - exact).abs().max().item() if exact.numel() else 0.0
    assert off <= slack * TOLERANCE[dtype] * scale, f"{off} of {scale}"


def same(a: Tensor, b: Tensor) -> bool:
    """Equal to the last bit; NaN equals NaN."""
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


@dataclass(frozen=True)
class Lrn:
    size: int = 5
    alpha: float = 0.3
    beta: float = 0.75
    k: float = 1.0
    within: bool = False

    @property
    def parameters(self) -> tuple[int, float, float, float]:
        return self.size, self.alpha, self.beta, self.k

    def exact(self, x: Tensor) -> Tensor:
        if not self.within:
            return F.local_response_norm(x, *self.parameters)
        left, right = self.size // 2, (self.size - 1) // 2
        squares = F.pad(x.square(), (left, right, left, right))
        mean = F.avg_pool2d(squares, self.size, stride=1)
        return x / (self.k + self.alpha * mean) ** self.beta


@dataclass(frozen=True)
class Pool:
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (2, 2)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    ceil_mode: bool = False

    @property
    def window(self) -> tuple[tuple[int, int], ...]:
        return self.kernel, self.stride, self.padding, self.dilation

    def exact(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found: Any = F.max_pool2d(x, *self.window, ceil_mode=self.ceil_mode, return_indices=True)
        return found

    def indices(self, offsets: Tensor, width: int) -> Tensor:
        """What torch returns as indices, from the places in the windows."""
        place = offsets.long()
        oh = torch.arange(offsets.shape[-2])[:, None]
        ow = torch.arange(offsets.shape[-1])[None, :]
        h = oh * self.stride[0] - self.padding[0] + place // self.kernel[1] * self.dilation[0]
        w = ow * self.stride[1] - self.padding[1] + place % self.kernel[1] * self.dilation[1]
        return h * width + w


POOLS = [
    Pool(),
    Pool(padding=(1, 1)),
    Pool(ceil_mode=True),
    Pool(padding=(1, 0), ceil_mode=True),
    Pool(kernel=(2, 2)),
    Pool(stride=(1, 1), padding=(1, 1)),
    Pool(kernel=(2, 3), stride=(1, 2), padding=(1, 1), dilation=(2, 1)),
    Pool(kernel=(3, 2), stride=(3, 1), dilation=(1, 3), ceil_mode=True),
    Pool(kernel=(5, 4), stride=(2, 3), padding=(2, 2), dilation=(2, 2), ceil_mode=True),
]
WIDE = Pool(kernel=(17, 16), stride=(3, 5), padding=(8, 8))
