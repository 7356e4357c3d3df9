"""LRN, max-pool and their fusion on a GPU: float64's numbers, repeatable, no hidden waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastseq import functional

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
TOLERANCES = {
    torch.float64: 1e-12,
    torch.float32: 3e-6,
    torch.bfloat16: 1.6e-2,
    torch.float16: 2e-3,
}
FORMATS = {"planes": torch.contiguous_format, "channels_last": torch.channels_last}
SHAPES = [(2, 96, 55, 55), (1, 16, 8, 8), (3, 5, 7, 11), (2, 13, 32, 34), (1, 200, 3, 3)]
POOLS: list[dict[str, Any]] = [
    {"kernel_size": 3, "stride": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": 2, "stride": 2},
    {"kernel_size": (3, 2), "stride": (1, 2), "padding": (1, 0), "dilation": (1, 2)},
]
each_dtype = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
each_format = pytest.mark.parametrize("memory", FORMATS.values(), ids=FORMATS)
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def within_channel(x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    left, right = size // 2, (size - 1) // 2
    mean = F.avg_pool2d(F.pad(x.square(), (left, right, left, right)), size, stride=1)
    return x / (k + alpha * mean) ** beta


def images(shape: tuple[int, ...], dtype: torch.dtype, memory: torch.memory_format) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2
    return x.to(dtype).contiguous(memory_format=memory)


def check(
    op: Callable[[Tensor], Tensor],
    exact: Callable[[Tensor], Tensor],
    x: Tensor,
) -> None:
    """Values, gradients and memory format against float64 on the CPU."""
    exact_x = x.double().clone().requires_grad_()
    expected = exact(exact_x)
    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2)).to(x.dtype)
    expected.backward(grad.double())
    assert exact_x.grad is not None
    here = x.cuda().requires_grad_()
    found = op(here)
    found.backward(grad.cuda())
    assert here.grad is not None
    assert found.stride() == exact(x.double()).stride()
    for name, value, reference, slack in (
        ("value", found.detach(), expected.detach(), 1),
        ("gradient", here.grad, exact_x.grad, 2),
    ):
        assert value.is_cuda
        assert value.dtype == x.dtype
        scale = max(1e-3, reference.abs().max().item())
        off = (value.cpu().double() - reference).abs().max().item()
        assert off <= slack * TOLERANCES[x.dtype] * scale, f"{name}: {off} of {scale}"


@each_dtype
@each_format
@each_shape
@pytest.mark.parametrize("size", [2, 3, 5, 7, 9, 12])
def test_lrn(
    shape: tuple[int, ...], size: int, memory: torch.memory_format, dtype: torch.dtype
) -> None:
    for beta in (0.75, 0.6):
        parameters = (size, 0.3, beta, 1.5)
        check(
            lambda x, p=parameters: functional.local_response_norm(x, *p),
            lambda x, p=parameters: F.local_response_norm(x, *p),
            images(shape, dtype, memory),
        )


@each_dtype
@each_format
@each_shape
@pytest.mark.parametrize("size", [2, 3, 5, 9])
def test_lrn_within_a_channel(
    shape: tuple[int, ...], size: int, memory: torch.memory_format, dtype: torch.dtype
) -> None:
    parameters = (size, 0.3, 0.75, 1.5)
    check(
        lambda x: functional.local_response_norm(x, *parameters, within_channel=True),
        lambda x: within_channel(x, *parameters),
        images(shape, dtype, memory),
    )


@each_dtype
@each_format
@each_shape
@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_max_pool(
    shape: tuple[int, ...],
    pool: dict[str, Any],
    memory: torch.memory_format,
    dtype: torch.dtype,
) -> None:
    x = images(shape, dtype, memory).round()  # with ties
    check(lambda t: functional.max_pool2d(t, **pool), lambda t: F.max_pool2d(t, **pool), x)
    x[0, 0, 0, 0] = float("nan")
    y, indices = functional.max_pool2d(x.cuda(), **pool, return_indices=True)
    expected, expected_indices = F.max_pool2d(x, **pool, return_indices=True)
    torch.testing.assert_close(y.cpu(), expected, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(indices.cpu(), expected_indices)


@each_dtype
@each_format
@each_shape
@pytest.mark.parametrize("pool", POOLS, ids=str)
@pytest.mark.parametrize("size", [4, 5])
def test_trio(
    shape: tuple[int, ...],
    size: int,
    pool: dict[str, Any],
    memory: torch.memory_format,
    dtype: torch.dtype,
) -> None:
    """The values of the three ops in a row, bit by bit; the gradients as float64 has them."""
    x = images(shape, dtype, memory).cuda().requires_grad_()
    y = functional.relu_lrn_max_pool2d(x, size, 0.3, **pool)
    normalized = functional.local_response_norm(x.relu(), size, 0.3, 0.75, 1.0)
    expected, indices = functional.max_pool2d(normalized, **pool, return_indices=True)
    assert torch.equal(y, expected)

    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    exact_x = x.detach().cpu().double().clone().requires_grad_()
    exact = F.local_response_norm(exact_x.relu(), size, 0.3, 0.75, 1.0).flatten(2)
    exact.gather(2, indices.cpu().flatten(2)).backward(grad.double().flatten(2))
    y.backward(grad.cuda())
    assert x.grad is not None
    assert exact_x.grad is not None
    scale = exact_x.grad.abs().max().item()
    off = (x.grad.cpu().double() - exact_x.grad).abs().max().item()
    assert off <= 2 * TOLERANCES[dtype] * scale


OPS: dict[str, Callable[[Tensor], Tensor]] = {
    "LRN": lambda x: functional.local_response_norm(x, 5, 0.3, 0.75, 1.0),
    "LRN of any size": lambda x: functional.local_response_norm(x, 6, 0.3, 0.6, 1.0),
    "LRN within": lambda x: functional.local_response_norm(
        x, 5, 0.3, 0.75, 1.0, within_channel=True
    ),
    "pool": lambda x: functional.max_pool2d(x, 3, 2),
    "trio": lambda x: functional.relu_lrn_max_pool2d(x, 5, 0.3),
}
each_op = pytest.mark.parametrize("op", OPS.values(), ids=OPS)


def value_and_gradient(op: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    y = op(x)
    return [y.detach(), *torch.autograd.grad(y.square().sum(), x)]


@each_op
@each_format
def test_repeatable_bit_by_bit(op: Callable[[Tensor], Tensor], memory: torch.memory_format) -> None:
    x = images((4, 48, 27, 27), torch.float32, memory).cuda().requires_grad_()
    first = value_and_gradient(op, x)
    for _ in range(20):
        for a, b in zip(value_and_gradient(op, x), first, strict=True):
            assert torch.equal(a, b)


@each_op
@each_format
def test_graph_capture(op: Callable[[Tensor], Tensor], memory: torch.memory_format) -> None:
    x = images((2, 16, 15, 15), torch.float32, memory).cuda().requires_grad_()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            value_and_gradient(op, x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = value_and_gradient(op, x)
    with torch.no_grad():
        x.mul_(-0.7)
    graph.replay()
    for found, expected in zip(captured, value_and_gradient(op, x), strict=True):
        assert torch.equal(found, expected)


@pytest.fixture
def no_waiting() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


@each_op
@pytest.mark.usefixtures("no_waiting")
def test_the_host_never_waits(op: Callable[[Tensor], Tensor]) -> None:
    """Neither in torch's calls nor in ours: an op returns while the device is asleep."""
    x = torch.randn(2, 16, 15, 15, device="cuda", requires_grad=True)
    expected = value_and_gradient(op, x)  # from here on there are memory and kernels
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    torch.cuda._sleep(1_000_000_000)  # half a second
    awake = torch.cuda.Event()
    awake.record()
    found = value_and_gradient(op, x)
    assert not awake.query()
    torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@each_op
