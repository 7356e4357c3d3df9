"""The persistent route from the module down: the layer of CUDA on the CPU, its time loops by SIMT.

Which loop a layer takes, that its gradients are torch.nn's, and that backward goes the way of its
call.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from cuda_stand_in import persistent_kernels
from layers_of_a_gpu import BACKWARD, FORWARD, Loops
from recurrence_cases import KINDS, assert_close, call, numbers, packed, states, twins
from simt_build import Machine

import fastseq
from fastseq.functional.cuda_route import CUDNN, PERSISTENT, STEP
from fastseq.ops import Cell, Extras, extended_layer_cuda, persistent

each_kind = pytest.mark.parametrize("kind", KINDS)
pytestmark = pytest.mark.usefixtures("machine", "one_thread")


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
    count = options.get("num_layers", 1)  # both directions are one launch
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


STATES = {"num_layers": 2, "bidirectional": True, "batch_first": True}


@pytest.mark.parametrize(
    ("kind", "options", "masks"),
    [
        *((*case, "lengths reset state") for case in [*CASES, ("LSTM", STATES), ("GRU", STATES)]),
        *(
            (kind, {"bidirectional": True}, masks)
            for kind in KINDS
            for masks in ("lengths", "reset")
        ),
    ],
    ids=str,
)
def test_lengths_and_resets(kind: str, options: dict[str, Any], masks: str, loops: Loops) -> None:
    """Beside PyTorch's operators, which make them where there is no kernel."""
    module, _ = twins(kind, 5, 7, **options)
    x, hx, by = numbers(4, 6, 5), states(module, 6), states(module, 6, seed=9)
    marks = numbers(4, 6, seed=3) > 0.5
    beyond = torch.arange(4).unsqueeze(-1) >= (lengths := torch.tensor([4, 0, 2, 3, 1, 4]))
    if options.get("batch_first"):
        x, marks, beyond = x.transpose(0, 1), marks.t(), beyond.t()

    def layer(x: Any, hx: Any, by: Any, poison: bool) -> Any:
        if "lengths" in masks and poison:
            x = x.masked_fill(beyond.unsqueeze(-1), float("nan"))
        beside = {
            "lengths": lengths if "lengths" in masks else None,
            "reset": marks if "reset" in masks else None,
            "reset_state": by if "state" in masks else None,
        }
        return module(x, hx, **beside)

    class Run(torch.nn.Module):
        def __init__(self, poison: bool) -> None:
            super().__init__()
            self.inner, self.poison = module, poison

        def forward(self, x: Any, hx: Any, by: Any) -> Any:
            return layer(x, hx, by, self.poison)

    found = call(Run(True), x, hx, by)
    each = options.get("num_layers", 1)  # both directions are one launch
    assert sorted(loops) == [FORWARD] * each + [BACKWARD] * each
    with fastseq.cuda_rnn(STEP):
        expected = call(Run(False), x, hx, by)
    assert len(loops) == 2 * each
    assert_close(found, expected, 5e-3)


def test_a_checkpoint_runs_the_loops_again(loops: Loops) -> None:
    """The way of its call, which nobody forces any more."""
    x, lengths = numbers(3, 2, 4), torch.tensor([3, 1])
    module = fastseq.GRU(4, 6, recompute=True)
    with fastseq.cuda_rnn(PERSISTENT):
        y = module(x.requires_grad_(), lengths=lengths)[0]
    with persistent_kernels(seen=False):
        y.sum().backward()
    assert loops == [FORWARD, FORWARD, BACKWARD]
    with fastseq.cuda_rnn(STEP):
        y = module(x, lengths=lengths)[0]
    y.sum().backward()
    assert loops == [FORWARD, FORWARD, BACKWARD]


def test_lengths_go_back_by_the_route_of_their_call(loops: Loops) -> None:
    module = fastseq.GRU(4, 6)
    with persistent_kernels(seen=False):
        with fastseq.cuda_rnn(PERSISTENT):
            y = module(numbers(3, 2, 4), lengths=torch.tensor([3, 1]))[0]
        y.sum().backward()
        assert loops == [FORWARD, BACKWARD]
        module(numbers(3, 2, 4), lengths=torch.tensor([3, 1]))[0].sum().backward()
    assert loops == [FORWARD, BACKWARD]


def test_what_has_no_kernel_goes_by_operators(loops: Loops) -> None:
    x, lengths = numbers(3, 2, 4), torch.tensor([3, 1])
    for module, beside in (
        (fastseq.LSTM(4, 6, proj_size=2), {"lengths": lengths}),
        (fastseq.GRU(4, 6, layer_norm=True), {"lengths": lengths}),
        (fastseq.RNN(4, 6, zoneout=0.5), {}),
        (fastseq.GRU(4, 6, dtype=torch.float64), {"reset": torch.ones(3, 2, dtype=torch.bool)}),
    ):
        module(x.to(module.weight_hh_l0.dtype), **beside)[0].sum().backward()
    lstm = fastseq.LSTM(4, 6, return_cell_states=True)
    cells = lstm(x, lengths=lengths)[2]
    assert loops == [FORWARD]
    assert bool((cells[1:, 1] == 0).all())
    cells.sum().backward()
    assert loops == [FORWARD]
    with pytest.raises(RuntimeError, match="kernels for lengths and resets alone"):
        extended_layer_cuda._masks(Extras(drop=x))


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_second_derivatives_with_lengths(kind: str, loops: Loops) -> None:
    """The derivative of backward is the formula's; what of it reaches forward goes back again."""
    module = getattr(fastseq, kind)(3, 4)
    lengths, reset = torch.tensor([3, 2]), torch.tensor([[0, 1], [1, 0], [0, 1]]).bool()
    found = []
    for route in (PERSISTENT, STEP):
        x = numbers(3, 2, 3).requires_grad_()
        with fastseq.cuda_rnn(route):
            y = module(x, lengths=lengths, reset=reset)[0]
        grads = torch.autograd.grad(y.square().sum(), [x, *module.parameters()], create_graph=True)
        found.append(torch.autograd.grad(sum(g.square().sum() for g in grads), x)[0])
    torch.testing.assert_close(*found, atol=2e-2, rtol=2e-2)
    assert loops == [FORWARD, BACKWARD, BACKWARD]


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
            None, None, None, *persistent.PLAIN, int(Cell.LSTM), False, True,
        )  # fmt: skip
    assert [tuple(t.shape) for t in made] == [(3, 2, 6), (2, 6), (2, 6), (3, 2, 24), (3, 2, 6)]
