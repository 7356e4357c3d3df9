"""A plan that was asked for (FASTSEQ_PLAN): the same bits, however a recurrence is divided."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import fastseq
from fastseq import _native

PLANS = ("1x1", "1x2", "2x1", "1x3/5", "2x2", "4x1/7", "1x4/1000", "9x9")
STEPS, BATCH, INPUT, HIDDEN = 9, 6, 11, 70


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(threads)
    _native.ask_for_plan(None)


def results(layer: nn.RNNBase, packed: bool) -> list[Tensor]:
    """Outputs and all gradients of a training step."""
    drawn = torch.Generator().manual_seed(0)
    x = torch.randn(STEPS, BATCH, INPUT, generator=drawn).requires_grad_()
    lengths = torch.tensor([9, 7, 7, 4, 2, 1])
    y, state = layer(pack_padded_sequence(x, lengths) if packed else x)
    y = y.data if packed else y
    states = state if isinstance(state, tuple) else (state,)
    grads = torch.autograd.grad((y.sin().sum() + states[0].sum()), [x, *layer.parameters()])
    return [y, *states, *grads]


@pytest.mark.parametrize("packed", [False, True], ids=["dense", "packed"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: fastseq.LSTM(INPUT, HIDDEN),
        lambda: fastseq.LSTM(INPUT, HIDDEN, proj_size=33, bidirectional=True),
        lambda: fastseq.GRU(INPUT, HIDDEN, num_layers=2),
        lambda: fastseq.RNN(INPUT, HIDDEN),
    ],
    ids=["LSTM", "projected", "GRU", "RNN"],
)
def test_every_plan_makes_the_same_bits(make: object, packed: bool) -> None:
    torch.manual_seed(0)
    assert callable(make)
    layer = make()
    wanted = results(layer, packed)
    for plan in PLANS:
        _native.ask_for_plan(plan)
        for found, expected in zip(results(layer, packed), wanted, strict=True):
            assert torch.equal(found, expected), plan


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        ("1x2", (2, 1, 2)),
        ("2x1/96", (2, 2, 1)),
        ("2x2", (4, 2, 2)),
        ("1x9", (4, 1, 4)),  # as many as there are threads
        ("9x9", (4, 4, 1)),
    ],
)
def test_the_plan_is_the_one_asked_for(text: str, plan: tuple[int, int, int]) -> None:
    _native.ask_for_plan(text)
    assert _native.plan_recurrence(0, 30, 64, 8, 128, 128, 4)[:3] == plan
    _native.ask_for_plan(None)
    assert _native.plan_recurrence(0, 30, 64, 8, 128, 128, 4)[:3] == (4, 4, 1)


def test_no_slice_is_empty() -> None:
    _native.ask_for_plan("4x4")
    assert _native.plan_recurrence(0, 30, 2, 8, 128, 128, 4)[:3] == (4, 2, 2)
    assert _native.plan_recurrence(0, 30, 1, 8, 4, 4, 4)[:3] == (4, 1, 1)


@pytest.mark.parametrize("text", ["", "2", "2x", "x2", "0x1", "1x0", "-1x2", "2x1/", "2 x 1"])
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"a plan was .* BATCHESxUNITS"):
        _native.ask_for_plan(text)


def test_the_variable_is_read_at_import() -> None:
    def imported(plan: str) -> subprocess.CompletedProcess[str]:
        code = "import fastseq; print(fastseq._native.plan_recurrence(0, 30, 64, 8, 128, 128, 4))"
        return subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "FASTSEQ_PLAN": plan},
            cwd=Path(__file__).parent,  # not the root: its fastseq/ would hide an installed one
            capture_output=True,
            text=True,
            check=False,
        )

    assert "threads=2, batches=1, units=2" in imported("1x2").stdout
    last = imported("two").stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: FASTSEQ_PLAN: a plan was 'two'")
    assert "Unset it" in last


def test_caches_are_those_of_a_machine() -> None:
    l1, l2, l3 = _native.caches()
    assert 8 << 10 <= l1 <= l2 <= l3
    assert f"L2 {l2 // 1024} KB" in fastseq.info()["CPU caches"]
