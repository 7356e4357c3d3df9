"""The CUDA kernels of max-pooling, run on the SIMT machine."""

from __future__ import annotations

import pytest
import torch
from simt_build import Machine
from simt_cases import (
    DTYPES,
    FORMATS,
    POOLS,
    SIMT,
    WIDE,
    Pool,
    assert_near,
    images,
    poisoned,
    same,
)
from torch import Tensor

pytestmark = pytest.mark.usefixtures("machine")
each_format = pytest.mark.parametrize("memory", FORMATS, ids=["planes", "channels_last"])
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_pool = pytest.mark.parametrize("pool", [*POOLS, WIDE], ids=str)


def forward(x: Tensor, pool: Pool, save: bool = True) -> tuple[Tensor, Tensor]:
    with poisoned():
        return SIMT.max_pool2d(x, *pool.window, pool.ceil_mode, save)


def backward(grad: Tensor, offsets: Tensor, x: Tensor, pool: Pool) -> Tensor:
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    with poisoned():
        return SIMT.max_pool2d_backward(grad, offsets, *x.shape[-2:], last, *pool.window)


def check(x: Tensor, pool: Pool) -> None:
    exact_x = x.double().clone().requires_grad_()
    exact, indices = pool.exact(exact_x)
    y, offsets = forward(x, pool)
    assert torch.equal(y.double(), exact.detach())
    assert offsets.dtype == (torch.int32 if pool.kernel[0] * pool.kernel[1] > 256 else torch.uint8)
    assert torch.equal(pool.indices(offsets, x.shape[-1]), indices)
    assert torch.equal(forward(x, pool, save=False)[0], y)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(5)).to(x.dtype)
    grad = grad.contiguous(
        memory_format=torch.contiguous_format if y.is_contiguous() else torch.channels_last
    )
    exact.backward(grad.double())
    assert exact_x.grad is not None
    assert_near(backward(grad, offsets, x, pool), exact_x.grad, x.dtype)


@each_pool
@each_dtype
@each_format
@pytest.mark.parametrize("channels", [5, 16])
def test_every_window(
    pool: Pool, dtype: torch.dtype, memory: torch.memory_format, channels: int
) -> None:
    check(images(2, channels, 13, 18, dtype=dtype, memory=memory), pool)


@each_format
@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 3, 3),
        (1, 2, 17, 33),
        (1, 1, 3, 513),
        (1, 1, 3, 515),
        (1, 8, 17, 17),
        (2, 37, 9, 8),  # planes in two cuts
        (1, 3, 23, 104),  # two bands; strips backward that end within an odd row
        (1, 1, 3, 1111),  # no room for a row of outputs, in a band and beside a strip
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_ends_of_blocks(
    shape: tuple[int, ...], memory: torch.memory_format, dtype: torch.dtype
) -> None:
    check(images(*shape, dtype=dtype, memory=memory), Pool())
    check(images(*shape, dtype=dtype, memory=memory), Pool(padding=(1, 1), ceil_mode=True))


