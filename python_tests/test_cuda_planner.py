"""The choice of a route on a GPU, how to force it, and what explain says of it."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from cuda_stand_in import Calls, gpu, persistent_kernels
from recurrence_cases import (
    KINDS,
    numbers,
    packed,
)

import fastseq
from fastseq.functional import cuda_route
from fastseq.functional.cuda_route import CUDNN, PERSISTENT, STEP, Facts, plan
from fastseq.ops import Cell, persistent, routes

T4, A100, H100 = (7, 5), (8, 0), (9, 0)  # compute capabilities
USUAL = Facts(
    cell=Cell.LSTM,
    steps=512,
    batch=32,
    input=512,
    hidden=2048,
    layers=1,
    directions=1,
    dtype=torch.float32,
    projected=False,
    packed=False,
    options=False,
    observed=False,
    deterministic=False,
    cudnn=True,
    tf32=True,
    capability=H100,
    room=True,
)
FEW = USUAL._replace(hidden=96)  # units, for which one block has registers
each_kind = pytest.mark.parametrize("kind", KINDS)
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("error")]


@pytest.fixture(autouse=True)
def seen() -> Iterator[None]:
    with persistent_kernels():
        yield


@pytest.fixture
def cudnn() -> Iterator[Calls]:
    with gpu() as calls:
        yield calls


@pytest.mark.parametrize(
    ("change", "route", "words"),
    [
        ({}, CUDNN, "launches its steps faster"),
        ({"packed": True}, CUDNN, ""),
        ({"projected": True}, CUDNN, ""),
        ({"layers": 3, "directions": 2}, CUDNN, ""),
        ({"dtype": torch.float64}, CUDNN, ""),
        ({"dtype": torch.float16, "capability": T4}, CUDNN, ""),
        ({"dtype": torch.bfloat16, "capability": A100}, CUDNN, ""),
        ({"dtype": torch.bfloat16, "capability": T4}, STEP, "compute capability 8.0"),
        ({"dtype": torch.complex64}, STEP, "has not this dtype"),
        ({"options": True}, STEP, "has not what the call asks for"),
        ({"observed": True}, STEP, "follows the ops"),
        ({"cudnn": False}, STEP, "disabled"),
        ({"deterministic": True}, STEP, "deterministic"),
        ({"batch": 0}, STEP, "no work"),
        ({"input": 0}, STEP, "no work"),
        ({"steps": 1}, STEP, "single step"),
        ({"hidden": 160, "batch": 44, "room": False}, STEP, "few units"),
        ({"hidden": 160, "batch": 44, "cell": Cell.GRU, "room": False}, STEP, "few units"),
        ({"hidden": 160, "batch": 44, "cell": Cell.RNN_TANH, "room": False}, CUDNN, ""),
        ({"hidden": 160, "batch": 44, "packed": True, "room": False}, CUDNN, ""),
        ({"hidden": 160, "batch": 44, "dtype": torch.float64}, CUDNN, ""),
        ({"hidden": 160, "batch": 16, "room": False}, CUDNN, ""),
        ({"hidden": 128, "batch": 44, "room": False}, CUDNN, ""),
        ({"hidden": 193, "batch": 44, "room": False}, CUDNN, ""),
        ({"hidden": 96}, PERSISTENT, "one launch is faster"),
        ({"hidden": 97}, PERSISTENT, "one launch is faster"),
        ({"hidden": 97, "room": False}, CUDNN, "no room for the kernel's blocks at once"),
        ({"hidden": 512, "packed": True}, PERSISTENT, ""),
        ({"hidden": 513}, CUDNN, "registers for so many units"),
        ({"hidden": 1024, "dtype": torch.bfloat16, "cell": Cell.GRU}, PERSISTENT, ""),
        ({"hidden": 1025, "dtype": torch.bfloat16}, CUDNN, "registers for so many units"),
        ({"hidden": 1024, "cell": Cell.RNN_TANH}, PERSISTENT, ""),
        ({"hidden": 97, "cell": Cell.RNN_RELU}, PERSISTENT, ""),
        ({"hidden": 128, "dtype": torch.bfloat16}, PERSISTENT, ""),
        ({"hidden": 128, "dtype": torch.float16, "cell": Cell.GRU}, PERSISTENT, ""),
        ({"hidden": 64, "packed": True}, PERSISTENT, ""),
        ({"hidden": 64, "observed": True, "deterministic": True}, PERSISTENT, ""),
        ({"hidden": 64, "cudnn": False, "steps": 1}, PERSISTENT, ""),
        ({"hidden": 64, "options": True}, PERSISTENT, ""),
        ({"hidden": 64, "tf32": False}, CUDNN, "TF32, which is off"),
        ({"hidden": 64, "tf32": False, "dtype": torch.bfloat16}, PERSISTENT, ""),
        ({"hidden": 64, "dtype": torch.float64}, CUDNN, "no persistent kernel of this dtype"),
        ({"hidden": 64, "projected": True}, CUDNN, "with a projection"),
        ({"hidden": 64, "batch": 2049}, CUDNN, "take turns"),
        ({"hidden": 64, "capability": T4}, CUDNN, "need compute capability 8.0"),
        ({"hidden": 64, "steps": 0}, STEP, "no work; there is no work"),
    ],
    ids=str,
)
def test_rules(change: dict[str, Any], route: str, words: str) -> None:
    found = plan(USUAL._replace(**change))
    assert found.route == route
    assert words in found.why


@pytest.mark.parametrize(
    ("route", "usual", "changes"),
    [
        (
            CUDNN,
            USUAL,
            [
                {"options": True},
                {"observed": True},
                {"cudnn": False},
                {"dtype": torch.complex64},
                {"dtype": torch.bfloat16, "capability": T4},
                {"batch": 0},
                {"deterministic": True},
                {"hidden": 160},
                {"steps": 1},
            ],
        ),
        (
            PERSISTENT,
            FEW,
            [
                {"projected": True},
                {"dtype": torch.float64},
                {"tf32": False},
                {"capability": T4},
                {"hidden": 513},
                {"room": False},
                {"batch": 0},
                {"batch": 2049},
            ],
        ),
    ],
    ids=[CUDNN, PERSISTENT],
)
def test_every_rule_is_of_use(route: str, usual: Facts, changes: list[dict[str, Any]]) -> None:
    """Each alone turns the usual call away; so none hides behind another."""
    found = cuda_route.ROUTES[route]
    rules = [rule for rule in (*found.cannot, *found.slow) if rule is not persistent.UNSEEN]
    hits = [[rule.applies(usual._replace(**change)) for rule in rules] for change in changes]
    assert hits == [[i == j for j in range(len(rules))] for i in range(len(changes))]


def test_kernels_that_no_gpu_has_run_are_taken_only_when_asked_for(cudnn: Calls) -> None:
    module, x = fastseq.LSTM(3, 96), numbers(2, 3, 3)
    with persistent_kernels(seen=False):
        route, why = plan(FEW)
        assert route == CUDNN
        assert why.startswith("no GPU has run the persistent kernels yet")
        assert plan(FEW._replace(cudnn=False)).route == STEP
        assert plan(FEW, PERSISTENT, "he") == (PERSISTENT, "he asks for it")
        assert "FASTSEQ_CUDA_RNN=persistent asks for them" in fastseq.explain(module, x)
        loop = persistent.Loop(Cell.LSTM, torch.float16, 3, 96, False, True, H100, True)
        assert [persistent._taken(loop, name) for name in routes.NAMES] == [
            False,
            True,
            False,
            False,
        ]


def test_a_route_is_forced_where_it_can_be() -> None:
    assert plan(USUAL, STEP, "he") == (STEP, "he asks for it")
    slow = USUAL._replace(steps=1)
    assert plan(slow, CUDNN, "he") == (CUDNN, "he asks for it")
    route, why = plan(USUAL._replace(options=True), CUDNN, "he")
    assert route == STEP
    assert why.startswith("he asks for cudnn, but torch.nn")
    assert plan(FEW._replace(batch=2049), PERSISTENT, "he") == (PERSISTENT, "he asks for it")
    assert plan(FEW, CUDNN, "he").route == CUDNN
    route, why = plan(USUAL, PERSISTENT, "he")
    assert (route, why) == (
        STEP,
        "he asks for persistent, but no persistent kernel has registers for so many units",
    )


def test_force_is_undone_and_stays_in_its_thread() -> None:
    seen = []
    assert cuda_route.chosen(USUAL).route == CUDNN
    with fastseq.cuda_rnn("step"):
        assert cuda_route.chosen(USUAL).route == STEP
        with fastseq.cuda_rnn("auto"):
            assert cuda_route.chosen(USUAL).route == CUDNN
        thread = threading.Thread(target=lambda: seen.append(cuda_route.chosen(USUAL).route))
        thread.start()
        thread.join()
        assert cuda_route.chosen(USUAL).route == STEP
    assert seen == [CUDNN]
    assert cuda_route.chosen(USUAL).route == CUDNN


def test_an_unknown_route_gets_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(ValueError, match="no route 'fast'; there are auto, persistent, cudnn, step"),
        fastseq.cuda_rnn("fast"),
    ):
        pass
    monkeypatch.setenv("FASTSEQ_CUDA_RNN", "fast")
    with pytest.raises(ImportError, match="FASTSEQ_CUDA_RNN is 'fast', and the routes"):
        routes.from_environment()
    monkeypatch.setenv("FASTSEQ_CUDA_RNN", "step")
    assert routes.from_environment() == STEP
    monkeypatch.setattr(routes, "environment", STEP)
    assert cuda_route.chosen(USUAL) == (STEP, "FASTSEQ_CUDA_RNN asks for it")
    with fastseq.cuda_rnn("auto"):
        assert cuda_route.chosen(USUAL).route == CUDNN


# What explain says


@each_kind
def test_explain(kind: str, cudnn: Calls) -> None:
    module = getattr(fastseq, kind)(3, 1030)
    x = numbers(5, 2, 3)
    said = fastseq.explain(module, x)
    assert "T=5, B=2, H=1030: cuDNN, the whole stack in one call, because no persistent" in said
    assert "; it launches its steps faster" in said
    assert "cuDNN" in fastseq.explain(module, packed([5, 3], 3))
    with fastseq.cuda_rnn("step"):
        said = fastseq.explain(module, x)
    assert "CUDA step kernels" in said
    assert said.endswith("because fastseq.cuda_rnn asks for it.")
    assert "because of layer_norm" in fastseq.explain(
        getattr(fastseq, kind)(3, 1030, layer_norm=True), x
    )
    recomputing = getattr(fastseq, kind)(3, 1030, recompute=True)
    assert "has not what the call asks for" in fastseq.explain(recomputing, x)
    assert not cudnn


def test_explain_of_an_old_gpu() -> None:
    with gpu(T4):
        said = fastseq.explain(
            fastseq.GRU(3, 4, dtype=torch.bfloat16), torch.zeros(5, 2, 3).bfloat16()
        )
    assert said.endswith("capability 8.0; cuDNN's bfloat16 needs compute capability 8.0.")


def test_explain_names_the_persistent_kernel(cudnn: Calls) -> None:
    module = fastseq.LSTM(3, 4, dtype=torch.bfloat16)
    said = fastseq.explain(module, torch.zeros(5, 2, 3).bfloat16())
    assert "the CUDA kernel 'self', one launch for all steps of a layer" in said
    with fastseq.cuda_rnn("cudnn"):
        said = fastseq.explain(module, torch.zeros(5, 2, 3).bfloat16())
    assert "cuDNN, the whole stack" in said
    many = fastseq.LSTM(3, 512, dtype=torch.bfloat16)
    said = fastseq.explain(many, torch.zeros(5, 2, 3).bfloat16())
    assert "the CUDA kernel 'mailbox', one launch for all steps of a layer" in said
    assert not cudnn


def test_explain_of_both_directions(cudnn: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one launch where there is room for both, and nothing else is asked for."""
    x = numbers(5, 2, 3, dtype=torch.bfloat16)
    options = {"bidirectional": True, "dtype": torch.bfloat16}
    module = fastseq.LSTM(3, 512, **options)
    assert "all steps of a layer in both directions, because" in fastseq.explain(module, x)
    said = fastseq.explain(module, x, lengths=torch.tensor([5, 2]))
    assert "all steps of a layer in both directions, with lengths, because" in said
    dropping = fastseq.LSTM(3, 512, weight_dropout=0.5, **options)
    assert "in a direction (other options ask for one at a time)" in fastseq.explain(dropping, x)
    assert "in both directions" in fastseq.explain(dropping.eval(), x)
    monkeypatch.setattr(persistent, "_room", lambda *layer: layer[-1] == 1)
    assert "in a direction (no room for both at once), because" in fastseq.explain(module, x)
    assert not cudnn


