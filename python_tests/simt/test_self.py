"""The recurrence in one launch, W_hh in registers, forward and backward, against the CPU op.

What this proves: where every weight, gate and row lies, which rows take part, both buffers and
their barriers. What it does not: that the weights stay in registers (test_cuda_compile.py), and how
fast it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from simt_build import Machine
from simt_cases import SIMT, poisoned, same
from torch import Tensor

from fastseq.ops import Cell
from fastseq.ops.persistent import PLAIN

CPU = torch.ops.fastseq
# TF32 rounds h and W_hh to 10 bits of fraction, as half does.
TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 2e-2, torch.float16: 4e-3}
RAGGED = (5, 5, 3, 3, 1, 1)  # of six rows: one of them takes part in nothing
# By gates: the last units of each wider kernel, and the first of the one after.
WIDEST = [
    {4: (128,), 3: (128,), 1: (128, 129, 192)},
    {4: (96,), 3: (96,), 1: (128,)},  # float32
]
each_cell = pytest.mark.parametrize("cell", list(Cell))
each_dtype = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
pytestmark = pytest.mark.usefixtures("machine")
Tensors = list[Tensor | None]


@pytest.fixture(autouse=True)
def fresh_memory_is_poisoned() -> Iterator[None]:
    with poisoned():
        yield


@dataclass(frozen=True)
class Case:
    cell: Cell
    dtype: torch.dtype
    steps: int = 4
    batch: int = 3
    hidden: int = 20
    sizes: tuple[int, ...] = ()  # of the steps of a packed batch
    reverse: bool = False
    bias: bool = True
    save: bool = True
    seed: int = 0

    @property
    def rows_of_steps(self) -> Tensor | None:
        return torch.tensor(self.sizes) if self.sizes else None

    @property
    def tail(self) -> tuple[Any, ...]:
        """From batch_sizes on."""
        return self.rows_of_steps, *PLAIN, int(self.cell), self.reverse

    @property
    def cpu_tail(self) -> tuple[Any, ...]:
        return self.rows_of_steps, int(self.cell), self.reverse

    def draw(self, *shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
        generator = torch.Generator().manual_seed(self.hidden + self.seed + seed)
        return (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(self.dtype)

    def rows(self, width: int, seed: int = 0) -> Tensor:
        lead = (sum(self.sizes),) if self.sizes else (self.steps, self.batch)
        return self.draw(*lead, width, seed=seed)

    def inputs(self) -> Tensors:
        """From pre to weight_hr."""
        lstm, gru = self.cell == Cell.LSTM, self.cell == Cell.GRU
        width, state = self.cell.gates * self.hidden, (self.batch, self.hidden)
        return [
            self.rows(width),
            self.draw(*state, seed=1),
            self.draw(*state, seed=2) if lstm else None,
            self.draw(width, self.hidden, seed=3, scale=1.5 * self.hidden**-0.5),
            self.draw(self.hidden, seed=4) if gru and self.bias else None,
            None,
        ]

    def gradients(self) -> Tensors:
        """Of y, h_n, c_n, gates and cells."""
        state = (self.batch, self.hidden)
        c_n = self.draw(*state, seed=7) if self.cell == Cell.LSTM else None
        return [self.rows(self.hidden, seed=5), self.draw(*state, seed=6), c_n, None, None]

    def forward(self) -> Tensors:
        return list(SIMT.recurrence_persistent(*self.inputs(), *self.tail, self.save))

    def saved(self) -> Tensors:
        """What backward takes, from y to weight_hr; one and the same for all who are compared."""
        _, h0, c0, weight_hh, *_ = inputs = self.inputs()
        y, _, _, gates, cells = CPU.recurrence(*inputs, *self.cpu_tail, True)
        return [y, gates, cells, h0, c0, weight_hh, None]

    def backward(self, gradients: Tensors | None = None) -> Tensors:
        given = self.gradients() if gradients is None else gradients
        return list(SIMT.recurrence_persistent_backward(*given, *self.saved(), *self.tail))

    def check(self) -> None:
        exact = CPU.recurrence(*doubles(self.inputs()), *self.cpu_tail, self.save)
        self.compare(self.forward(), exact)
        self.check_backward(self.gradients())

    def check_backward(self, gradients: Tensors) -> None:
        saved = doubles([*gradients, *self.saved()])
        exact = CPU.recurrence_backward(*saved, *self.cpu_tail)
        self.compare(self.backward(gradients)[:4], exact)

    def compare(self, found: Tensors, exact: Tensors) -> None:
        for i, (mine, right) in enumerate(zip(found, exact, strict=True)):
            assert mine is not None
            assert right is not None
            assert mine.shape == right.shape
            assert bool(mine.isfinite().all()), f"result {i} is not written, or not finite"
            off = (mine.double() - right).norm() / right.norm().clamp_min(1e-3)
            assert off < TOLERANCE[self.dtype], f"result {i} is off by {off}"


def doubles(tensors: Tensors) -> Tensors:
    return [None if t is None else t.double() for t in tensors]


@each_dtype
@each_cell
@pytest.mark.parametrize("sizes", [(), RAGGED], ids=["dense", "packed"])
def test_against_the_cpu_op(cell: Cell, dtype: torch.dtype, sizes: tuple[int, ...]) -> None:
    for reverse in (False, True):
        Case(cell, dtype, batch=6, sizes=sizes, reverse=reverse).check()


@each_cell
@pytest.mark.parametrize(("batch", "hidden"), [(1, 1), (8, 64), (9, 8), (17, 31)])
def test_ends_of_blocks_and_warps(batch: int, hidden: int, cell: Cell) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        Case(cell, dtype, steps=2, batch=batch, hidden=hidden).check()


@each_dtype
@pytest.mark.parametrize("cell", [Cell.LSTM, Cell.GRU, Cell.RNN_RELU])
def test_many_units(cell: Cell, dtype: torch.dtype) -> None:
    """The wider kernels; weights that are not in registers are those of TF32."""
    for hidden in (65, *WIDEST[dtype == torch.float32][cell.gates]):
        Case(cell, dtype, steps=2, batch=2, hidden=hidden).check()


@each_cell
@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_few_steps(steps: int, cell: Cell) -> None:
    Case(cell, torch.float16, steps=steps).check()


@each_cell
def test_a_batch_of_none(cell: Cell) -> None:
    case = Case(cell, torch.float16, batch=0)
    assert [t is not None and t.numel() == 0 for t in case.forward()] == [True] * 5
    assert [t is not None and t.numel() == 0 for t in case.backward()] == [True] * 6


@each_cell
def test_without_saving_and_without_a_bias(cell: Cell) -> None:
    Case(cell, torch.bfloat16, bias=False, save=False).check()


@each_cell
@pytest.mark.parametrize("given", [0, 1, 2])
def test_gradients_that_nobody_has(given: int, cell: Cell) -> None:
    case = Case(cell, torch.float16, batch=6, sizes=RAGGED)
    alone: Tensors = [g if i == given else None for i, g in enumerate(case.gradients())]
    case.check_backward(alone)


@each_dtype
@pytest.mark.parametrize("cell", [Cell.LSTM, Cell.GRU])
def test_the_schedule_changes_nothing(cell: Cell, dtype: torch.dtype, machine: Machine) -> None:
    case = Case(cell, dtype, steps=2, batch=2, sizes=(2, 1))
    first = case.forward() + case.backward()
    for seed in range(20):
        machine.seed(seed)
        again = case.forward() + case.backward()
        assert all(a is not None and same(a, b) for a, b in zip(first, again, strict=True))


@each_cell
def test_a_row_does_not_depend_on_its_batch(cell: Cell) -> None:
    """Row 9, which lies elsewhere in another block when it is alone."""
    many = Case(cell, torch.bfloat16, batch=10)
    alone = replace(many, batch=1)
    pre, h0, c0, *weights = many.inputs()
    assert pre is not None
    assert h0 is not None
    own = [pre[:, 9:], h0[9:], None if c0 is None else c0[9:], *weights]
    single = SIMT.recurrence_persistent(*own, *alone.tail, True)
    for whole, part in zip(many.forward(), single, strict=True):
        assert whole is not None
        assert same(whole[:, 9:] if whole.dim() == 3 else whole[9:], part)
    y, gates, cells, h0, c0, weight_hh, _ = many.saved()
    given = [*many.gradients()[:3], y, gates, cells, h0, c0]
    nines = [t if t is None or not t.numel() else t[..., 9:, :].contiguous() for t in given]
    back = SIMT.recurrence_persistent_backward(
        *nines[:3], None, None, *nines[3:], weight_hh, None, *alone.tail
    )
    for whole, part in zip(many.backward(), back, strict=True):
        assert whole is not None
        assert same(whole[:, 9:] if whole.dim() == 3 else whole[9:], part)


def test_a_table_of_many_parts() -> None:
    """Numbers come a thousand at a time."""
    sizes = (1001, 999, 4)
    Case(Cell.RNN_TANH, torch.float16, batch=1001, hidden=2, sizes=sizes).check()


@pytest.mark.parametrize(("back", "count"), [(False, 2), (True, 3)])
def test_the_barriers_are_needed(back: bool, count: int, machine: Machine) -> None:
    case = Case(Cell.LSTM, torch.float16)
    call = case.backward if back else case.forward
    machine.forget_barriers()
    call()
    sites = machine.barriers()
    assert len(sites) == count
    for site in sites:
        for seed in range(3):
            machine.seed(seed)
            machine.drop_barrier(site)
            with pytest.raises(RuntimeError, match=r"race: |nothing wrote"):
                call()
        machine.drop_barrier("")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden": 1025}, "dtype and hidden_size"),
        ({"hidden": 513, "dtype": torch.float32}, "dtype and hidden_size"),
        ({"dtype": torch.float64}, "dtype and hidden_size"),
    ],
    ids=str,
)
def test_what_has_no_kernel_is_refused(change: dict[str, object], words: str) -> None:
    case = replace(Case(Cell.GRU, torch.float16), **change)  # type: ignore[arg-type]
    for call in (case.forward, case.backward):
        with pytest.raises(RuntimeError, match=words):
            call()


def test_what_backward_does_not_take_is_refused() -> None:
    case = Case(Cell.LSTM, torch.float16)
    saved = case.saved()
    with pytest.raises(RuntimeError, match="gradients of what forward saved"):
        SIMT.recurrence_persistent_backward(None, None, None, saved[1], None, *saved, *case.tail)
    pre, _, c0, *_ = case.inputs()
    h0, w = case.draw(3, 2), case.draw(80, 2)
    with pytest.raises(RuntimeError, match="projection"):
        SIMT.recurrence_persistent(pre, h0, c0, w, None, case.draw(2, 20), *case.tail, True)
