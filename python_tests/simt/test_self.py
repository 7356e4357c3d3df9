"""The recurrence in one launch, W_hh in registers, against the CPU op in float64.

What this proves: where every weight, gate and row lies, both buffers of h and their barrier. What
it does not: that the weights stay in registers (test_cuda_compile.py), and how fast it is.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import pytest
import torch
from simt_build import Machine
from torch import Tensor

from fastseq.ops import Cell

# TF32 rounds h and W_hh to 10 bits of fraction, as half does.
TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 2e-2, torch.float16: 4e-3}
CODES = {dtype: code for code, dtype in enumerate(TOLERANCE)}
each_cell = pytest.mark.parametrize("cell", list(Cell))
each_dtype = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


@dataclass(frozen=True)
class Result:
    y: Tensor
    h_n: Tensor
    c_n: Tensor | None
    gates: Tensor | None
    cells: Tensor | None

    def check(self, exact: Result, dtype: torch.dtype) -> None:
        for name, tensor in vars(self).items():
            expected = getattr(exact, name)
            assert (tensor is None) == (expected is None)
            if tensor is None:
                continue
            assert bool(tensor.isfinite().all()), f"{name} is not written, or not finite"
            off = (tensor.double() - expected).norm() / expected.norm()
            assert off < TOLERANCE[dtype], f"{name} is off by {off}"


@dataclass(frozen=True)
class Case:
    cell: Cell
    dtype: torch.dtype
    steps: int = 4
    batch: int = 3
    hidden: int = 20
    reverse: bool = False
    bias: bool = True
    save: bool = True

    def inputs(self) -> list[Tensor | None]:
        generator = torch.Generator().manual_seed(self.hidden)
        lstm, gru = self.cell == Cell.LSTM, self.cell == Cell.GRU
        width = self.cell.gates * self.hidden

        def draw(*shape: int, scale: float = 1.0) -> Tensor:
            return (torch.randn(shape, generator=generator) * scale).to(self.dtype)

        state = (self.batch, self.hidden)
        return [
            draw(self.steps, self.batch, width),
            draw(*state),
            draw(*state) if lstm else None,
            draw(width, self.hidden, scale=1.5 * self.hidden**-0.5),
            draw(self.hidden) if gru and self.bias else None,
        ]

    def run(self, cases: Machine) -> tuple[str | None, Result]:
        inputs, lstm = self.inputs(), self.cell == Cell.LSTM
        cached = {Cell.LSTM: 4, Cell.GRU: 4}.get(self.cell, 0)

        def empty(*shape: int, dtype: torch.dtype = self.dtype) -> Tensor:
            return torch.full(shape, float("nan"), dtype=dtype)

        state, every = (self.batch, self.hidden), (self.steps, self.batch, self.hidden)
        found = Result(
            y=empty(*every),
            h_n=empty(*state),
            c_n=empty(*state) if lstm else None,
            gates=empty(*every[:2], cached * self.hidden) if cached and self.save else None,
            cells=empty(*every, dtype=torch.float32) if lstm and self.save else None,
        )
        tensors = [*inputs, *vars(found).values()]
        pointers = (ctypes.c_void_p * 10)(*(t.data_ptr() if t is not None else 0 for t in tensors))
        sizes = map(ctypes.c_int64, (self.steps, self.batch, self.hidden))
        said: bytes | None = cases.library.run_self(
            CODES[self.dtype], int(self.cell), pointers, *sizes, self.reverse
        )
        return said.decode() if said else None, found

    def exact(self) -> Result:
        doubles = [t.double() if t is not None else None for t in self.inputs()]
        y, h_n, c_n, gates, cells = torch.ops.fastseq.recurrence(
            *doubles, None, None, int(self.cell), self.reverse, True
        )
        lstm, cached = self.cell == Cell.LSTM, self.cell in {Cell.LSTM, Cell.GRU}
        return Result(
            y=y,
            h_n=h_n,
            c_n=c_n if lstm else None,
            gates=gates if cached and self.save else None,
            cells=cells if lstm and self.save else None,
        )

    def check(self, cases: Machine) -> None:
        said, found = self.run(cases)
        assert said is None
        found.check(self.exact(), self.dtype)


@each_dtype
@each_cell
def test_against_the_cpu_op(cell: Cell, dtype: torch.dtype, cases: Machine) -> None:
    for reverse in (False, True):
        Case(cell, dtype, reverse=reverse).check(cases)


@each_cell
@pytest.mark.parametrize(("batch", "hidden"), [(1, 1), (8, 32), (9, 8), (17, 31)])
def test_ends_of_blocks_and_warps(batch: int, hidden: int, cell: Cell, cases: Machine) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        Case(cell, dtype, batch=batch, hidden=hidden).check(cases)


@each_dtype
@pytest.mark.parametrize("hidden", [33, 64])
def test_more_warps(hidden: int, dtype: torch.dtype, cases: Machine) -> None:
    Case(Cell.LSTM, dtype, steps=2, batch=2, hidden=hidden).check(cases)


@each_cell
def test_without_saving_and_without_a_bias(cell: Cell, cases: Machine) -> None:
    Case(cell, torch.bfloat16, bias=False, save=False).check(cases)


@each_dtype
@pytest.mark.parametrize("cell", [Cell.LSTM, Cell.GRU])
def test_the_schedule_changes_nothing(cell: Cell, dtype: torch.dtype, cases: Machine) -> None:
    """Nor does the batch: a row's bits are its own."""
    _, first = Case(cell, dtype).run(cases)
    for seed in range(20):
        cases.seed(seed)
        said, found = Case(cell, dtype).run(cases)
        assert said is None
        assert all(t is None or torch.equal(t, getattr(first, n)) for n, t in vars(found).items())


def test_the_barrier_is_needed(cases: Machine) -> None:
    cases.forget_barriers()
    Case(Cell.LSTM, torch.half).check(cases)
    sites = cases.barriers()
    assert len(sites) == 2  # before the first step, and at the end of each
    for site in sites:
        for seed in range(3):
            cases.seed(seed)
            cases.drop_barrier(site)
            said = Case(Cell.LSTM, torch.half).run(cases)[0] or ""
            assert "race: " in said or "nothing wrote" in said
        cases.drop_barrier("")


def test_what_does_not_fit_is_refused(cases: Machine) -> None:
    said, _ = Case(Cell.GRU, torch.half, hidden=33).run(cases)
    assert said == "hidden_size is larger than the kernel"
