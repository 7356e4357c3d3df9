"""The CUDA kernels of local response normalization, run on the SIMT machine.

Every launch here is also checked for races, divergent barriers and accesses out of bounds.
"""

from __future__ import annotations

import pytest
import torch
from simt_build import Machine
from simt_cases import DTYPES, FORMATS, SIMT, Lrn, assert_near, images, poisoned, same
from torch import Tensor

pytestmark = pytest.mark.usefixtures("machine")
each_format = pytest.mark.parametrize("memory", FORMATS, ids=["planes", "channels_last"])
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_kind = pytest.mark.parametrize("within", [False, True], ids=["across", "within"])


def forward(x: Tensor, lrn: Lrn) -> Tensor:
    with poisoned():
        return SIMT.local_response_norm(x, *lrn.parameters, lrn.within)


def backward(grad: Tensor, x: Tensor, lrn: Lrn) -> Tensor:
    with poisoned():
        return SIMT.local_response_norm_backward(grad, x, *lrn.parameters, lrn.within)


def check(x: Tensor, lrn: Lrn) -> None:
    """Values and gradients against torch in float64."""
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(5)).to(x.dtype)
    exact_x = x.double().clone().requires_grad_()
    exact = lrn.exact(exact_x)
    exact.backward(grad.double())
    assert exact_x.grad is not None
    y = forward(x, lrn)
    assert y.stride() == torch.empty_like(x).stride()
    assert_near(y, exact.detach(), x.dtype)
    assert_near(backward(grad, x, lrn), exact_x.grad, x.dtype, slack=2)


@each_dtype
@each_format
@each_kind
@pytest.mark.parametrize("size", range(1, 10))
def test_every_size(
    size: int, within: bool, memory: torch.memory_format, dtype: torch.dtype
) -> None:
    check(images(2, 13, 6, 9, dtype=dtype, memory=memory), Lrn(size, within=within))


@each_format
@each_kind
@pytest.mark.parametrize("beta", [0.0, 0.5, 0.6, 0.75, 1.0, 2.0, -0.5])
@pytest.mark.parametrize("size", [4, 5])
def test_every_beta(size: int, beta: float, within: bool, memory: torch.memory_format) -> None:
    x = images(1, 7, 8, 8, memory=memory)
    check(x, Lrn(size, 0.7, beta, 2.0, within))
    check(x.double(), Lrn(size, 0.7, beta, 2.0, within))


@each_format
@each_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [20, 67, 129, 400])
def test_windows_beyond_the_tiles(
    size: int, within: bool, memory: torch.memory_format, dtype: torch.dtype
) -> None:
    shape = (1, 3, 9, 8) if within else (1, 30, 2, 3)
    check(images(*shape, dtype=dtype, memory=memory), Lrn(size, within=within))


@each_kind
@each_format
@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 1, 1),
        (1, 3, 16, 16),  # 256 pixels: a block of walks
        (1, 3, 1, 257),
        (1, 8, 8, 32),  # 2048 elements: a block of 16-bit runs
        (1, 16, 8, 16),
        (1, 3, 1, 683),  # one element more than that
        (2, 1, 32, 32),  # a tile within a channel, and one more row and column
        (1, 2, 33, 33),
        (1, 17, 9, 8),
        (3, 70, 2, 3),  # channels in several chunks
        (1, 200, 8, 9),  # and in cuts of a strip's walk, for windows of three and of five
        (2, 5, 1, 509),  # as many pixels as a strip of floats has
        (2, 3, 5, 103),  # a few more
        (3, 3, 7, 9),  # less than a vector's elements beyond the last of many
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_ends_of_blocks(
    shape: tuple[int, ...], memory: torch.memory_format, within: bool, dtype: torch.dtype
) -> None:
    for size in (3, 4, 5):
        check(images(*shape, dtype=dtype, memory=memory), Lrn(size, within=within))


@each_format
@pytest.mark.parametrize("offset", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.half], ids=str)
def test_memory_that_starts_anywhere(
    offset: int, memory: torch.memory_format, dtype: torch.dtype
) -> None:
    """Only where 16 bytes are aligned may they be read at once."""
    for shape in ((1, 8, 4, 8), (2, 7, 11, 9)):
        x = images(*shape, dtype=dtype, memory=memory)
        room = torch.empty(x.numel() + offset, dtype=dtype)
        check(room[offset:].as_strided(x.shape, x.stride()).copy_(x), Lrn())


@each_kind
@each_format
@pytest.mark.parametrize("beta", [0.5, 0.75, 1.0, 0.6])
@pytest.mark.parametrize("size", [3, 4])
def test_zeros_infinities_and_nan(
    size: int, beta: float, memory: torch.memory_format, within: bool
) -> None:
    x = images(1, 12, 5, 6, memory=memory)
    x[0, 3, 1, 1] = float("nan")
    x[0, 9, 4, 4] = float("inf")
    x[0, 6, 0, 0] = 1e30  # its square is infinite
    x[0, :3, 1:, :4] = 0
    lrn = Lrn(size, 0.3, beta, 0.0, within)
    found = forward(x, lrn)
    torch.testing.assert_close(found, lrn.exact(x), rtol=4e-6, atol=1e-30, equal_nan=True)
    assert bool((found == 0).any())
    assert bool(found[0, :1, 4, 0].isnan().all())  # 0 / 0
    assert found[0, 6, 0, 0] == 0
    assert bool(found[0, 9, 4, 4].isnan())


@each_kind
@each_format
def test_the_schedule_changes_nothing(
    memory: torch.memory_format, within: bool, machine: Machine
) -> None:
    x, grad = images(2, 20, 9, 9, memory=memory), images(2, 20, 9, 9, memory=memory, seed=1)
    found = []
    for seed in range(4):
        machine.seed(seed)
        found.append((forward(x, Lrn(within=within)), backward(grad, x, Lrn(within=within))))
    for y, dx in found[1:]:
        assert same(y, found[0][0])
        assert same(dx, found[0][1])


def test_sequences_and_volumes() -> None:
    check(images(2, 7, 5), Lrn())
    check(images(2, 7, 3, 4, 5), Lrn())
    volume = images(2, 7, 3, 4, 5).contiguous(memory_format=torch.channels_last_3d)
    check(volume, Lrn())


@each_format
@each_kind
def test_nothing_to_do(memory: torch.memory_format, within: bool) -> None:
    for shape in ((0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4)):
        x = torch.empty(shape).contiguous(memory_format=memory)
        assert forward(x, Lrn(within=within)).shape == shape
        assert backward(x, x, Lrn(within=within)).shape == shape
