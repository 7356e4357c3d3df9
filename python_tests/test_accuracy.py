"""Errors against float64 are at most 1.5 times torch.nn's: outputs and every gradient.

Both libraries start from the same rounded weights and inputs; the error is the Frobenius norm of
the difference from torch.nn in float64.
"""

from typing import Any

import pytest
import torch
from recurrence_cases import call, leaves, numbers, packed, states, twins
from torch import nn
from torch.nn.utils.rnn import PackedSequence

pytestmark = pytest.mark.usefixtures("one_thread")
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("LSTM", {}),
    ("LSTM", {"proj_size": 11}),
    ("GRU", {}),
    ("RNN", {}),
    ("RNN", {"nonlinearity": "relu"}),
]
# T, B, I, H
SHAPES = [(300, 16, 16, 32), (40, 16, 64, 64), (25, 3, 7, 129), (12, 50, 200, 40), (8, 1, 3, 15)]
SEEDS = 4
FACTOR = 1.5
each_kind = pytest.mark.parametrize(("kind", "options"), KINDS, ids=str)
each_gain = pytest.mark.parametrize("gain", [1.0, 12.0], ids=["plain", "saturated"])
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


def exact_twin(module: nn.Module, *args: Any, **options: Any) -> nn.Module:
    exact = getattr(nn, type(module).__name__)(*args, dtype=torch.float64, **options)
    exact.load_state_dict(module.state_dict())
    return exact


def doubled(value: Any) -> Any:
    if isinstance(value, PackedSequence):
        return value._replace(data=value.data.double())
    if isinstance(value, tuple):
        return tuple(doubled(v) for v in value)
    return value.double()


def errors(
    kind: str, options: dict[str, Any], x: Any, sizes: tuple[int, int], gain: float
) -> dict[str, tuple[float, float, float]]:
    """By tensor: fastseq's error, torch.nn's, and the tensor's own norm, over some seeds."""
    dtype = leaves(x)[0].dtype
    sums: dict[str, list[float]] = {}
    for seed in range(SEEDS):
        ours, native = twins(kind, *sizes, dtype=dtype, seed=seed, **options)
        with torch.no_grad():
            for module in (ours, native):
                for name, p in module.named_parameters():
                    # Of the input side alone: large recurrent weights would make the steps chaotic,
                    # and two roundings of the same numbers strangers.
                    if "_hh" not in name and "_hr" not in name:
                        p.mul_(gain)
        exact = exact_twin(native, *sizes, **options)
        rows = int(x.batch_sizes[0]) if isinstance(x, PackedSequence) else x.shape[1]
        hx = states(native, rows, seed=40 + seed)
        shapes = [o.shape for o in leaves(native(x, hx))]
        grads = [numbers(*s, seed=50 + seed + 7 * i, dtype=dtype) for i, s in enumerate(shapes)]
        truth = call(exact, doubled(x), doubled(hx), grads=[g.double() for g in grads])
        found = (call(module, x, hx, grads=grads) for module in (ours, native))
        for place, values in enumerate(
            [*found, {n: torch.zeros_like(t) for n, t in truth.items()}]
        ):
            for name, t in truth.items():
                off = (values[name].double() - t).square().sum().item()
                sums.setdefault(name, [0.0, 0.0, 0.0])[place] += off
    return {n: (a**0.5, b**0.5, c**0.5) for n, (a, b, c) in sums.items()}


def pooled(found: dict[str, tuple[float, float, float]]) -> dict[str, tuple[float, float, float]]:
    """All gradients as one tensor, each of them scaled to the same norm."""
    grads = [errors for name, errors in found.items() if name.startswith("gradient")]
    ours, native = (sum((g[i] / g[2]) ** 2 for g in grads) ** 0.5 for i in (0, 1))
    kept = {name: errors for name, errors in found.items() if not name.startswith("gradient")}
    return {**kept, "gradients": (ours, native, len(grads) ** 0.5)}


def complaints(found: dict[str, tuple[float, float, float]], dtype: torch.dtype) -> list[str]:
    half_a_place = 0.5 * torch.finfo(dtype).eps  # the error of a result that is rounded once
    return [
        f"{name}: off by {ours / size:.2g} of its norm, torch.nn by {native / size:.2g}"
        for name, (ours, native, size) in found.items()
        if not ours <= FACTOR * native + half_a_place * size
    ]


def assert_as_exact(
    kind: str, options: dict[str, Any], x: Any, sizes: tuple[int, int], gain: float
) -> None:
    dtype = leaves(x)[0].dtype
    found = errors(kind, options, x, sizes, gain)
    if dtype == torch.bfloat16 and "nonlinearity" in options:
        # Near its kink a ReLU's mask rounds to either side: chance, and great in a small gradient.
        found = pooled(found)
    assert complaints(found, dtype) == []


@each_kind
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@each_gain
@each_dtype
def test_padded(
    kind: str, options: dict[str, Any], shape: tuple[int, ...], gain: float, dtype: torch.dtype
) -> None:
    steps, batch, width, hidden = shape
    x = numbers(steps, batch, width, dtype=dtype)
    assert_as_exact(kind, options, x, (width, hidden), gain)


@each_kind
@each_gain
@each_dtype
def test_packed(kind: str, options: dict[str, Any], gain: float, dtype: torch.dtype) -> None:
    assert_as_exact(kind, options, packed(list(range(40, 0, -1)), 24, dtype), (24, 48), gain)