def test_explain_of_lengths_and_resets(cudnn: Calls) -> None:
    """Which no route has but that of one launch."""
    module, x = fastseq.LSTM(3, 4, dtype=torch.bfloat16), torch.zeros(5, 2, 3).bfloat16()
    lengths, reset = torch.tensor([5, 2]), torch.zeros(5, 2, dtype=torch.bool)
    said = fastseq.explain(module, x, lengths=lengths, reset=reset)
    assert "the CUDA kernel 'self', one launch for all steps of a layer in a direction" in said
    assert "with lengths and reset, because one launch is faster" in said
    operators = "PyTorch's own operators step by step, because of lengths: "
    with fastseq.cuda_rnn("persistent"):
        said = fastseq.explain(module, x, reset=reset)
        assert "with reset, because fastseq.cuda_rnn asks for it" in said
    for route in ("step", "cudnn"):
        with fastseq.cuda_rnn(route):
            said = fastseq.explain(module, x, lengths=lengths)
            assert said.endswith(f"{operators}fastseq.cuda_rnn asks for {route}.")
    with persistent_kernels(seen=False):
        assert f"{operators}no GPU has run" in fastseq.explain(module, x, lengths=lengths)
    many = fastseq.LSTM(3, 1030, dtype=torch.bfloat16)
    assert "registers for so many units" in fastseq.explain(many, x, lengths=lengths)
    normed = fastseq.LSTM(3, 4, layer_norm=True, dtype=torch.bfloat16)
    assert "because of layer_norm." in fastseq.explain(normed, x, lengths=lengths)
    assert cuda_route.once(FEW._replace(observed=True)).why.endswith("follows the ops")
    assert not cudnn


