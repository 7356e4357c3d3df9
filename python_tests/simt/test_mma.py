"""The product of a warp: where each number lies in PTX's words, and what comes of mistakes.

The formulas are those of the PTX ISA, "Warp Level Matrix Multiply-Accumulate", as they stand there:
``groupID = %laneid >> 2``, ``threadID_in_group = %laneid % 4``, and element ``i`` of a fragment.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import pytest
import torch
from simt_build import Machine
from torch import Tensor

NONE, SWAPPED_A, SWAPPED_B, ROWS_OF_C, NO_BARRIER, UNROUNDED, MISALIGNED = range(7)
LANES = range(32)


@dataclass(frozen=True)
class Kind:
    """A type of the numbers that are multiplied."""

    code: int
    dtype: torch.dtype
    depth: int  # K of one product
    each: int  # numbers in a register

    def round(self, x: Tensor) -> Tensor:
        """To what a product takes; TF32 by cutting what has been made to fit."""
        if self.each == 2:
            return x.to(self.dtype).float()
        return ((x.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)

    def registers(self, elements: Tensor) -> Tensor:
        """[32, n] numbers as [32, n / each] registers."""
        return self.round(elements).to(self.dtype).contiguous().view(torch.int32)

    def a(self, lane: int, i: int) -> tuple[int, int]:
        group, thread = lane >> 2, lane % 4
        if self.each == 1:
            return group + (0 if i in (0, 2) else 8), thread + (0 if i in (0, 1) else 4)
        row = group if 0 <= i < 2 or 4 <= i < 6 else group + 8
        return row, thread * 2 + (i & 1) + (0 if i < 4 else 8)

    def b(self, lane: int, i: int) -> tuple[int, int]:
        group, thread = lane >> 2, lane % 4
        if self.each == 1:
            return thread + (0 if i == 0 else 4), group
        return thread * 2 + (i & 1) + (0 if i < 2 else 8), group


def place_of_c(lane: int, i: int) -> tuple[int, int]:
    group, thread = lane >> 2, lane % 4
    return (group if i < 2 else group + 8), thread * 2 + (i & 1)


KINDS = {
    "bfloat16": Kind(0, torch.bfloat16, 16, 2),
    "half": Kind(1, torch.float16, 16, 2),
    "tf32": Kind(2, torch.float32, 8, 1),
}
each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def pointer(t: Tensor) -> ctypes.c_void_p:
    assert t.is_contiguous()
    return ctypes.c_void_p(t.data_ptr())


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def on_fragments(cases: Machine, kind: Kind, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """``a @ b + c`` by one product; the matrices are spread over the lanes here."""
    n = 4 * kind.each
    fragment_a = torch.stack([torch.stack([a[kind.a(t, i)] for i in range(n)]) for t in LANES])
    fragment_b = torch.stack([torch.stack([b[kind.b(t, i)] for i in range(n // 2)]) for t in LANES])
    found = torch.stack([torch.stack([c[place_of_c(t, i)] for i in range(4)]) for t in LANES])
    words = kind.registers(fragment_a), kind.registers(fragment_b)
    assert cases.library.run_mma(kind.code, *map(pointer, words), pointer(found)) is None
    out = torch.full_like(c, float("nan"))
    for lane in LANES:
        for i in range(4):
            out[place_of_c(lane, i)] = found[lane, i]
    return out


@each_kind
def test_a_product_of_one_hot_matrices(kind: Kind, cases: Machine) -> None:
    """A one in row r and column k of ``a`` fetches row k of ``b``, and nothing else."""
    b = kind.round(draw(kind.depth, 8))
    for k in range(kind.depth):
        row = 5 * k % 16
        a, c = torch.zeros(16, kind.depth), torch.zeros(16, 8)
        a[row, k] = 1
        expected = torch.zeros(16, 8)
        expected[row] = b[k]
        assert torch.equal(on_fragments(cases, kind, a, b, c), expected)


@each_kind
def test_a_product_adds_to_what_is_there(kind: Kind, cases: Machine) -> None:
    a, b = kind.round(draw(16, kind.depth)), kind.round(draw(kind.depth, 8, seed=1))
    c = draw(16, 8, seed=2)
    exact = a.double() @ b.double() + c.double()
    assert torch.equal(on_fragments(cases, kind, a, b, c), exact.float())


def on_tile(cases: Machine, kind: Kind, mistake: int = NONE) -> tuple[str | None, Tensor, Tensor]:
    """What the machine says, ``a @ b.T`` by way of shared memory, and the exact one."""
    a, b = draw(16, 2 * kind.depth), draw(8, 2 * kind.depth, seed=1)
    c = torch.full((16, 8), float("nan"))
    said: bytes | None = cases.library.run_tile(kind.code, *map(pointer, (a, b, c)), mistake)
    exact = kind.round(a).double() @ kind.round(b).double().T
    return said.decode() if said else None, c, exact


@each_kind
@pytest.mark.parametrize("seed", range(4))
def test_a_tile_through_shared_memory(kind: Kind, seed: int, cases: Machine) -> None:
    cases.seed(seed)
    said, c, exact = on_tile(cases, kind)
    assert said is None
    assert (c.double() - exact).abs().max() < 4e-6


@each_kind
@pytest.mark.parametrize("mistake", [SWAPPED_A, SWAPPED_B, ROWS_OF_C])
def test_swapped_fragments_are_seen(kind: Kind, mistake: int, cases: Machine) -> None:
    said, c, exact = on_tile(cases, kind, mistake)
    assert said is None
    assert (c.double() - exact).abs().max() > 1


@each_kind
@pytest.mark.parametrize("seed", range(4))
def test_reading_a_tile_too_soon_is_a_race(kind: Kind, seed: int, cases: Machine) -> None:
    cases.seed(seed)
    said = on_tile(cases, kind, NO_BARRIER)[0] or ""
    assert "race: " in said or "nothing wrote" in said


@each_kind
def test_a_row_that_is_not_aligned(kind: Kind, cases: Machine) -> None:
    said = on_tile(cases, kind, MISALIGNED)[0] or ""
    assert said.endswith("names a row of a matrix that is not aligned to 16 bytes")


def test_a_number_that_is_not_rounded_to_tf32(cases: Machine) -> None:
    said = on_tile(cases, KINDS["tf32"], UNROUNDED)[0] or ""
    assert said.endswith("multiplies a number that is not rounded to TF32")


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("count", [2, 4])
def test_matrices_from_rows(count: int, transposed: bool, cases: Machine) -> None:
    """ldmatrix: thread i holds elements 2 * (i % 4) and the next of row i / 4."""
    rows = torch.arange(count * 64, dtype=torch.int16).reshape(count, 8, 8) + 100
    out = torch.zeros(32, count, dtype=torch.int32)
    said = cases.library.run_ldmatrix(count, transposed, pointer(rows), pointer(out))
    assert said is None
    found = out.view(torch.int16).reshape(32, count, 2)
    seen = rows.transpose(1, 2) if transposed else rows
    for lane in LANES:
        row, column = lane // 4, 2 * (lane % 4)
        assert torch.equal(found[lane], seen[:, row, column : column + 2])


def test_rounding_to_tf32(cases: Machine) -> None:
    """To nearest with ten bits of fraction, ties away from zero, as cvt.rna."""
    for x, expected in [
        (1.0, 1.0),
        (1 + 2**-11, 1 + 2**-10),  # a tie
        (-1 - 2**-11, -1 - 2**-10),
        (1 + 2**-11 - 2**-20, 1.0),
        (3.4e38, 3.4e38),
        (float("inf"), float("inf")),
    ]:
        word = torch.tensor([cases.library.round_to_tf32(ctypes.c_float(x))], dtype=torch.int64)
        found = word.to(torch.int32).view(torch.float32).item()
        assert found == pytest.approx(expected, rel=5e-4 if x == 3.4e38 else 0)
    nan = cases.library.round_to_tf32(ctypes.c_float(float("nan"))) & 0xFFFFFFFF
    assert nan & 0x7F800000 == 0x7F800000
    assert nan & 0x1FFF == 0


@pytest.mark.parametrize("kind", [KINDS["bfloat16"], KINDS["half"]], ids=["bfloat16", "half"])
def test_two_numbers_in_a_word(kind: Kind, cases: Machine) -> None:
    both = torch.tensor([1.2345, -6.789])
    word = cases.library.pack_two(kind.code, *(ctypes.c_float(float(x)) for x in both))
    found = torch.tensor([word], dtype=torch.int64).to(torch.int32).view(kind.dtype)
    assert torch.equal(found, both.to(kind.dtype))
