"""On a GPU: the same numbers as in float64 on the CPU, graphs, streams, no hidden waiting."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from recurrence_cases import (
    CELLS,
    KINDS,
    assert_equal,
    call,
    leaves,
    numbers,
    packed,
    states,
)
from torch import Tensor, nn

import fastseq

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
TOLERANCES = {
    torch.float64: 1e-10,
    torch.float32: 3e-5,
    torch.float16: 2e-2,
    torch.bfloat16: 1.5e-1,
}
each_dtype = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
each_kind = pytest.mark.parametrize("kind", KINDS)
CASES: list[tuple[str, dict[str, Any]]] = [
    *((kind, options) for kind in KINDS for options in ({}, {"bias": False})),
    *((kind, {"num_layers": 2, "bidirectional": True}) for kind in KINDS),
    ("LSTM", {"proj_size": 11}),
    ("LSTM", {"proj_size": 11, "num_layers": 2, "bidirectional": True}),
    ("RNN", {"nonlinearity": "relu"}),
]
each_case = pytest.mark.parametrize(("kind", "options"), CASES, ids=str)


@pytest.fixture(autouse=True)
def true_float32() -> Iterator[None]:
    rnn, products = torch.backends.cudnn.rnn, torch.backends.cuda.matmul
    before = rnn.fp32_precision, products.fp32_precision
    rnn.fp32_precision = products.fp32_precision = "ieee"
    yield
    rnn.fp32_precision, products.fp32_precision = before


@pytest.fixture(params=["cudnn", "step"])
def route(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each way that a recurrence may take, in turn."""
    with fastseq.cuda_rnn(request.param):
        yield request.param


@pytest.fixture
def by_step() -> Iterator[None]:
    """Of our own kernels alone, more is promised."""
    with fastseq.cuda_rnn("step"):
        yield


def moved(value: Any, device: str, dtype: torch.dtype | None = None) -> Any:
    if isinstance(value, tuple) and not hasattr(value, "data"):
        return tuple(moved(v, device, dtype) for v in value)
    return None if value is None else value.to(device=device, dtype=dtype or value.dtype)


def assert_near(actual: dict[str, Tensor], exact: dict[str, Tensor], tolerance: float) -> None:
    assert actual.keys() == exact.keys()
    for name, value in exact.items():
        found = actual[name]
        assert found.is_cuda, name
        scale = max(1.0, value.abs().max().item()) if value.numel() else 1.0
        off = (found.cpu().double() - value).abs().max().item() if value.numel() else 0.0
        assert off <= tolerance * scale, f"{name}: {off} of {scale}"


@each_case
@each_dtype
@pytest.mark.parametrize("layout", ["padded", "packed", "unsorted", "batch_first", "unbatched"])
def test_parity_with_float64_on_the_cpu(
    kind: str, options: dict[str, Any], dtype: torch.dtype, layout: str, route: str
) -> None:
    options = {**options, "batch_first": layout == "batch_first"}
    module = getattr(fastseq, kind)(17, 37, dtype=dtype, **options)
    exact = getattr(nn, kind)(17, 37, dtype=torch.float64, **options)
    exact.load_state_dict(module.state_dict())
    x: Any = numbers(9, 6, 17, dtype=dtype)
    if layout == "packed":
        x = packed([9, 7, 7, 4, 2, 1], 17, dtype)
    if layout == "unsorted":
        x = packed([4, 9, 1, 7, 2, 7], 17, dtype)
    if layout == "unbatched":
        x = x[:, 0]
    hx = states(module, {"batch_first": 9, "unbatched": None}.get(layout, 6))
    expected = call(exact, moved(x, "cpu", torch.float64), moved(hx, "cpu", torch.float64))
    found = call(module.cuda(), moved(x, "cuda"), moved(hx, "cuda"))
    assert_near(found, expected, TOLERANCES[dtype])


@each_kind
@pytest.mark.usefixtures("by_step")
def test_inference_equals_training(kind: str) -> None:
    module = getattr(fastseq, kind)(17, 37, num_layers=2).cuda()
    x = numbers(9, 6, 17).cuda()
    with torch.no_grad():
        alone = module(x)[0]
    assert torch.equal(alone, module(x)[0])


@each_kind
@pytest.mark.usefixtures("route")
def test_empty_batch(kind: str) -> None:
    module = getattr(fastseq, kind)(3, 4).cuda()
    found = call(module, torch.zeros(5, 0, 3).cuda())
    assert found["output 0"].shape == (5, 0, 4)
    assert not found["gradient of weight_hh_l0"].any()


@each_kind
@pytest.mark.usefixtures("by_step")
def test_repeatable_bit_by_bit(kind: str) -> None:
    module = getattr(fastseq, kind)(17, 37, num_layers=2, bidirectional=True).cuda()
    x = numbers(9, 6, 17).cuda()
    first = call(module, x)
    for _ in range(10):
        assert_equal(call(module, x), first)


@each_kind
@pytest.mark.usefixtures("route")
def test_second_derivative(kind: str) -> None:
    module = getattr(fastseq, kind)(2, 3, dtype=torch.float64).cuda()
    x = numbers(3, 2, 2, dtype=torch.float64).cuda().requires_grad_()
    assert torch.autograd.gradcheck(lambda t: module(t)[0], x)
    assert torch.autograd.gradgradcheck(lambda t: module(t)[0], x)


