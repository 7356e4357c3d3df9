"""The extended layer's kernels against the reference implementation, in every combination."""

import random
from typing import Any

import pytest
import torch
from extended_cases import FEATURES, extended
from recurrence_cases import numbers
from torch import Tensor

from fastseq import reference
from fastseq.autograd import ExtendedLayer
from fastseq.ops import Cell, Extras

CELLS = list(Cell)


def reference_layer(*args: Any) -> tuple[Tensor, ...]:
    """The reference with the arguments of ``ExtendedLayer``."""
    return reference.extended_layer(*args[:9], Extras(*args[9:20]), *args[20:])


def outcome(function: Any, args: list[Any]) -> dict[str, Tensor]:
    """Outputs by place, and the gradients of all that is differentiable."""
    args = [
        a.detach().clone().requires_grad_() if isinstance(a, Tensor) and a.is_floating_point()
        else a
        for a in args
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


def assert_agree(args: list[Any], tolerance: float = 1e-11) -> None:
    ours, theirs = outcome(ExtendedLayer.apply, args), outcome(reference_layer, args)
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
