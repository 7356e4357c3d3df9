"""The persistent route from the module down: the layer of CUDA on the CPU, its time loops by SIMT.

Which loop a layer takes, that its gradients are torch.nn's, and that backward goes the way of its
call.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from cuda_stand_in import persistent_kernels
from recurrence_cases import KINDS, assert_close, call, numbers, packed, states, twins
from simt_build import Machine
from simt_cases import SIMT

import fastseq
from fastseq.functional.cuda_route import CUDNN, PERSISTENT, STEP
from fastseq.ops import Cell, layer_cuda, persistent

FORWARD, BACKWARD = "recurrence_persistent", "recurrence_persistent_backward"
each_kind = pytest.mark.parametrize("kind", KINDS)
pytestmark = pytest.mark.usefixtures("machine", "one_thread")
Loops = list[str]


def room(machine: Machine) -> Any:
    """What the machine says in place of a GPU."""
    ask = machine.library.fastseq_persistent_room
    ask.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]

    def asked(_: torch.device, cell: Cell, itemsize: int, hidden: int, tiles: int) -> bool:
        return bool(ask(cell, itemsize, hidden, tiles * persistent.TILE))

    return asked


@pytest.fixture
def loops(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loops]:
    """The CPU with the layers of a GPU; yields the time loops that run."""
    seen: Loops = []
    library = torch.library.Library("fastseq", "IMPL")

    def noted(name: str) -> Any:
        loop = getattr(SIMT, name)

        def run(*args: Any) -> Any:
            seen.append(name)
            return loop(*args)

        return run

    monkeypatch.setattr(persistent, "DEVICES", {"cpu"})
    monkeypatch.setattr(persistent, "capability", lambda device: (9, 0))
    monkeypatch.setattr(persistent, "tf32", lambda single: True)
    monkeypatch.setattr(persistent, "_room", room(machine))
    for name in (FORWARD, BACKWARD):
        library.impl(name, noted(name), "CPU")
    for name in ("recurrence", "recurrence_backward"):
        library.impl(name, noted(name), "CPU", allow_override=True)
    for name in ("layer", "layer_backward"):
        library.impl(name, getattr(layer_cuda, name), "CPU", allow_override=True)
    with persistent_kernels():
        yield seen
    library._destroy()


CASES: list[tuple[str, dict[str, Any]]] = [
    *((kind, {}) for kind in KINDS),
    ("LSTM", {"num_layers": 2, "bidirectional": True, "bias": False}),
    ("GRU", {"bidirectional": True}),
    ("RNN", {"nonlinearity": "relu"}),
]


@pytest.mark.parametrize(("kind", "options"), CASES, ids=str)
@pytest.mark.parametrize("layout", ["padded", "packed", "unsorted"])
def test_parity(kind: str, options: dict[str, Any], layout: str, loops: Loops) -> None:
    """Outputs and all gradients, in TF32."""
    ours, theirs = twins(kind, 5, 7, **options)
    x: Any = numbers(4, 3, 5)
    if layout != "padded":
        x = packed([4, 3, 1] if layout == "packed" else [1, 4, 3], 5)
    hx = states(ours, 3)
    assert_close(call(ours, x, hx), call(theirs, x, hx), 5e-3)
    each = 2 if options.get("bidirectional") else 1
    count = each * options.get("num_layers", 1)
    assert sorted(loops) == [FORWARD] * count + [BACKWARD] * count


@each_kind
def test_a_loop_without_a_kernel_goes_step_by_step(kind: str, loops: Loops) -> None:
    x = numbers(3, 2, 4)
    for module in (
        getattr(fastseq, kind)(4, 1025 if kind == "RNN" else 513),
        getattr(fastseq, kind)(4, 6, dtype=torch.float64),
        *([fastseq.LSTM(4, 6, proj_size=2)] if kind == "LSTM" else []),
    ):
        module(x.to(module.weight_hh_l0.dtype))[0].sum().backward()
    assert set(loops) == {"recurrence", "recurrence_backward"}


@pytest.mark.parametrize("route", [PERSISTENT, STEP, CUDNN])
def test_a_route_is_forced_for_backward_as_well(route: str, loops: Loops) -> None:
    """Though that is called when nothing is forced any more, and by another thread."""
    module = fastseq.GRU(4, 6)
    with fastseq.cuda_rnn(route):
        y = module(numbers(3, 2, 4))[0]
    thread = threading.Thread(target=y.sum().backward)
    thread.start()
    thread.join()
    loop = FORWARD if route == PERSISTENT else "recurrence"
    assert loops == [loop, f"{loop}_backward"]
    assert module.weight_hh_l0.grad is not None


@pytest.mark.parametrize(("kind", "hidden"), [("LSTM", 97), ("GRU", 97), ("RNN", 129)])
def test_many_units_where_there_is_room(
    kind: str, hidden: int, machine: Machine, loops: Loops
) -> None:
    """The mailbox; a device with too few multiprocessors goes step by step from the start."""
    ours, theirs = twins(kind, 3, hidden, bidirectional=kind == "GRU")
    x = packed([3, 2], 3)
    hx = states(ours, 2)
    machine.multiprocessors(16)
    assert_close(call(ours, x, hx), call(theirs, x, hx), 5e-3)
    assert set(loops) == {FORWARD, BACKWARD}
    loops.clear()
    machine.multiprocessors(8)
    with fastseq.cuda_rnn(PERSISTENT):
        call(ours, x, hx)
    assert set(loops) == {"recurrence", "recurrence_backward"}


def test_rows_beyond_the_estimate_go_step_by_step_unless_asked(
    loops: Loops, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persistent, "MANY_ROWS", 2)
    persistent._taken.cache_clear()
    module = fastseq.RNN(4, 6)
    with torch.no_grad():
        module(numbers(3, 3, 4))
        with fastseq.cuda_rnn(PERSISTENT):
            module(numbers(3, 3, 4))
    persistent._taken.cache_clear()
    assert loops == ["recurrence", FORWARD]


def test_what_no_gpu_has_run_goes_step_by_step_unless_asked(loops: Loops) -> None:
    module = fastseq.GRU(4, 6)
    with persistent_kernels(seen=False), torch.no_grad():
        module(numbers(3, 2, 4))
        with fastseq.cuda_rnn(PERSISTENT):
            module(numbers(3, 2, 4))
    assert loops == ["recurrence", FORWARD]


def test_float32_without_tf32_goes_step_by_step(
    loops: Loops, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persistent, "tf32", lambda single: False)
    with torch.no_grad():
        fastseq.LSTM(4, 6)(numbers(3, 2, 4))
        fastseq.LSTM(4, 6, dtype=torch.float16)(numbers(3, 2, 4, dtype=torch.float16))
    assert loops == ["recurrence", FORWARD]


@each_kind
def test_second_derivatives(kind: str, loops: Loops) -> None:
    """Gradients of what forward saved are the step kernels' work; the rest is not."""
    module, theirs = twins(kind, 3, 4)
    found = []
    for each in (module, theirs):
        x = numbers(3, 2, 3).requires_grad_()
        grads = torch.autograd.grad(
            each(x)[0].square().sum(), [x, *each.parameters()], create_graph=True
        )
        found.append(torch.autograd.grad(sum(g.square().sum() for g in grads), x)[0])
    torch.testing.assert_close(*found, atol=2e-2, rtol=2e-2)
    last = BACKWARD if kind == "RNN" else "recurrence_backward"
    assert loops == [FORWARD, BACKWARD, last]


def test_nothing_to_compute_goes_step_by_step(loops: Loops) -> None:
    with torch.no_grad():
        fastseq.LSTM(4, 6)(torch.zeros(3, 0, 4))
    assert loops == ["recurrence"]


def test_the_ops_have_shapes_for_a_compiler() -> None:
    with torch._subclasses.FakeTensorMode():
        made = torch.ops.fastseq.recurrence_persistent(
            torch.empty(3, 2, 24), torch.empty(2, 6), torch.empty(2, 6), torch.empty(24, 6),
            None, None, None, int(Cell.LSTM), False, True,
        )  # fmt: skip
    assert [tuple(t.shape) for t in made] == [(3, 2, 6), (2, 6), (2, 6), (3, 2, 24), (3, 2, 6)]
