"""Tiles for bfloat16 (csrc/kernels/cpu/amx.h), over a tile unit made of plain C++.

No machine of ours has AMX. The unit follows Intel's manual to the bit and refuses what the hardware
refuses; products are held to a plain loop bit by bit, whole layers to the reference in float64.
"""

from __future__ import annotations

import ctypes
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import amx_build
import pytest
import torch
from recurrence_cases import all_wanted, assert_close, numbers, whole_layer, whole_layer_backward
from test_layer import TOLERANCES, named, widened
from torch import Tensor

from fastseq import ops, reference
from fastseq.ops import Cell, Forward
from fastseq.ops.layer import LayerBackward

BF16 = torch.bfloat16
TINY = torch.finfo(torch.float32).tiny
INNER = (1, 2, 15, 16, 17, 31, 32, 33, 100)  # a tile takes 32; what is left has a tile of its own
ROWS = range(1, 41)  # a tile takes 16


@pytest.fixture(scope="module")
def amx(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernels; kept between sessions for as long as no source changes."""
    cache = getattr(request.config, "cache", None)  # pytest may run without
    return amx_build.load(cache.mkdir("amx") if cache else tmp_path_factory.mktemp("amx"))


def pointer(t: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(t.data_ptr() if t is not None and t.numel() else None)


def call(function: Any, *args: int | Tensor | ctypes.Array[Any]) -> None:
    """Calls it; what the tile unit refuses is an error."""
    converted = [
        ctypes.c_int64(a) if isinstance(a, int) else pointer(a) if isinstance(a, Tensor) else a
        for a in args
    ]
    said = function(*converted)
    assert said is None, said.decode()


# ---- products


def flushed(t: Tensor) -> Tensor:
    """Subnormal numbers are zeros to the instruction, which keep their sign."""
    return torch.where(t.abs() < TINY, t * 0, t)


def plain_loop(state: Tensor, weight: Tensor, total: Tensor) -> Tensor:
    """total + state weight^T in the order of TDPBF16PS, an instruction for each 32 of inner."""
    state, weight = flushed(state.float()), flushed(weight.float())
    for first in range(0, state.shape[1], 32):
        chains = [torch.zeros_like(total), torch.zeros_like(total)]
        for k in range(first, min(first + 32, state.shape[1])):
            chains[k % 2] = flushed(chains[k % 2] + state[:, k, None] * weight[None, :, k])
        total = flushed(total + flushed(chains[0] + chains[1]))
    return total


def with_gap(state: Tensor) -> Tensor:
    """Rows that lie apart: whole pairs of numbers, and NaN between and behind them."""
    rows, inner = state.shape
    wide = torch.full((rows + 1, inner + inner % 2 + 38), float("nan"), dtype=BF16)
    wide[:-1, : inner + inner % 2] = 0
    wide[:-1, :inner] = state
    return wide


@cache
def product_case(outputs: int, inner: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """State, weight, sums before and after, for as many rows as there may be."""
    state = numbers(ROWS[-1], inner, seed=1, dtype=BF16)
    weight = numbers(outputs, inner, seed=2, dtype=BF16)
    state[3, inner // 2], weight[0, inner // 3] = 1e-39, -1e-39  # subnormal
    before = numbers(ROWS[-1], outputs, seed=3)
    return state, weight, before, plain_loop(state, weight, torch.zeros_like(before))


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize(("gates", "units"), [(0, 5), (0, 33), (0, 70), (3, 18), (4, 16)])
def test_products_are_a_plain_loop(amx: ctypes.CDLL, gates: int, units: int, inner: int) -> None:
    """To the bit, whatever rows there are beside a row."""
    state, weight, _, expected = product_case(max(1, gates) * units, inner)
    for rows in ROWS:
        found = torch.full((rows + 1, expected.shape[1]), 77.0)
        gapped = with_gap(state[:rows])
        stride = gapped.shape[1]
        call(amx.run_sweep, gates, units, inner, rows, gapped, stride, weight, found, 0)
        assert torch.equal(found[:rows], expected[:rows])
        assert torch.equal(found[rows:], torch.full((1, expected.shape[1]), 77.0))


@pytest.mark.parametrize("inner", [*INNER, 1031])  # more than a block of 1,024
@pytest.mark.parametrize(("gates", "units"), [(0, 70), (3, 18)])
def test_sums_go_on_from_what_they_were(
    amx: ctypes.CDLL, gates: int, units: int, inner: int
) -> None:
    state, weight, before, _ = product_case(max(1, gates) * units, inner)
    expected = plain_loop(state, weight, before)
    for rows in (1, 16, 17, 40):
        found = before[:rows].clone()
        gapped = with_gap(state[:rows])
        stride = gapped.shape[1]
        call(amx.run_sweep, gates, units, inner, rows, gapped, stride, weight, found, 1)
        assert torch.equal(found, expected[:rows])


def test_a_product_of_more_than_a_block(amx: ctypes.CDLL) -> None:
    state, weight, _, expected = product_case(70, 1031)
    state = torch.cat([state, state])  # of rows, too
    found = torch.empty(80, 70)
    gapped = with_gap(state)
    call(amx.run_sweep, 0, 70, 1031, 80, gapped, gapped.shape[1], weight, found, 0)
    assert torch.equal(found, torch.cat([expected, expected]))


@pytest.mark.parametrize("rows", [*INNER, 1031])
@pytest.mark.parametrize(("x_columns", "y_columns"), [(1, 1), (7, 64), (16, 17), (35, 70)])
def test_products_over_all_rows(
    amx: ctypes.CDLL, x_columns: int, y_columns: int, rows: int
) -> None:
    x = numbers(rows, x_columns, seed=4, dtype=BF16)
    y = numbers(rows, y_columns, seed=5, dtype=BF16)
    found = torch.full((x_columns, y_columns), float("nan"), dtype=BF16)
    sums = torch.full((x_columns,), float("nan"), dtype=BF16)
    call(amx.run_transposed, rows, x_columns, y_columns, x, y, found, sums)
    expected = plain_loop(x.t(), y.t(), torch.zeros(x_columns, y_columns))
    assert torch.equal(found, expected.to(BF16))
    torch.testing.assert_close(sums, x.double().sum(0).to(BF16))


# ---- layers

GRADS = ("grad_y", "grad_h_n", "grad_c_n")


def run_layer(
    amx: ctypes.CDLL,
    forward: dict[str, Any],
    grads: dict[str, Tensor | None] | None = None,
    batches: int = 1,
    units: int = 1,
) -> tuple[Forward, dict[str, Any], LayerBackward]:
    """The results, the arguments of backward, and its results.

    The outputs' gradients are random unless given.
    """

    def unwritten(t: Tensor) -> Tensor:
        return torch.full_like(t, float("nan"))

    shapes = ops.layer(**forward, save=True)
    saved = Forward(*map(unwritten, shapes))
    backward = whole_layer_backward(forward, shapes, all_wanted(forward), "y h_n c_n")
    backward |= grads or {}
    found = LayerBackward(*map(unwritten, ops.layer_backward(**backward)))
    names = ("x", "h0", "c0", "weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
    given = [*(forward[n] for n in names), *saved, *(backward[n] for n in GRADS)]
    tensors = [*given, *found]
    steps, batch, width = forward["x"].shape
    hidden = forward["weight_hh"].shape[0] // Cell(forward["cell"]).gates
    sizes = (forward["cell"], steps, batch, width, hidden, forward["h0"].shape[1])
    sizes += (forward["reverse"], batches, units)
    pointers = (ctypes.c_void_p * len(tensors))(*(pointer(t).value for t in tensors))
    call(amx.run_layer, (ctypes.c_int64 * len(sizes))(*sizes), pointers)
    return saved, {**backward, **{n: getattr(saved, n) for n in ("y", "gates", "cells")}}, found


CASES = [(cell, None) for cell in Cell] + [(Cell.LSTM, 17)]
each_case = pytest.mark.parametrize(("cell", "project"), CASES, ids=str)


@pytest.mark.usefixtures("one_thread")
@each_case
@pytest.mark.parametrize(
    ("steps", "batch", "width", "hidden"),
    [(1, 1, 1, 1), (3, 2, 15, 2), (2, 16, 31, 15), (3, 17, 2, 16), (2, 5, 33, 17), (4, 40, 100, 33),
     (3, 33, 16, 31), (2, 3, 17, 32), (2, 24, 32, 100)],
)  # fmt: skip
def test_layers_against_the_reference(
    amx: ctypes.CDLL, cell: Cell, project: int | None, steps: int, batch: int, width: int,
    hidden: int,
) -> None:  # fmt: skip
    sizes = {"steps": steps, "batch": batch, "width": width, "hidden": hidden}
    forward = whole_layer(cell, **sizes, project=project, dtype=BF16)
    forward["reverse"] = hidden % 2 == 1
    saved, backward, found = run_layer(amx, forward)
    double, tolerance = torch.float64, TOLERANCES[BF16]
    expected = reference.layer(**widened(forward))
    assert_close(named(saved, double), named(expected, double), tolerance)
    expected = reference.layer_backward(**widened(backward))
    assert_close(named(found, double), named(expected, double), tolerance)


@each_case
def test_a_row_is_the_same_alone(amx: ctypes.CDLL, cell: Cell, project: int | None) -> None:
    sizes = {"steps": 3, "width": 21, "hidden": 40, "project": project}
    forward = whole_layer(cell, batch=19, dtype=BF16, **sizes)
    saved, backward, found = run_layer(amx, forward)

    def of(row: int, t: Tensor | None) -> Tensor | None:
        if t is None or t.numel() == 0:
            return t
        return t[..., row : row + 1, :].contiguous()

    for row in (0, 9, 18):
        taken = {n: of(row, forward[n]) for n in ("x", "h0", "c0")}
        grads = {n: of(row, backward[n]) for n in GRADS}
        saved_alone, _, alone = run_layer(amx, {**forward, **taken}, grads)
        for one, other in zip(saved_alone, saved, strict=True):
            assert torch.equal(one, of(row, other))
        for name in ("grad_x", "grad_h0", "grad_c0"):
            assert torch.equal(getattr(alone, name), of(row, getattr(found, name))), name


@each_case
def test_threads_change_nothing(amx: ctypes.CDLL, cell: Cell, project: int | None) -> None:
    forward = whole_layer(cell, steps=3, batch=21, width=37, hidden=80, project=project, dtype=BF16)
    saved, _, found = run_layer(amx, forward)
    for batches, units in ((2, 1), (1, 2)):
        saved_too, _, found_too = run_layer(amx, forward, None, batches, units)
        for one, other in zip((*saved, *found), (*saved_too, *found_too), strict=True):
            assert torch.equal(one, other)


# ---- the unit, and the instructions themselves


REFUSED = (
    "a tile is used and none is configured",
    "ldtilecfg: there is no such palette",
    "ldtilecfg: a reserved byte is set",
    "ldtilecfg: a reserved byte is set",
    "ldtilecfg: a tile has too many rows",
    "ldtilecfg: a row is too wide",
    "ldtilecfg: rows without bytes, or bytes without rows",
    "tdpbf16ps: sums and first factors have not as many rows",
    "tdpbf16ps: sums and second factors are not as wide",
    "tdpbf16ps: not as many pairs in both factors",
    "tileloadd: tile 3 has no shape",
    "tdpbf16ps: a tile is named twice",
    "tiles are not given back",
    None,  # a program without a mistake
)


@pytest.mark.parametrize(("number", "sentence"), list(enumerate(REFUSED)))
def test_what_the_hardware_refuses(amx: ctypes.CDLL, number: int, sentence: str | None) -> None:
    said = amx.run_mistake(number)
    assert (said.decode() if said else None) == sentence


REAL = """
#include "kernels/cpu/tiles.h"
using namespace fastseq;
using namespace fastseq::amx;
void product(const PanelShape& shape, const BFloat16* packed, const BFloat16* state, float* out) {
  for_each_tile<dot_t<BFloat16>, 4>(
      shape, packed, 0, 1, state, 64, 20, [](int64_t, int64_t, Lines&) {},
      [&](int64_t, int64_t row, const float* tile) { out[row] = *tile; });
}
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="another CPU's instructions")
def test_the_instructions_themselves_assemble(tmp_path: Path) -> None:
    """As CMakeLists.txt compiles them; that they do what the unit does, only AMX can show."""
    (tmp_path / "real.cpp").write_text(REAL)
    flags = "-std=gnu++20 -O2 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma -mf16c"
    flags += " -mavx512bf16 -mamx-tile -mamx-bf16 -Wno-psabi"
    flags += f" -DFASTSEQ_CAPABILITY=amx -DFASTSEQ_VECTOR_BYTES=64 -I{amx_build.ROOT / 'csrc'}"
    command = [amx_build.compiler(), *flags.split(), "-c", "real.cpp", "-o", "real.o"]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    code = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", "real.o"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    code = " ".join(code.split())
    for a, b in ((4, 5), (6, 7)):
        for v in range(4):
            assert f"tdpbf16ps %tmm{b},%tmm{a},%tmm{v}" in code
    for name in ("ldtilecfg", "tileloadd", "tilezero", "tilestored", "tilerelease"):
        assert name in code, name
