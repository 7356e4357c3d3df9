"""The op of a whole layer: torch's own checks of an op, and the reference, at awkward sizes."""

from typing import Any

import pytest
import torch
from recurrence_cases import all_wanted, assert_close, numbers, whole_layer, whole_layer_backward
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.library import opcheck

from fastseq import ops, reference
from fastseq.ops import Cell, Wanted, layer_cuda

pytestmark = pytest.mark.usefixtures("one_thread")
FORWARD = torch.ops.fastseq.layer.default
BACKWARD = torch.ops.fastseq.layer_backward.default
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
# In units of a tensor's scale. 16 bits: gate gradients are rounded before they are summed.
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 2e-2, torch.float16: 2e-3}
VARIANTS: dict[str, dict[str, Any]] = {
    "padded": {},
    "one step": {"steps": 1},
    "no bias": {"bias": False},
    "packed": {"sizes": [3, 2, 2, 1]},
    "rows that never start": {"sizes": [3, 2, 2, 1], "idle": 2},
    "empty batch": {"batch": 0},
    "wide": {"batch": 9, "hidden": 37, "width": 33},
}
each_cell = pytest.mark.parametrize("cell", Cell, ids=lambda c: c.name)
each_variant = pytest.mark.parametrize("variant", VARIANTS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_way = pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
CASES = [(cell, None) for cell in Cell] + [(Cell.LSTM, 3)]
each_case = pytest.mark.parametrize(
    ("cell", "project"), CASES, ids=lambda v: v.name if isinstance(v, Cell) else f"R={v or 'H'}"
)
# Tiles block 48 rows, 512 numbers (512 pairs of bfloat16) of the inner dimension, and as many rows
# of a weight gradient; vectors have up to 16 numbers.
SIZES: dict[str, dict[str, Any]] = {
    "ones": {"steps": 1, "batch": 1, "width": 1, "hidden": 1},
    "primes": {"steps": 5, "batch": 3, "width": 7, "hidden": 13},
    "one more than a vector": {"steps": 3, "batch": 17, "width": 17, "hidden": 17},
    "two blocks of rows": {"steps": 3, "batch": 49, "width": 19, "hidden": 23},
    "three blocks of rows": {"steps": 2, "batch": 101, "width": 3, "hidden": 67},
    "wide input": {"steps": 3, "batch": 5, "width": 515, "hidden": 19},
    "wider input": {"steps": 3, "batch": 5, "width": 1031, "hidden": 11},
    "many rows": {"steps": 25, "batch": 43, "width": 5, "hidden": 11},
    "packed": {"sizes": [53, 53, 49, 31, 31, 17, 3, 1, 1], "width": 29, "hidden": 37},
}


def arguments(
    cell: Cell, variant: str, dtype: torch.dtype, reverse: bool, project: int | None = None
) -> dict[str, Any]:
    options = dict(VARIANTS[variant])
    idle = options.pop("idle", 0)
    made = {**whole_layer(cell, dtype=dtype, project=project, **options), "reverse": reverse}
    for name in ("h0", "c0"):
        t = made[name]
        if t is not None and idle:
            made[name] = torch.cat([t, numbers(idle, t.shape[1], seed=11, dtype=dtype)])
    return made


def named(outputs: Any, dtype: torch.dtype) -> dict[str, Tensor]:
    return {n: t.to(dtype) for n, t in outputs._asdict().items() if t.numel() > 0}


def widened(args: dict[str, Any]) -> dict[str, Any]:
    """The same numbers in float64."""
    floats = {n: v for n, v in args.items() if isinstance(v, Tensor) and v.is_floating_point()}
    return {**args, **{n: v.double() for n, v in floats.items()}}


def assert_as_the_reference(
    forward: dict[str, Any], tolerance: float, wanted: int | None = None, used: str = "all"
) -> None:
    """Forward and backward against the reference in float64, each from the same numbers."""
    double = torch.float64
    saved = ops.layer(**forward, save=True)
    expected = reference.layer(**widened(forward))
    assert_close(named(saved, double), named(expected, double), tolerance)
    wanted = all_wanted(forward) if wanted is None else wanted
    args = whole_layer_backward(forward, saved, wanted, used)
    mine, theirs = ops.layer_backward(**args), reference.layer_backward(**widened(args))
    assert_close(named(mine, double), named(theirs, double), tolerance)
    assert [t.shape for t in mine] == [t.shape for t in theirs]


@each_case
@pytest.mark.parametrize("variant", ["padded", "no bias", "packed", "empty batch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_opcheck(cell: Cell, project: int | None, variant: str, dtype: torch.dtype) -> None:
    # Gradients are registered by fastseq.autograd, not by the op: opcheck's autograd test is moot.
    utils = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    forward = arguments(cell, variant, dtype, dtype == torch.float32, project)
    opcheck(FORWARD, (*forward.values(), True), test_utils=utils)
    opcheck(FORWARD, (*forward.values(), False), test_utils=utils[:2])
    saved = FORWARD(*forward.values(), True)
    backward = whole_layer_backward(forward, saved, all_wanted(forward))
    opcheck(BACKWARD, tuple(backward.values()), test_utils=utils)


@each_case
@each_variant
@each_dtype
def test_fakes_are_exact(cell: Cell, project: int | None, variant: str, dtype: torch.dtype) -> None:
    forward = arguments(cell, variant, dtype, False, project)
    forward["x"] = forward["x"].transpose(0, -1).contiguous().transpose(0, -1)
    saved = FORWARD(*forward.values(), True)
    calls: list[tuple[Any, tuple[Any, ...]]] = [
        (FORWARD, (*forward.values(), save)) for save in (True, False)
    ]
    for wanted in (0, *Wanted, all_wanted(forward)):
        backward = whole_layer_backward(forward, saved, wanted & all_wanted(forward))
        calls.append((BACKWARD, tuple(backward.values())))
    for op, args in calls:
        with FakeTensorMode() as mode:
            fake = op(*(mode.from_tensor(v) if isinstance(v, Tensor) else v for v in args))
        for f, r in zip(fake, op(*args), strict=True):
            assert (f.shape, f.stride(), f.dtype) == (r.shape, r.stride(), r.dtype)


@each_case
@each_variant
@each_way
@pytest.mark.parametrize("used", ["all", "y", "h_n", "c_n", "gates", "cells h_n", "y c_n gates"])
def test_against_the_reference(
    cell: Cell, project: int | None, variant: str, reverse: bool, used: str
) -> None:
    assert_as_the_reference(
        arguments(cell, variant, torch.float64, reverse, project), 1e-12, used=used
    )


@each_case
@pytest.mark.parametrize("size", SIZES)
@each_dtype
@each_way
def test_against_the_reference_at_odd_sizes(
    cell: Cell, project: int | None, size: str, dtype: torch.dtype, reverse: bool
) -> None:
    options = SIZES[size]
    project = project and min(project, options["hidden"])
    forward = {**whole_layer(cell, dtype=dtype, project=project, **options), "reverse": reverse}
    assert_as_the_reference(forward, TOLERANCES[dtype])


@pytest.mark.parametrize(
    ("cell", "hidden", "project"),
    [
        *((cell, 523, None) for cell in Cell),
        (Cell.RNN_TANH, 1031, None),
        (Cell.LSTM, 521, 517),
        (Cell.LSTM, 1031, 19),
    ],
    ids=str,
)
@each_dtype
def test_against_the_reference_with_wide_states(
    cell: Cell, hidden: int, project: int | None, dtype: torch.dtype
) -> None:
    forward = whole_layer(
        cell, steps=3, batch=3, width=5, hidden=hidden, project=project, dtype=dtype
    )
    assert_as_the_reference(forward, TOLERANCES[dtype])


LAYOUTS = {
    "batch first": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "every other row": lambda x: x.repeat_interleave(2, 1)[:, ::2],
    "every other step": lambda x: x.repeat_interleave(2, 0)[::2],
    "every other column": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    "columns far apart": lambda x: x.transpose(0, -1).contiguous().transpose(0, -1),
    "some columns": lambda x: torch.cat([x, x, x], -1)[..., x.shape[-1] : 2 * x.shape[-1]],
    "not aligned": lambda x: torch.cat([x.new_zeros(1), x.flatten()])[1:].view_as(x),
    "the same rows": lambda x: x[:, :1].expand_as(x),
    "the same steps": lambda x: x[:1].expand_as(x),
    "the same columns": lambda x: x[..., :1].expand_as(x),
    "one number": lambda x: x[:1, :1, :1].expand_as(x),
}


def both_ways(forward: dict[str, Any]) -> list[Tensor]:
    saved = ops.layer(**forward, save=True)
    backward = whole_layer_backward(forward, saved, all_wanted(forward))
    return [*saved, *ops.layer_backward(**backward)]


@each_cell
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("width", [1, 9])
@each_dtype
def test_strides_of_x_change_no_bit(
    cell: Cell, layout: Any, width: int, dtype: torch.dtype
) -> None:
    forward = whole_layer(cell, steps=5, batch=7, width=width, dtype=dtype)
    strided = layout(forward["x"])
    found = both_ways({**forward, "x": strided})
    expected = both_ways({**forward, "x": strided.contiguous()})
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@each_cell
@pytest.mark.parametrize(
    "layout", [n for n in LAYOUTS if "column" in n or n in ("every other step", "the same steps")]
)
def test_strides_of_packed_x_change_no_bit(cell: Cell, layout: str) -> None:
    forward = whole_layer(cell, sizes=[5, 4, 4, 1], width=9, dtype=torch.bfloat16)
    strided = LAYOUTS[layout](forward["x"])
    found = both_ways({**forward, "x": strided})
    expected = both_ways({**forward, "x": strided.contiguous()})
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


MADE_BY = {
    Wanted.INPUT: {"grad_x"},
    Wanted.WEIGHT_IH: {"grad_weight_ih"},
    Wanted.WEIGHT_HH: {"grad_weight_hh"},
    Wanted.BIASES: {"grad_bias_ih", "grad_bias_hh"},
    Wanted.WEIGHT_HR: {"grad_weight_hr"},
    Wanted.STATES: {"grad_h0", "grad_c0"},
}
ALL = sum(Wanted)


@each_case
@pytest.mark.parametrize("variant", ["padded", "one step", "packed", "empty batch", "wide"])
@pytest.mark.parametrize("wanted", [0, *Wanted, *(ALL - flag for flag in Wanted)], ids=int)
def test_only_what_is_wanted(cell: Cell, project: int | None, variant: str, wanted: int) -> None:
    if wanted & Wanted.WEIGHT_HR and not project:
        wanted &= ~Wanted.WEIGHT_HR
    forward = arguments(cell, variant, torch.float32, False, project)
    saved = ops.layer(**forward, save=True)
    whole = ops.layer_backward(**whole_layer_backward(forward, saved, all_wanted(forward)))
    found = ops.layer_backward(**whole_layer_backward(forward, saved, wanted))
    kept = {name for flag, names in MADE_BY.items() if wanted & flag for name in names}
    for name, t in found._asdict().items():
        if name in kept:
            assert torch.equal(t, getattr(whole, name)), name
        else:
            assert t.shape == (0,), name


@each_case
@each_variant
@each_way
@each_dtype
def test_composed_of_the_recurrence_and_atens_products(
    cell: Cell, project: int | None, variant: str, reverse: bool, dtype: torch.dtype
) -> None:
    """How CUDA makes a layer, with the CPU's recurrence."""
    forward = arguments(cell, variant, dtype, reverse, project)
    saved, parts = ops.layer(**forward, save=True), layer_cuda.layer(**forward, save=True)
    assert_close(named(parts, dtype), named(saved, dtype), 2 * TOLERANCES[dtype])
    args = whole_layer_backward(forward, saved, all_wanted(forward))
    whole, made = ops.layer_backward(**args), layer_cuda.layer_backward(**args)
    assert_close(named(made, dtype), named(whole, dtype), 2 * TOLERANCES[dtype])
    assert [t.shape for t in made] == [t.shape for t in whole]


@each_cell
@pytest.mark.parametrize("missing", ["bias_ih", "bias_hh"])
def test_one_bias_alone(cell: Cell, missing: str) -> None:
    forward = {**whole_layer(cell), missing: None}
    zero = {**forward, missing: torch.zeros_like(whole_layer(cell)[missing])}
    expected = named(ops.layer(**zero, save=True), torch.float64)
    for made in (ops.layer, reference.layer, layer_cuda.layer):
        assert_close(named(made(**forward, save=True), torch.float64), expected, 1e-12)


@each_case
@each_variant
@each_way
def test_saving_changes_no_result(
    cell: Cell, project: int | None, variant: str, reverse: bool
) -> None:
    forward = arguments(cell, variant, torch.bfloat16, reverse, project)
    kept, alone = ops.layer(**forward, save=True), ops.layer(**forward, save=False)
    assert all(torch.equal(a, b) for a, b in zip(kept[:3], alone[:3], strict=True))
    assert alone.gates.numel() == alone.cells.numel() == 0


@each_case
@pytest.mark.parametrize("ragged", [False, True], ids=["padded", "packed"])
def test_no_steps(cell: Cell, project: int | None, ragged: bool) -> None:
    forward = whole_layer(cell, steps=0, project=project)
    if ragged:
        forward["x"] = forward["x"].flatten(0, 1)
        forward["batch_sizes"] = torch.empty(0, dtype=torch.int64)
    saved = ops.layer(**forward, save=True)
    assert torch.equal(saved.h_n, forward["h0"])
    backward = whole_layer_backward(forward, saved, all_wanted(forward))
    grads = ops.layer_backward(**backward)
    assert torch.equal(grads.grad_h0, backward["grad_h_n"])
    assert not any(t.any() for t in (*grads[3:], grads.grad_x))


@each_case
def test_no_columns(cell: Cell, project: int | None) -> None:
    forward = whole_layer(cell, width=0, project=project)
    zeros = {"x": forward["x"].new_zeros(4, 3, 1), "weight_ih": forward["weight_ih"].new_zeros(1)}
    zeros["weight_ih"] = zeros["weight_ih"].expand(len(forward["weight_ih"]), 1)
    found, expected = both_ways(forward), both_ways({**forward, **zeros})
    for a, b in zip(found, expected, strict=True):
        assert a.numel() == 0 or torch.equal(a, b)
