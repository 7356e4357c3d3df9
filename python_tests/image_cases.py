"""Tensors and comparisons that the tests of LRN, pooling and their fusion share."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
FORMATS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
# Sizes around vector widths, single pixels and channels, a row longer than a vector.
SHAPES = [
    (2, 7, 5, 9),
    (1, 96, 13, 17),
    (3, 1, 4, 4),
    (2, 33, 3, 2),
    (2, 16, 40, 3),
    (1, 3, 9, 70),
    (2, 64, 1, 16),
]
# Errors of one rounding of the dtype, and of sums in it for the wide ones.
TOLERANCES = {
    torch.float32: 3e-6,
    torch.float64: 1e-13,
    torch.bfloat16: 8e-3,
    torch.float16: 1e-3,
}


def images(
    *shape: int,
    dtype: torch.dtype = torch.float32,
    form: str = "NCHW",
    seed: int = 0,
    scale: float = 2.0,
) -> Tensor:
    """Random images in a memory format; the same numbers in every dtype but for rounding."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, dtype=torch.float64, generator=generator) * scale
    x = x.to(dtype)
    return x.contiguous(memory_format=FORMATS[form]) if x.dim() == 4 else x


def gradient(
    call: Callable[[Tensor], Tensor], x: Tensor, seed: int = 9
) -> tuple[Tensor, Tensor, Tensor]:
    """Output, the random gradient given for it, and the gradient of x."""
    leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = call(leaf)
    generator = torch.Generator().manual_seed(seed)
    grad = torch.randn(y.shape, dtype=torch.float64, generator=generator).to(y.dtype)
    (grad_x,) = torch.autograd.grad(y, leaf, grad)
    return y.detach(), grad, grad_x


def assert_near(actual: Tensor, exact: Tensor, dtype: torch.dtype, factor: float = 1.0) -> None:
    """Element by element, to the dtype's rounding relative to the value and to a typical one."""
    assert actual.dtype == dtype
    assert actual.shape == exact.shape
    if exact.numel() == 0:
        return
    bound = factor * TOLERANCES[dtype]
    exact = exact.double()
    typical = exact[exact.isfinite()].abs().mean().item() if exact.isfinite().any() else 1.0
    torch.testing.assert_close(
        actual.double(), exact, rtol=bound, atol=bound * max(typical, 1e-30), equal_nan=True
    )


def same_format(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one shape lie in memory in the same way."""
    return a.stride() == b.stride()


@cache
def _onnx_cases() -> list[Any]:
    """All at once: ONNX collects once a process, whatever it is asked for later."""
    node = pytest.importorskip("onnx.backend.test.case.node")
    with warnings.catch_warnings():  # of other ops' cases
        warnings.simplefilter("ignore")
        found: list[Any] = node.collect_testcases(None)
    return found


def onnx_cases(op: str) -> list[Any]:
    """ONNX's own test cases of one op."""
    return [case for case in _onnx_cases() if case.model.graph.node[0].op_type == op]