@each_format
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(
    "shape",
    [
        (2, 8, 1, 9),  # one row, one column, and a window larger than the image
        (2, 7, 9, 1),
        (1, 3, 2, 2),
        (2, 5, 1, 70),  # strips of which some are shorter than a vector
        (2, 5, 70, 1),
        (1, 72, 5, 6),  # groups of channels, the last of them smaller
        (1, 3, 35, 7),  # bands
        (1, 1025, 3, 4),  # more channels than a block has room for
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_images_of_every_shape(
    shape: tuple[int, ...], ceil_mode: bool, memory: torch.memory_format, dtype: torch.dtype
) -> None:
    check(images(*shape, dtype=dtype, memory=memory), Pool(padding=(1, 1), ceil_mode=ceil_mode))


@each_format
@pytest.mark.parametrize("channels", [5, 8])
def test_fewer_outputs_than_the_image_has(channels: int, memory: torch.memory_format) -> None:
    """Backward takes the outputs that it is given: pixels beyond them have no gradient."""
    x, pool = images(1, channels, 9, 40, memory=memory), Pool()
    y, offsets = forward(x[:, :, :5, :7].contiguous(memory_format=memory), pool)
    found = backward(y, offsets, x, pool)
    inside = backward(y, offsets, x[:, :, :5, :7].contiguous(memory_format=memory), pool)
    assert torch.equal(found[:, :, :5, :7], inside)
    assert not found[:, :, 5:].any()
    assert not found[:, :, :, 7:].any()


@each_format
@pytest.mark.parametrize("pool", [Pool(), Pool(kernel=(2, 3), padding=(1, 1))], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.half], ids=str)
@pytest.mark.parametrize("channels", [5, 8])
def test_ties_nan_and_minus_infinity(
    channels: int, pool: Pool, memory: torch.memory_format, dtype: torch.dtype
) -> None:
    x = images(2, channels, 9, 11, memory=memory).round().to(dtype)  # many equal values
    check(x, pool)
    x[0, 2] = -float("inf")
    x[1, :, 4:6, 3:7] = float("nan")
    exact, indices = pool.exact(x.double())
    y, offsets = forward(x, pool)
    assert same(y.double(), exact)
    assert torch.equal(pool.indices(offsets, 11), indices)
    grad = torch.ones_like(y)
    expected = torch.zeros(2, channels, 99).scatter_add_(
        2, indices.flatten(2), torch.ones(indices.flatten(2).shape)
    )
    assert torch.equal(backward(grad, offsets, x, pool).float().flatten(2), expected)


def test_no_batch() -> None:
    check(images(5, 9, 11), Pool())


@each_format
@pytest.mark.parametrize("shape", [(0, 3, 7, 7), (2, 0, 7, 7), (0, 0, 70, 70)], ids=str)
@pytest.mark.parametrize("pool", [Pool(), Pool(kernel=(2, 2)), WIDE], ids=str)
def test_nothing_to_do(pool: Pool, shape: tuple[int, ...], memory: torch.memory_format) -> None:
    x = torch.empty(shape).contiguous(memory_format=memory)
    y, offsets = forward(x, pool)
    assert y.shape == offsets.shape
    assert y.shape[:2] == shape[:2]
    for last in (False, True):
        found = SIMT.max_pool2d_backward(y, offsets, *shape[-2:], last, *pool.window)
        assert found.shape == shape


@each_format
@pytest.mark.parametrize("dtype", [torch.float32, torch.half], ids=str)
@pytest.mark.parametrize("offset", [1, 3])
@pytest.mark.parametrize("shape", [(1, 16, 7, 8), (2, 7, 11, 9)], ids=str)
def test_memory_that_starts_anywhere(
    shape: tuple[int, ...], offset: int, memory: torch.memory_format, dtype: torch.dtype
) -> None:
    x = images(*shape, dtype=dtype, memory=memory)
    room = torch.empty(x.numel() + offset, dtype=dtype)
    shifted = room[offset:].as_strided(x.shape, x.stride())
    check(shifted.copy_(x), Pool())


@each_format
def test_the_schedule_changes_nothing(memory: torch.memory_format, machine: Machine) -> None:
    x = images(2, 4, 15, 15, memory=memory)
    pool = Pool(stride=(1, 1))
    y, offsets = forward(x, pool)
    grad = torch.randn_like(y)
    first = backward(grad, offsets, x, pool)
    for seed in (2, 3, 4):
        machine.seed(seed)
        assert same(forward(x, pool)[0], y)
        assert same(backward(grad, offsets, x, pool), first)


def test_a_side_of_two_to_the_thirty() -> None:
    x = torch.empty(1).expand(1, 1, 1, 1 << 30)[..., :8].contiguous()
    with pytest.raises(RuntimeError, match="stride and dilation of at most 32768, got 1, 10737"):
        SIMT.max_pool2d(x, [1, 1], [1, 1 << 30], [0, 0], [1, 1], False, False)