def test_explain_of_lengths_on_the_cpu() -> None:
    said = fastseq.explain(fastseq.GRU(3, 4), numbers(5, 2, 3), lengths=torch.tensor([5, 2]))
    assert ", with lengths, " in said


def test_explain_of_a_device_without_room() -> None:
    with gpu(room=False):
        few = fastseq.explain(fastseq.GRU(3, 96), numbers(5, 2, 3))
        many = fastseq.explain(fastseq.GRU(3, 97), numbers(5, 2, 3))
    assert "'self'" in few
    assert "cuDNN" in many
    assert "the device has no room for the kernel's blocks at once; it launches" in many


@pytest.mark.parametrize(
    ("seen", "route", "asks"),
    [
        (True, "auto", True),
        (True, "cudnn", False),
        (True, "step", False),
        (False, "auto", False),
        (False, "persistent", True),
    ],
)
def test_a_device_is_asked_for_room_where_it_matters(
    seen: bool, route: str, asks: bool, cudnn: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asking loads a kernel, which nobody may ever launch."""
    asked = []
    monkeypatch.setattr(persistent, "_room", lambda *layer: not asked.append(layer))
    with persistent_kernels(seen), fastseq.cuda_rnn(route):
        fastseq.explain(fastseq.GRU(3, 97), numbers(5, 2, 3))
    assert bool(asked) == asks
    assert not cudnn


def test_a_device_is_asked_for_room_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For each cell, size of numbers and of state, and number of tiles; and not for Self."""
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(persistent, "capability", lambda device: H100)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(
        persistent._native, "persistent_room", lambda *layer: asked.append(layer) or len(asked) < 3
    )
    persistent._room.cache_clear()
    device = torch.device("cuda", 0)
    for batch in (1, 8, 9):
        assert persistent.room(device, Cell.GRU, torch.float16, 128, batch)
        assert persistent.room(device, Cell.GRU, torch.float64, 512, batch)
        assert persistent.room(device, Cell.GRU, torch.float16, 161, batch)
    assert persistent.room(device, Cell.GRU, torch.bfloat16, 161, 16)
    assert asked == [(Cell.GRU, 2, 161, 8, 1), (Cell.GRU, 2, 161, 16, 1)]
    assert not persistent.room(device, Cell.GRU, torch.float32, 129, 16)
    monkeypatch.setattr(persistent, "capability", lambda device: T4)
    assert persistent.room(device, Cell.LSTM, torch.float16, 129, 8)
    assert len(asked) == 3
    persistent._room.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("cell", list(Cell))
def test_kernels_by_size(cell: Cell, dtype: torch.dtype) -> None:
    """simt/test_self.py runs the largest of Self's, and test_mailbox_ops.py the next ones."""
    wide = dtype == torch.float32 and cell.gates > 1
    half = 192 if cell.gates == 1 else 128
    most = {torch.float64: 0, torch.float32: 96 if wide else 128}.get(dtype, half)
    assert persistent.kernel(cell, dtype, max(most, 1)) == ("self" if most else "")
    more = {torch.float64: 0}.get(dtype, 512 if wide else 1024)
    assert persistent.kernel(cell, dtype, most + 1) == ("mailbox" if more else "")
    assert persistent.kernel(cell, dtype, max(more, 1)) == ("mailbox" if more else "")
    assert persistent.kernel(cell, dtype, more + 1) == ""


def test_every_call_says_what_it_does(cudnn: Calls) -> None:
    """explain() and a call ask the same planner, with the same facts."""
    for module, x in [
        (fastseq.LSTM(3, 160), numbers(2, 44, 3)),
        (fastseq.LSTM(3, 160), numbers(2, 3, 3)),
        (fastseq.GRU(3, 4), numbers(1, 2, 3)),
        (fastseq.GRU(3, 4, batch_first=True), numbers(1, 2, 3)),
        (fastseq.GRU(3, 4, dtype=torch.float16), numbers(5, 2, 3, dtype=torch.float16)),
        (
            fastseq.GRU(3, 4, dtype=torch.float16, bidirectional=True),
            packed([5, 3], 3, torch.float16),
        ),
    ]:
        cudnn.clear()
        said = fastseq.explain(module, x)
        module(x)
        assert ("cuDNN, the whole stack" in said) == (len(cudnn) == 1), said