def test_current_stream(op: Callable[[Tensor], Tensor]) -> None:
    # The input arrives on a side stream after a long wait: work queued elsewhere reads zeros.
    source = images((2, 16, 15, 15), torch.float32, torch.contiguous_format).cuda()
    expected = value_and_gradient(op, source.clone().requires_grad_())
    x = torch.zeros_like(source)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(100_000_000)
        x.copy_(source)
        found = value_and_gradient(op, x.requires_grad_())
    side.synchronize()
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


@each_op
@each_format
def test_more_than_two_to_the_31_elements(
    op: Callable[[Tensor], Tensor], memory: torch.memory_format
) -> None:
    """The last image of a batch that needs 64-bit indices equals that image alone."""
    shape = (2050, 64, 128, 129)
    if torch.cuda.mem_get_info()[0] < 40 * 2**30:
        pytest.skip("needs 40 GiB of free memory on the GPU")
    assert shape[0] * shape[1] * shape[2] * shape[3] > 2**31
    x = torch.empty(shape, dtype=torch.bfloat16, device="cuda", memory_format=memory)
    x[:-1].zero_()
    x[-1].normal_(generator=torch.Generator("cuda").manual_seed(3))
    alone = x[-1:].clone(memory_format=memory).requires_grad_()
    expected = op(alone)
    expected.backward(expected.detach())
    found = op(x.requires_grad_())
    assert torch.equal(found[-1:], expected)
    grad = torch.zeros_like(found)
    grad[-1:] = expected.detach()
    (dx,) = torch.autograd.grad(found, x, grad)
    assert torch.equal(dx[-1:], alone.grad)
    assert not dx[:-1].any()


@each_op
def test_empty_batch(op: Callable[[Tensor], Tensor]) -> None:
    x = torch.empty(0, 5, 9, 9, device="cuda", requires_grad=True)
    y, dx = value_and_gradient(op, x)
    assert y.shape[:2] == (0, 5)
    assert dx.shape == x.shape
