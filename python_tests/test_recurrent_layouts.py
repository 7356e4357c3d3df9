"""Strided inputs, states and gradients; the layout of the outputs; special numbers; 16 bits."""

from typing import Any

import pytest
import torch
from recurrence_cases import (
    KINDS,
    assert_close,
    call,
    leaves,
    numbers,
    packed,
    states,
    twins,
)
from torch import Tensor

from fastseq import LSTM

pytestmark = pytest.mark.usefixtures("one_thread")

LAYOUTS = {
    "transposed": lambda t: t.transpose(0, -1).contiguous().transpose(0, -1),
    "every other": lambda t: t.repeat_interleave(2, -1)[..., ::2],
    "expanded": lambda t: t[:, :1].expand_as(t),
    "inside a wider tensor": lambda t: torch.cat([t, t, t], -1)[..., t.shape[-1] : 2 * t.shape[-1]],
    "offset": lambda t: torch.cat([t.new_zeros(1), t.flatten()])[1:].view_as(t),
    "one number for all": lambda t: t.flatten()[0].expand_as(t),
}
each_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_first", [False, True])
@each_layout
def test_strided_arguments_and_gradients(kind: str, batch_first: bool, layout: Any) -> None:
    options = {"proj_size": 4} if kind == "LSTM" else {}
    ours, native = twins(
        kind, 7, 9, num_layers=2, bidirectional=True, batch_first=batch_first, **options
    )
    x = layout(numbers(5, 6, 7))
    hx = [layout(s) for s in leaves(states(native, 5 if batch_first else 6))]
    args = (x, tuple(hx) if kind == "LSTM" else hx[0])
    shapes = [o.shape for o in leaves(native(*args))]
    grads = [layout(numbers(*shape, seed=30 + i)) for i, shape in enumerate(shapes)]
    plain = (x.clone(), tuple(h.clone() for h in hx) if kind == "LSTM" else hx[0].clone())
    mine = call(ours, *args, grads=grads)
    assert_close(mine, call(native, *args, grads=grads), 2e-5)
    assert_close(mine, call(ours, *plain, grads=[g.contiguous() for g in grads]), 1e-6)


@pytest.mark.parametrize("kind", KINDS)
@each_layout
def test_strided_packed_rows(kind: str, layout: Any) -> None:
    ours, native = twins(kind, 7, 9)
    x = packed([4, 3, 1], 7)
    x = x._replace(data=layout(x.data))
    assert_close(call(ours, x), call(native, x), 2e-5)


@pytest.mark.parametrize("kind", KINDS)
@each_layout
def test_strided_parameters(kind: str, layout: Any) -> None:
    ours, native = twins(kind, 7, 9)
    for module in (ours, native):
        for name in ("weight_ih_l0", "weight_hh_l0"):
            strided = layout(getattr(module, name).detach())
            setattr(module, name, torch.nn.Parameter(strided))
    assert_close(call(ours, numbers(5, 6, 7)), call(native, numbers(5, 6, 7)), 2e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=str)
@pytest.mark.parametrize("shape", [(5, 6, 7), (5, 7), (1, 6, 7), (5, 1, 7)], ids=str)
@pytest.mark.parametrize("grad", [False, True], ids=["no_grad", "grad"])
def test_output_layout(
    kind: str, batch_first: bool, options: dict[str, Any], shape: tuple[int, ...], grad: bool
) -> None:
    # float64 keeps oneDNN out, whose outputs' layout is its own.
    ours, native = twins(kind, 7, 9, batch_first=batch_first, dtype=torch.float64, **options)
    x = numbers(*shape, dtype=torch.float64)
    with torch.set_grad_enabled(grad):
        for mine, theirs in zip(leaves(ours(x)), leaves(native(x)), strict=True):
            assert mine.shape == theirs.shape
            assert mine.stride() == theirs.stride()


def squares(values: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: (values[n].double() - exact[n]).square().mean() for n in exact}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("LSTM", {"num_layers": 2, "bidirectional": True}),
        ("LSTM", {"proj_size": 5}),
        ("GRU", {"num_layers": 2, "bidirectional": True}),
        ("RNN", {}),
        ("RNN", {"nonlinearity": "relu"}),
    ],
    ids=str,
)
@pytest.mark.parametrize("ragged", [False, True], ids=["padded", "packed"])
def test_16_bits_at_least_as_exact_as_torch(
    dtype: torch.dtype, kind: str, options: dict[str, Any], ragged: bool
) -> None:
    lengths = [12, 10, 9, 7, 4, 4, 2, 1]
    x: Any = packed(lengths, 16, dtype) if ragged else numbers(12, 8, 16, dtype=dtype)
    exact_x = x._replace(data=x.data.double()) if ragged else x.double()
    sums: list[dict[str, Tensor]] = [{}, {}, {}]  # fastseq's error, torch.nn's, the exact value
    for seed in range(6):
        ours, native = twins(kind, 16, 24, dtype=dtype, seed=seed, **options)
        exact_module = twins(kind, 16, 24, dtype=torch.float64, **options)[1]
        exact_module.load_state_dict(native.state_dict())
        hx = states(native, 8, seed=40 + seed)
        exact_hx = tuple(h.double() for h in hx) if isinstance(hx, tuple) else hx.double()
        exact = call(exact_module, exact_x, exact_hx)
        shapes = [v.shape for n, v in exact.items() if n.startswith("output")]
        grads = [numbers(*shape, seed=50 + seed, dtype=dtype) for shape in shapes]
        exact = call(exact_module, exact_x, exact_hx, grads=[g.double() for g in grads])
        mine, theirs = call(ours, x, hx, grads=grads), call(native, x, hx, grads=grads)
        assert all(v.dtype == dtype for v in mine.values())
        zero = {n: torch.zeros_like(v) for n, v in exact.items()}
        for total, values in zip(sums, (mine, theirs, zero), strict=True):
            for name, square in squares(values, exact).items():
                total[name] = total.get(name, 0) + square
    for name, exact_square in sums[2].items():
        ours_off, native_off, size = (s[name].sqrt().item() for s in (*sums[:2], sums[2]))
        assert exact_square > 0
        # Near its kink a ReLU's mask, and so its gradient, may round to either side.
        factor = 2 if options.get("nonlinearity") == "relu" else 1.25
        assert ours_off <= factor * native_off + 0.5 * torch.finfo(dtype).eps * size, name


def test_16_bit_cell_states_keep_32_bits_between_steps() -> None:
    # Adds 2**-10 a step to c = 1: lost in bfloat16, kept in float32.
    lstm = LSTM(1, 1, dtype=torch.bfloat16)
    with torch.no_grad():
        for p in lstm.parameters():
            p.zero_()
        lstm.bias_ih_l0.copy_(torch.tensor([20.0, 20.0, 2.0**-10, 20.0]))
    hx = (torch.zeros(1, 1, 1).bfloat16(), torch.ones(1, 1, 1).bfloat16())
    _, (_, c) = lstm(torch.zeros(256, 1, 1).bfloat16(), hx)
    assert c.item() == pytest.approx(1.25, abs=1e-2)
