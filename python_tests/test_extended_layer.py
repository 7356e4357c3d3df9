"""The extended layer's kernels against the reference implementation, in every combination."""

import random
from typing import Any

import pytest
import torch
from extended_cases import FEATURES, extended
from recurrence_cases import numbers
from torch import Tensor
from torch.library import opcheck

from fastseq import reference
from fastseq.autograd import ExtendedLayer
from fastseq.ops import Cell, Extras

CELLS = list(Cell)


def reference_layer(*args: Any) -> tuple[Tensor, ...]:
    """The reference with the arguments of ``ExtendedLayer``."""
    return reference.extended_layer(*args[:9], Extras(*args[9:20]), *args[20:])


def outcome(function: Any, args: list[Any], fixed: tuple[int, ...] = ()) -> dict[str, Tensor]:
    """Outputs by place, and the gradients of all that is differentiable and not ``fixed``."""
    args = [
        a.detach().clone().requires_grad_(i not in fixed)
        if isinstance(a, Tensor) and a.is_floating_point() else a
        for i, a in enumerate(args)
    ]  # fmt: skip
    y, h_n, c_n, _, cells, _ = function(*args)
    outputs = [y, h_n, *([c_n, cells] if c_n.numel() else [])]
    torch.autograd.backward(
        outputs, [numbers(*o.shape, seed=70 + i, dtype=o.dtype) for i, o in enumerate(outputs)]
    )
    found = {f"output {i}": o.detach() for i, o in enumerate(outputs)}
    masks = {13, 14, 15}  # drop and zones
    for i, a in enumerate(args):
        if isinstance(a, Tensor) and a.grad is not None and i not in masks:
            found[f"gradient {i}"] = a.grad
    return found


def run(*args: Any) -> tuple[Tensor, ...]:
    made: tuple[Tensor, ...] = ExtendedLayer.apply(*args, True)
    return made


def assert_agree(args: list[Any], tolerance: float = 1e-11) -> None:
    ours, theirs = (
        outcome(run, args),
        outcome(reference_layer, args),
    )
    for name, value in theirs.items():
        scale = max(1.0, value.abs().max().item()) if value.numel() else 1.0
        error = (ours[name] - value).abs().max().item() if value.numel() else 0.0
        assert error <= tolerance * scale, (name, error)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    "features",
    ["lengths", "reset", "reset reset_state", "drop", "zone", "norm", "lengths reset reset_state",
     "lengths reset reset_state drop zone norm", "packed drop zone", "packed norm",
     "project zone", "project lengths reset reset_state drop zone norm"],
)  # fmt: skip
def test_feature(cell: Cell, features: str, reverse: bool) -> None:
    """Every feature, alone and with the others, forwards and backwards in time."""
    assert_agree(extended(cell, features, reverse=reverse))


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("cell", [Cell.LSTM, Cell.GRU, Cell.RNN_TANH])
def test_initial_states_whose_gradients_nobody_wants(cell: Cell, steps: int) -> None:
    """The others do not change by a bit, those of the states that replace them among them."""
    args = extended(cell, "reset reset_state", steps=steps)
    args[10] = torch.ones_like(args[10])
    every, some = outcome(run, args), outcome(run, args, fixed=(1, 2))
    states = {"gradient 1", *(["gradient 2"] if cell == Cell.LSTM else [])}
    assert every.keys() - some.keys() == states
    assert all(torch.equal(every[name], value) for name, value in some.items())
    assert some["gradient 11"].any()


