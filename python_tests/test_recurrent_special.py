"""Infinities, NaN and huge numbers travel through outputs and gradients as torch.nn's do."""

import math

import pytest
import torch
from recurrence_cases import KINDS, assert_close, call, leaves, numbers, states, twins

pytestmark = pytest.mark.usefixtures("one_thread")
each_kind = pytest.mark.parametrize("kind", KINDS)
each_value = pytest.mark.parametrize("value", [1e4, -1e4, 1e30, math.inf, -math.inf, math.nan])
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


@each_kind
@each_value
@each_dtype
@pytest.mark.parametrize("place", ["input", "hx"])
@pytest.mark.parametrize("project", [0, 3])
def test_outputs(kind: str, value: float, dtype: torch.dtype, place: str, project: int) -> None:
    options = {"proj_size": project} if kind == "LSTM" else {}
    ours, native = twins(kind, 7, 9, dtype=dtype, **options)
    x, hx = numbers(5, 4, 7, dtype=dtype), states(native, 4)
    (x[2] if place == "input" else leaves(hx)[0][0])[1, 2] = value
    with torch.no_grad():
        mine, theirs = leaves(ours(x, hx)), leaves(native(x, hx))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, equal_nan=True)
    assert mine[0][:, [0, 2, 3]].isfinite().all()  # the other rows of the batch never saw it


@each_kind
@each_value
@each_dtype
@pytest.mark.parametrize("place", ["input", "hx"])
def test_gradients(kind: str, value: float, dtype: torch.dtype, place: str) -> None:
    # Saturated gates are exactly 0 or 1 and their gradients exactly 0, or 0 * inf = NaN.
    ours, native = twins(kind, 7, 9, dtype=dtype)
    x, hx = numbers(5, 4, 7, dtype=dtype), states(native, 4)
    (x[2] if place == "input" else leaves(hx)[0][0])[1, 3] = value
    assert_close(call(ours, x, hx), call(native, x, hx), 2e-5, nan=True)


@each_dtype
@pytest.mark.parametrize("value", [3e3, 1e30, math.inf, math.nan])
def test_relu(value: float, dtype: torch.dtype) -> None:
    ours, native = twins("RNN", 7, 9, nonlinearity="relu", dtype=dtype)
    x = numbers(3, 4, 7, dtype=dtype)
    x[1, 1, 3] = value
    assert_close(call(ours, x), call(native, x), 2e-5, nan=True)


@each_kind
def test_nan_gradient_stays_in_its_row(kind: str) -> None:
    ours, native = twins(kind, 7, 9)
    grads = [numbers(*o.shape) for o in leaves(native(numbers(5, 4, 7)))]
    grads[0][3, 1, 2] = math.nan
    mine = call(ours, numbers(5, 4, 7), grads=grads)
    assert_close(mine, call(native, numbers(5, 4, 7), grads=grads), 2e-5, nan=True)
    assert mine["gradient of argument 0"][:, [0, 2, 3]].isfinite().all()
    assert mine["gradient of argument 0"][4].isfinite().all()


@each_kind
def test_saturated_gates_are_finite(kind: str) -> None:
    ours, native = twins(kind, 4, 40)
    with torch.no_grad():
        for p in [*ours.parameters(), *native.parameters()]:
            p.mul_(200)
    x = 50 * numbers(6, 3, 4)
    mine, theirs = call(ours, x), call(native, x)
    assert all(v.isfinite().all() for v in mine.values())
    torch.testing.assert_close(mine["output 0"], theirs["output 0"], rtol=0, atol=1e-3)
