"""The CUDA kernels of ReLU -> LRN -> max-pool, run on the SIMT machine."""

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
    Lrn,
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


def forward(x: Tensor, lrn: Lrn, pool: Pool, save: bool = True) -> tuple[Tensor, Tensor]:
    with poisoned():
        return SIMT.relu_lrn_max_pool2d(x, *lrn.parameters, *pool.window, pool.ceil_mode, save)


def backward(grad: Tensor, offsets: Tensor, x: Tensor, lrn: Lrn, pool: Pool) -> Tensor:
    with poisoned():
        return SIMT.relu_lrn_max_pool2d_backward(grad, offsets, x, *lrn.parameters, *pool.window)


def check(x: Tensor, lrn: Lrn, pool: Pool) -> None:
    """Forward: the three ops in a row, to the last bit. Backward: float64, the same maxima."""
    y, offsets = forward(x, lrn, pool)
    normalized = SIMT.local_response_norm(x.relu(), *lrn.parameters, False)
    expected = SIMT.max_pool2d(normalized, *pool.window, pool.ceil_mode, True)
    assert same(y, expected[0])
    assert torch.equal(offsets, expected[1])
    assert same(forward(x, lrn, pool, save=False)[0], y)

    exact_x = x.double().clone().requires_grad_()
    exact = lrn.exact(exact_x.relu())
    assert_near(y, pool.exact(exact)[0].detach(), x.dtype)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(5)).to(x.dtype)
    indices = pool.indices(offsets, x.shape[-1]).flatten(2)
    chosen = exact.flatten(2).gather(2, indices)
    chosen.backward(grad.double().flatten(2))
    assert exact_x.grad is not None
    assert_near(backward(grad, offsets, x, lrn, pool), exact_x.grad, x.dtype, slack=2)


@each_dtype
@each_format
@pytest.mark.parametrize("pool", [*POOLS, WIDE], ids=str)
def test_every_window(pool: Pool, dtype: torch.dtype, memory: torch.memory_format) -> None:
    check(images(2, 8, 13, 18, dtype=dtype, memory=memory), Lrn(), pool)


@each_dtype
@each_format
@pytest.mark.parametrize("size", range(1, 10))
def test_every_size(size: int, dtype: torch.dtype, memory: torch.memory_format) -> None:
    check(images(2, 11, 7, 9, dtype=dtype, memory=memory), Lrn(size), Pool(padding=(1, 1)))


@each_format
@pytest.mark.parametrize("beta", [0.0, 0.5, 0.6, 1.0, 2.0])
def test_every_beta(beta: float, memory: torch.memory_format) -> None:
    check(images(1, 7, 8, 8, memory=memory), Lrn(5, 0.7, beta, 2.0), Pool())
    check(images(1, 7, 8, 8, memory=memory), Lrn(5, 0.7, beta, 2.0), Pool(kernel=(2, 2)))


@each_format
@pytest.mark.parametrize(
    ("lrn", "pool"),
    [
        (Lrn(30), Pool()),
        (Lrn(200), Pool()),
        (Lrn(400), Pool(kernel=(2, 2))),
        (Lrn(5), Pool(kernel=(2, 2), dilation=(23, 24))),  # one output looks at 24 x 25 pixels
        (Lrn(4), Pool(kernel=(23, 24), stride=(1, 1))),
    ],
    ids=str,
)
def test_windows_beyond_the_tiles(lrn: Lrn, pool: Pool, memory: torch.memory_format) -> None:
    check(images(1, 6, 26, 26, memory=memory), lrn, pool)


@each_format
@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 3, 3),
        (1, 4, 27, 27),
        (1, 5, 33, 31),  # more than a strip's pixels, and a stage of four channels and one more
        (2, 32, 15, 17),  # a channels_last tile, and a group of channels
        (1, 33, 16, 19),
        (1, 70, 5, 5),  # channels in several chunks
        (1, 200, 9, 8),  # and in cuts of a strip's walk
        (1, 3, 23, 104),  # two bands; strips backward that end within an odd row
        (1, 2, 5, 341),  # a block of more than 256 threads
        (1, 2, 3, 515),  # no room for a row of outputs in a band
        (1, 1, 3, 1003),  # nor beside a strip
        (1, 24, 40, 7),  # bands of rows, channels_last
        (1, 36, 4, 23),  # tiles of columns; vectors of floats, not of bfloat16
        (1, 1030, 3, 4),  # more channels than a block has room for
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_ends_of_tiles(
    shape: tuple[int, ...], dtype: torch.dtype, memory: torch.memory_format
) -> None:
    check(images(*shape, dtype=dtype, memory=memory), Lrn(), Pool())
    check(images(*shape, dtype=dtype, memory=memory), Lrn(), Pool(padding=(1, 1), ceil_mode=True))
    check(images(*shape, dtype=dtype, memory=memory), Lrn(4), Pool(padding=(1, 1)))