def test_random_cases() -> None:
    """Odd sizes and random combinations, with one thread to four."""
    draw = random.Random(0)
    threads = torch.get_num_threads()
    try:
        for seed in range(120):
            features = " ".join(f for f in FEATURES if draw.random() < 0.5)
            if "packed" in features:
                features = features.replace("lengths", "").replace("reset_state", "")
                features = features.replace("reset", "")
            torch.set_num_threads(draw.choice([1, 1, 2, 3, 4]))
            assert_agree(
                extended(
                    draw.choice(CELLS), features, steps=draw.choice([1, 2, 6, 6]),
                    batch=draw.choice([1, 2, 5, 9, 33]) if "packed" not in features else 5,
                    hidden=draw.choice([1, 3, 16, 17, 40, 65]), width=draw.choice([1, 3, 20]),
                    reverse=draw.random() < 0.5, seed=seed,
                ),
                1e-10,
            )  # fmt: skip
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("cell", [Cell.LSTM, Cell.GRU, Cell.RNN_TANH])
@pytest.mark.parametrize(
    "features", ["lengths reset reset_state drop zone", "norm", "project norm"]
)
def test_16_bit(cell: Cell, features: str, dtype: torch.dtype) -> None:
    """Sums are float32's: within a few roundings of float64 from the same numbers."""
    args = extended(cell, features, hidden=35, width=20, dtype=dtype)
    exact = [a.double() if isinstance(a, Tensor) and a.dtype == dtype else a for a in args]
    ours, theirs = (
        outcome(run, args),
        outcome(reference_layer, exact),
    )
    for name, value in theirs.items():
        off = (ours[name].double() - value).norm() / value.norm().clamp_min(1e-6)
        assert off < 8 * torch.finfo(dtype).eps, (name, off)


@pytest.mark.parametrize("cell", [Cell.LSTM, Cell.GRU, Cell.RNN_RELU])
@pytest.mark.parametrize("features", ["lengths reset reset_state zone drop", "norm", "packed norm"])
def test_opcheck(cell: Cell, features: str) -> None:
    """Schemas, and the shapes that tracing is told."""
    args = extended(cell, features)
    utils = ("test_schema", "test_faketensor")
    forward = torch.ops.fastseq.extended_layer.default
    for save in (True, False):
        opcheck(forward, (*args, save), test_utils=utils)
    y, h_n, c_n, gates, cells, products = forward(*args, True)
    grads = [numbers(*t.shape, dtype=t.dtype) if t.numel() else None for t in (y, h_n, c_n, cells)]
    wanted = 1 + 4 + (0 if args[3] is None else 2 + 8)
    for states in (0, 32):
        backward = (*grads, y, gates, cells, products, *args, wanted + states)
        opcheck(torch.ops.fastseq.extended_layer_backward.default, backward, test_utils=utils)


def test_opcheck_of_step_and_linear() -> None:
    utils = ("test_schema", "test_faketensor")
    x, h, c = numbers(2, 3), numbers(2, 4, seed=2), numbers(2, 4, seed=3)
    weights = (numbers(16, 3), numbers(16, 4), numbers(16), None)
    opcheck(torch.ops.fastseq.step.default, (x, h, c, *weights, 0), test_utils=utils)
    opcheck(torch.ops.fastseq.step_.default, (x, h, c, *weights, 0), test_utils=utils)
    for turned, rows in ((False, numbers(2, 5, 4)), (True, numbers(2, 5, 16))):
        arguments = (rows, weights[1], turned)
        opcheck(torch.ops.fastseq.linear.default, arguments, test_utils=utils)
        expected = rows @ (weights[1] if turned else weights[1].t())
        torch.testing.assert_close(torch.ops.fastseq.linear(*arguments), expected)


WRONG: list[tuple[int, Any, str]] = [
    (9, torch.tensor([1, 2]), "lengths should be a 1-D int64 tensor of 5"),
    (9, torch.tensor([1, 2, 3, 4, 7]), "between 0 and the 6 steps"),
    (10, torch.zeros(6, 4, dtype=torch.bool), "reset should be a bool tensor"),
    (11, torch.zeros(5, 6), "reset_h should have shape"),
    (13, torch.zeros(5, 6), "drop should have shape"),
    (14, torch.zeros(6, 5, 8), "zone_h should have shape"),
    (16, torch.zeros(28), "with norm_hh, x should be the normalized input side"),
    (17, torch.zeros(7).double(), "LSTM needs norm_hh, norm_c and norm_c_bias together"),
    (8, torch.tensor([5, 5, 5, 5, 5, 5]), "expected packed rows"),
]


@pytest.mark.parametrize(("place", "value", "words"), WRONG)
def test_mistakes(place: int, value: Tensor, words: str) -> None:
    args = extended(Cell.LSTM, "")
    args[place] = value
    with pytest.raises(RuntimeError, match=words):
        torch.ops.fastseq.extended_layer(*args, False)