@each_kind
@pytest.mark.parametrize("training", [False, True], ids=["forward", "forward and backward"])
@pytest.mark.usefixtures("route")
def test_graph_capture(kind: str, training: bool) -> None:
    module = getattr(fastseq, kind)(17, 37, num_layers=2).cuda()
    x = numbers(9, 6, 17).cuda().requires_grad_(training)

    def step() -> list[Tensor]:
        with torch.set_grad_enabled(training):
            y = module(x)[0]
        if not training:
            return [y]
        return [y, *torch.autograd.grad(y.square().sum(), [x, *module.parameters()])]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        x.copy_(numbers(9, 6, 17, seed=5))
    graph.replay()
    for found, expected in zip(captured, step(), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", KINDS + CELLS)
@pytest.mark.usefixtures("route")
def test_graphed_callable_trains(kind: str) -> None:
    module = getattr(fastseq, kind)(17, 37).cuda()
    plain = copy.deepcopy(module)
    shape = (6, 17) if kind in CELLS else (9, 6, 17)
    sample = numbers(*shape).cuda().requires_grad_()
    graphed = torch.cuda.make_graphed_callables(module, (sample,))
    for seed in (5, 6):
        x = numbers(*shape, seed=seed).cuda()
        found, expected = call(graphed, x), call(plain, x)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value)


@pytest.fixture
def no_waiting() -> Iterator[None]:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@each_kind
@pytest.mark.usefixtures("no_waiting", "route")
def test_host_never_waits_for_padded_input(kind: str) -> None:
    """Neither in torch's calls nor in ours: a step returns while the device is asleep."""
    torch.cuda.set_sync_debug_mode("default")
    module = getattr(fastseq, kind)(17, 37, num_layers=2, bidirectional=True).cuda()
    x = numbers(9, 6, 17).cuda().requires_grad_()

    def step() -> tuple[Tensor, ...]:
        return torch.autograd.grad(module(x)[0].sum(), [x, *module.parameters()])

    expected = step()  # from here on there are memory, handles and kernels
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    torch.cuda._sleep(1_000_000_000)  # half a second
    awake = torch.cuda.Event()
    awake.record()
    found = step()
    assert not awake.query()
    torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(found, expected)


@each_kind
@pytest.mark.parametrize("options", [{}, {"layer_norm": True, "num_layers": 2}], ids=str)
def test_lengths_and_resets_on_the_device(
    kind: str, options: dict[str, Any], no_waiting: None
) -> None:
    """As on the CPU, and without a wait for the marks or the lengths."""
    torch.cuda.set_sync_debug_mode("default")
    module = getattr(fastseq, kind)(5, 7, dtype=torch.float64, **options)
    lengths, reset = torch.tensor([3, 6, 0, 5]), numbers(6, 4) > 1
    x = numbers(6, 4, 5, dtype=torch.float64)
    expected = module(x, lengths=lengths, reset=reset)[0]
    there = copy.deepcopy(module).cuda()
    moved_in = [t.cuda() for t in (x, lengths, reset)]
    torch.cuda.set_sync_debug_mode("error")
    y = there(moved_in[0], lengths=moved_in[1], reset=moved_in[2])[0]
    y.sum().backward()
    torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(y.cpu(), expected)


@each_kind
def test_streams(kind: str) -> None:
    module = getattr(fastseq, kind)(5, 7, num_layers=2).cuda()
    x = numbers(6, 4, 5).cuda()
    with torch.no_grad():
        expected, state = module(x)[0], None
        for x_t, y_t in zip(x, expected, strict=True):
            y, state = module.step(x_t, state)
            torch.testing.assert_close(y, y_t, rtol=0, atol=1e-5)


@each_kind
@pytest.mark.usefixtures("route")
def test_current_stream(kind: str) -> None:
    # The input arrives on a side stream after a long wait: work queued elsewhere reads zeros.
    module = getattr(fastseq, kind)(64, 64).cuda()
    source = numbers(20, 8, 64).cuda()
    with torch.no_grad():
        expected = module(source)[0]
        x = torch.zeros_like(source)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            torch.cuda._sleep(100_000_000)
            x.copy_(source)
            y = module(x)[0]
        side.synchronize()
    torch.testing.assert_close(y, expected)


@each_kind
@pytest.mark.usefixtures("route")
def test_autocast(kind: str) -> None:
    module = getattr(fastseq, kind)(17, 37).cuda()
    x = numbers(9, 6, 17).cuda()
    with torch.autocast("cuda", torch.float16):
        y = module(x)[0]
    assert y.dtype == torch.float16
    torch.testing.assert_close(y.float(), module(x)[0], rtol=0, atol=1e-2)


@each_kind
def test_mistaken_device(kind: str) -> None:
    with pytest.raises(RuntimeError, match="are not at the same device"):
        getattr(fastseq, kind)(3, 4).cuda()(numbers(5, 2, 3))


@each_kind
def test_explain(kind: str) -> None:
    module = getattr(fastseq, kind)(3, 4).cuda()
    assert "CUDA" in fastseq.explain(module, torch.zeros(5, 2, 3, device="cuda"))
    assert leaves(module(torch.zeros(5, 2, 3, device="cuda")))[0].is_cuda
