"""On a GPU: loops that are one launch, against torch.nn in float64 and against the step kernels."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from recurrence_cases import KINDS, assert_equal, call, numbers, packed, states
from torch import Tensor, nn

import fastseq
from fastseq.ops import Cell, persistent

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0),
        reason="no CUDA device of compute capability 8.0",
    ),
]
# Of a gradient, relative to its largest; float32 is TF32.
TOLERANCES = {torch.float32: 1e-2, torch.float16: 2e-2, torch.bfloat16: 1.5e-1}
each_kind = pytest.mark.parametrize("kind", KINDS)
each_dtype = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
CASES: list[tuple[str, dict[str, Any]]] = [
    *((kind, {}) for kind in KINDS),
    *((kind, {"num_layers": 2, "bidirectional": True, "bias": False}) for kind in KINDS),
    ("RNN", {"nonlinearity": "relu"}),
]


@pytest.fixture(autouse=True)
def forced(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """The route, where it can be; yields whether each loop that was asked for took it."""
    seen: list[bool] = []
    taken = persistent.taken

    def asked(*args: Any, directions: int = 1) -> bool:
        made = taken(*args, directions=directions)
        if made or directions == 1:  # without room for both, each is asked for next
            seen.append(made)
        return made

    monkeypatch.setattr(persistent, "taken", asked)
    before = torch.backends.cudnn.rnn.fp32_precision
    torch.backends.cudnn.rnn.fp32_precision = "tf32"
    with fastseq.cuda_rnn("persistent"):
        yield seen
    torch.backends.cudnn.rnn.fp32_precision = before


def widest(kind: str, dtype: torch.dtype) -> int:
    if dtype == torch.float32:
        return 128 if kind == "RNN" else 96
    return 192 if kind == "RNN" else 128


def need_room(kind: str, dtype: torch.dtype, units: int, batch: int) -> None:
    """The mailbox's blocks run at once: 16 of them for 256 units, 32 for 512."""
    cell = Cell.RNN_TANH if kind == "RNN" else Cell[kind]
    if not persistent.room(torch.device("cuda", 0), cell, dtype, units, batch):
        pytest.skip("the device has no room for the kernel's blocks at once")


def on_gpu(value: Any) -> Any:
    if isinstance(value, tuple) and not hasattr(value, "data"):
        return tuple(map(on_gpu, value))
    return None if value is None else value.cuda()


def doubled(value: Any) -> Any:
    if isinstance(value, tuple) and not hasattr(value, "data"):
        return tuple(map(doubled, value))
    return value.to(dtype=torch.float64)


@pytest.mark.parametrize(("kind", "options"), CASES, ids=str)
@each_dtype
@pytest.mark.parametrize("layout", ["padded", "packed", "unsorted"])
@pytest.mark.parametrize("hidden", [37, 64, 0, 256, 509, 512], ids=lambda n: str(n or "widest"))
def test_parity_with_float64_on_the_cpu(
    kind: str,
    options: dict[str, Any],
    dtype: torch.dtype,
    layout: str,
    hidden: int,
    forced: list[bool],
) -> None:
    units = hidden or widest(kind, dtype)
    need_room(kind, dtype, units, 11)
    module = getattr(fastseq, kind)(17, units, dtype=dtype, **options)
    exact = getattr(nn, kind)(17, units, dtype=torch.float64, **options)
    exact.load_state_dict(module.state_dict())
    x: Any = numbers(9, 11, 17, dtype=dtype)
    if layout != "padded":
        lengths = [9, 9, 8, 7, 7, 7, 5, 4, 4, 2, 1]
        x = packed(lengths if layout == "packed" else lengths[::-1], 17, dtype)
    hx = states(module, 11)
    expected = call(exact, doubled(x), doubled(hx))
    found = call(module.cuda(), on_gpu(x), on_gpu(hx))
    assert forced
    assert all(forced)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        off = (found[name].cpu().double() - value).abs().max().item()
        assert off <= TOLERANCES[dtype] * max(1.0, value.abs().max().item()), f"{name}: {off}"