@each_format
@pytest.mark.parametrize(
    "shape", [(2, 8, 1, 9), (2, 7, 9, 1), (1, 3, 2, 2), (2, 5, 1, 70)], ids=str
)
def test_images_of_a_row_or_a_column(shape: tuple[int, ...], memory: torch.memory_format) -> None:
    check(images(*shape, memory=memory), Lrn(), Pool(padding=(1, 1)))
    check(images(*shape, memory=memory), Lrn(), Pool(padding=(1, 1), ceil_mode=True))


@each_format
@pytest.mark.parametrize("pool", [Pool(), Pool(kernel=(3, 2), padding=(1, 0))], ids=str)
@pytest.mark.parametrize("channels", [8, 9])
def test_ties_nan_and_infinity(channels: int, pool: Pool, memory: torch.memory_format) -> None:
    x = images(2, channels, 9, 11, memory=memory).round()  # the ReLU alone makes many ties
    check(x, Lrn(), pool)
    x[0, 4, 3, 3] = float("nan")
    x[1, 4, 5, 5] = float("inf")
    x[1, 2] = -float("inf")
    lrn = Lrn()
    y, offsets = forward(x, lrn, pool)
    normalized = SIMT.local_response_norm(x.relu(), *lrn.parameters, False)
    expected = SIMT.max_pool2d(normalized, *pool.window, pool.ceil_mode, True)
    assert same(y, expected[0])
    assert torch.equal(offsets, expected[1])
    found = backward(torch.ones_like(y), offsets, x, lrn, pool)
    through = SIMT.local_response_norm_backward(
        SIMT.max_pool2d_backward(
            torch.ones_like(y), offsets, 9, 11, memory == torch.channels_last, *pool.window
        ),
        x.relu(),
        *lrn.parameters,
        False,
    )
    expected_back = torch.where(x.relu() <= 0, 0, through)  # where NaN, its gradient passes
    assert same(found, expected_back)
    assert bool(found[0, 4, 3, 3].isnan())


@each_format
@pytest.mark.parametrize("offset", [1, 3])
@pytest.mark.parametrize("shape", [(1, 16, 7, 8), (2, 7, 11, 9)], ids=str)
def test_memory_that_starts_anywhere(
    shape: tuple[int, ...], offset: int, memory: torch.memory_format
) -> None:
    x = images(*shape, dtype=torch.half, memory=memory)
    room = torch.empty(x.numel() + offset, dtype=x.dtype)
    shifted = room[offset:].as_strided(x.shape, x.stride())
    check(shifted.copy_(x), Lrn(), Pool())


@each_format
@pytest.mark.parametrize("shape", [(0, 3, 7, 7), (2, 0, 7, 7), (0, 0, 70, 70)], ids=str)
@pytest.mark.parametrize("lrn", [Lrn(5), Lrn(4)], ids=str)
def test_nothing_to_do(lrn: Lrn, shape: tuple[int, ...], memory: torch.memory_format) -> None:
    x = torch.empty(shape).contiguous(memory_format=memory)
    y, offsets = forward(x, lrn, Pool())
    assert y.shape == offsets.shape
    assert y.shape[:2] == shape[:2]
    assert backward(y, offsets, x, lrn, Pool()).shape == shape


@each_format
@pytest.mark.parametrize("size", [4, 5])
def test_the_schedule_changes_nothing(
    size: int, memory: torch.memory_format, machine: Machine
) -> None:
    x = images(2, 20, 15, 15, memory=memory)
    y, offsets = forward(x, Lrn(size), Pool())
    grad = torch.randn_like(y)
    first = backward(grad, offsets, x, Lrn(size), Pool())
    for seed in (2, 3, 4):
        machine.seed(seed)
        found = forward(x, Lrn(size), Pool())
        assert same(found[0], y)
        assert torch.equal(found[1], offsets)
        assert same(backward(grad, offsets, x, Lrn(size), Pool()), first)
