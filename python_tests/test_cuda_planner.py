"""The choice of a route on a GPU, how to force it, and what explain says of it."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from cuda_stand_in import Calls, gpu
from recurrence_cases import (
    KINDS,
    numbers,
    packed,
)

import fastseq
from fastseq.functional import cuda_route
from fastseq.functional.cuda_route import CUDNN, STEP, Facts, plan
from fastseq.ops import Cell

T4, A100, H100 = (7, 5), (8, 0), (9, 0)  # compute capabilities
USUAL = Facts(
    cell=Cell.LSTM,
    steps=512,
    batch=32,
    input=512,
    hidden=512,
    layers=1,
    directions=1,
    dtype=torch.float32,
    projected=False,
    packed=False,
    options=False,
    observed=False,
    deterministic=False,
    cudnn=True,
    capability=H100,
)
each_kind = pytest.mark.parametrize("kind", KINDS)
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("error")]


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
        ({"hidden": 160, "batch": 44}, STEP, "few units"),
        ({"hidden": 160, "batch": 44, "cell": Cell.GRU}, STEP, "few units"),
        ({"hidden": 160, "batch": 44, "cell": Cell.RNN_TANH}, CUDNN, ""),
        ({"hidden": 160, "batch": 44, "packed": True}, CUDNN, ""),
        ({"hidden": 160, "batch": 44, "dtype": torch.float64}, CUDNN, ""),
        ({"hidden": 160, "batch": 16}, CUDNN, ""),
        ({"hidden": 128, "batch": 44}, CUDNN, ""),
        ({"hidden": 193, "batch": 44}, CUDNN, ""),
    ],
    ids=str,
)
def test_rules(change: dict[str, Any], route: str, words: str) -> None:
    found = plan(USUAL._replace(**change))
    assert found.route == route
    assert words in found.why


def test_every_rule_is_of_use() -> None:
    """Each alone turns the usual call away; so none hides behind another."""
    changes = [
        {"options": True},
        {"observed": True},
        {"cudnn": False},
        {"dtype": torch.complex64},
        {"dtype": torch.bfloat16, "capability": T4},
        {"batch": 0},
        {"deterministic": True},
        {"hidden": 160},
        {"steps": 1},
    ]
    route = cuda_route.ROUTES[CUDNN]
    rules = [*route.cannot, *route.slow]
    hits = [[rule.applies(USUAL._replace(**change)) for rule in rules] for change in changes]
    assert hits == [[i == j for j in range(len(rules))] for i in range(len(changes))]


def test_a_route_is_forced_where_it_can_be() -> None:
    assert plan(USUAL, STEP, "he") == (STEP, "he asks for it")
    slow = USUAL._replace(steps=1)
    assert plan(slow, CUDNN, "he") == (CUDNN, "he asks for it")
    route, why = plan(USUAL._replace(options=True), CUDNN, "he")
    assert route == STEP
    assert why.startswith("he asks for cudnn, but torch.nn")


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
        pytest.raises(ValueError, match="no route 'fast'; there are auto, cudnn, step"),
        fastseq.cuda_rnn("fast"),
    ):
        pass
    monkeypatch.setenv("FASTSEQ_CUDA_RNN", "fast")
    with pytest.raises(ImportError, match="FASTSEQ_CUDA_RNN is 'fast', and the routes"):
        cuda_route._from_environment()
    monkeypatch.setenv("FASTSEQ_CUDA_RNN", "step")
    assert cuda_route._from_environment() == STEP
    monkeypatch.setattr(cuda_route, "_environment", STEP)
    assert cuda_route.chosen(USUAL) == (STEP, "FASTSEQ_CUDA_RNN asks for it")
    with fastseq.cuda_rnn("auto"):
        assert cuda_route.chosen(USUAL).route == CUDNN


# What explain says


@each_kind
def test_explain(kind: str, cudnn: Calls) -> None:
    module = getattr(fastseq, kind)(3, 4)
    x = numbers(5, 2, 3)
    said = fastseq.explain(module, x)
    assert "T=5, B=2, H=4: cuDNN, the whole stack in one call, because it launches" in said
    assert "cuDNN" in fastseq.explain(module, packed([5, 3], 3))
    with fastseq.cuda_rnn("step"):
        said = fastseq.explain(module, x)
    assert "CUDA step kernels" in said
    assert said.endswith("because fastseq.cuda_rnn asks for it.")
    assert "because of layer_norm" in fastseq.explain(
        getattr(fastseq, kind)(3, 4, layer_norm=True), x
    )
    recomputing = getattr(fastseq, kind)(3, 4, recompute=True)
    assert "has not what the call asks for" in fastseq.explain(recomputing, x)
    assert not cudnn


def test_explain_of_an_old_gpu() -> None:
    with gpu(T4):
        said = fastseq.explain(
            fastseq.GRU(3, 4, dtype=torch.bfloat16), torch.zeros(5, 2, 3).bfloat16()
        )
    assert said.endswith("because cuDNN's bfloat16 needs compute capability 8.0.")


def test_every_call_says_what_it_does(cudnn: Calls) -> None:
    """explain() and a call ask the same planner, with the same facts."""
    for module, x in [
        (fastseq.LSTM(3, 160), numbers(2, 44, 3)),
        (fastseq.LSTM(3, 160), numbers(2, 3, 3)),
        (fastseq.GRU(3, 4), numbers(1, 2, 3)),
        (fastseq.GRU(3, 4, batch_first=True), numbers(1, 2, 3)),
    ]:
        cudnn.clear()
        said = fastseq.explain(module, x)
        module(x)
        assert ("cuDNN, the whole stack" in said) == (len(cudnn) == 1), said