@each_kind
@each_dtype
@pytest.mark.parametrize("hidden", [37, 0, 256], ids=["37", "widest", "256"])
def test_lengths_and_resets(kind: str, dtype: torch.dtype, hidden: int, forced: list[bool]) -> None:
    """Both, in both directions, beside the kernels of the CPU; what lies beyond a length is NaN."""
    units = hidden or widest(kind, dtype)
    need_room(kind, dtype, units, 11)
    module = getattr(fastseq, kind)(17, units, dtype=dtype, bidirectional=True)
    exact = getattr(fastseq, kind)(17, units, dtype=torch.float64, bidirectional=True)
    exact.load_state_dict(module.state_dict())
    lengths = torch.tensor([9, 0, 8, 1, 7, 9, 5, 4, 0, 2, 3])
    reset = numbers(9, 11, seed=3) > 0.8
    x, hx = numbers(9, 11, 17, dtype=dtype), states(module, 11)
    by = states(module, 11, seed=9)
    beyond = (torch.arange(9).unsqueeze(-1) >= lengths).unsqueeze(-1)

    def masked(module: nn.Module, device: str) -> nn.Module:
        beside = {"lengths": lengths.to(device), "reset": reset.to(device)}
        module.register_forward_pre_hook(
            lambda _, args: (args[0].masked_fill(beyond.to(device), float("nan")), *args[1:])
        )
        forward = module.forward
        module.forward = lambda x, hx, by: forward(x, hx, **beside, reset_state=by)
        return module.to(device)

    expected = call(masked(exact, "cpu"), doubled(x), doubled(hx), doubled(by))
    found = call(masked(module, "cuda"), on_gpu(x), on_gpu(hx), on_gpu(by))
    assert forced
    assert all(forced)
    for name, value in expected.items():
        off = (found[name].cpu().double() - value).abs().max().item()
        assert off <= TOLERANCES[dtype] * max(1.0, value.abs().max().item()), f"{name}: {off}"


@each_kind
@each_dtype
@pytest.mark.parametrize("hidden", [0, 256, 512], ids=["widest", "256", "512"])
def test_agrees_with_the_step_kernels(
    kind: str, dtype: torch.dtype, hidden: int, forced: list[bool]
) -> None:
    """Over many steps, those of two launches of the mailbox, and blocks.

    Closer than either is to float64.
    """
    units = hidden or widest(kind, dtype)
    need_room(kind, dtype, units, 67)
    module = getattr(fastseq, kind)(32, units, dtype=dtype).cuda()
    x = numbers(300, 67, 32, dtype=dtype).cuda()
    found = call(module, x)
    assert all(forced)
    with fastseq.cuda_rnn("step"):
        expected = call(module, x)
    assert not all(forced)
    for name, value in expected.items():
        off = (found[name].double() - value.double()).norm() / value.double().norm()
        assert off <= TOLERANCES[dtype], f"{name}: {off}"


@each_kind
@each_dtype
@pytest.mark.parametrize("hidden", [61, 256])
def test_repeatable_bit_by_bit(kind: str, dtype: torch.dtype, hidden: int) -> None:
    module = getattr(fastseq, kind)(17, hidden, dtype=dtype, bidirectional=True).cuda()
    x = packed([40, 33, 33, 20, 9, 9, 9, 9, 2, 1], 17, dtype).to("cuda")
    first = call(module, x)
    for _ in range(20):
        assert_equal(call(module, x), first)


@each_kind
@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("hidden", [37, 256, 512])
def test_graph_capture(kind: str, layout: str, hidden: int, forced: list[bool]) -> None:
    """A graph keeps a packed batch's table, and empties the mailbox's words before each launch."""
    need_room(kind, torch.float16, hidden, 6)
    module = getattr(fastseq, kind)(17, hidden, dtype=torch.float16).cuda()
    x: Any = numbers(9, 6, 17, dtype=torch.float16)
    if layout == "packed":
        x = packed([9, 7, 7, 4, 2, 1], 17, torch.float16)
    x = x.to("cuda")
    data = x if isinstance(x, Tensor) else x.data

    def step() -> list[Tensor]:
        y = module(x)[0]
        y = y if isinstance(y, Tensor) else y.data
        return [y, *torch.autograd.grad(y.square().sum(), list(module.parameters()))]

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
        data.copy_(numbers(*data.shape, seed=5, dtype=torch.float16))
    graph.replay()
    assert all(forced)
    for found, expected in zip(captured, step(), strict=True):
        assert torch.equal(found, expected)


@each_kind
def test_compiled(kind: str, forced: list[bool]) -> None:
    module = getattr(fastseq, kind)(17, 37, dtype=torch.bfloat16).cuda()
    x = numbers(9, 6, 17, dtype=torch.bfloat16).cuda()
    expected = module(x)[0]
    compiled = torch.compile(copy.deepcopy(module), backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x)[0], expected)
    assert all(forced)


@each_kind
def test_explain(kind: str) -> None:
    module = getattr(fastseq, kind)(17, 37).cuda()
    with fastseq.cuda_rnn("persistent"):
        said = fastseq.explain(module, torch.zeros(9, 6, 17, device="cuda"))
    assert "the CUDA kernel 'self', one launch for all steps" in said
    need_room(kind, torch.float32, 256, 6)
    many = fastseq.explain(
        getattr(fastseq, kind)(17, 256).cuda(), torch.zeros(9, 6, 17, device="cuda")
    )
    assert "the CUDA kernel 'mailbox', one launch for all steps" in many


def test_without_tf32_it_goes_step_by_step(forced: list[bool]) -> None:
    torch.backends.cudnn.rnn.fp32_precision = "ieee"
    fastseq.GRU(17, 37).cuda()(torch.zeros(9, 6, 17, device="cuda"))
    assert forced == [False]
