"""The recurrence over many blocks that hand over h in words, against the CPU op in float64.

What this proves: where every weight, word and row lies; the words' protocol, under late and
reordered words and blocks that hardly run. What it does not: that the weights stay in registers
(test_cuda_compile.py), and how fast it is.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import ClassVar

import pytest
import torch
from masked_cases import Masked, draw_masks, masked_backward, masked_forward
from simt_build import Machine
from torch import Tensor

from fastseq.ops import Cell

# TF32 rounds h and W_hh to 10 bits of fraction, as half does.
TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 2e-2, torch.float16: 4e-3}
CODES = {dtype: code for code, dtype in enumerate(TOLERANCE)}
each_cell = pytest.mark.parametrize("cell", list(Cell))
each_dtype = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
both_ways = pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
Tensors = dict[str, Tensor | None]
RAGGED = (5, 5, 4, 4, 4, 3, 3, 2, 2, 1, 1)  # the second tile begins late, or ends early


@dataclass(frozen=True)
class Case:
    cell: Cell
    dtype: torch.dtype
    backward: bool = False
    steps: int = 3
    batch: int = 3
    hidden: int = 40
    reverse: bool = False
    lengths: tuple[int, ...] = ()  # longest first; none: all rows have all steps
    chunk: int = 0  # steps of a launch, at most; 0: as many as the plan says
    room: int = 16  # multiprocessors, of which the plan leaves some free
    without: tuple[str, ...] = ()  # tensors that are null
    masked: bool = False  # a padded batch with lengths and resets
    seed: int = 0
    directions: ClassVar[int] = 1

    @property
    def rows(self) -> tuple[int, ...]:
        """The shape of y, but for its last dimension."""
        return (sum(self.lengths),) if self.lengths else (self.steps, self.batch)

    def sizes(self) -> list[int]:
        return [sum(n > t for n in self.lengths) for t in range(self.steps)]

    @property
    def masks(self) -> Masked:
        sizes = (self.steps, self.batch, self.hidden)
        return draw_masks(*sizes, self.cell, self.dtype, seed=self.seed)

    def table(self) -> Tensor | None:
        """First rows of all steps, where the last one ends, and how long rows are."""
        if not self.masked and not self.lengths:
            return None
        sizes, lengths = self.sizes(), list(self.lengths)
        if self.masked:
            assert self.masks.lengths is not None
            sizes, lengths = [self.batch] * self.steps, self.masks.lengths.tolist()
        return torch.tensor([*accumulate([0, *sizes]), *lengths], dtype=torch.int32)

    def inputs(self) -> Tensors:
        """What forward takes; and with ``backward`` what that does, saved tensors included."""
        generator = torch.Generator().manual_seed(self.hidden + self.seed)
        lstm, gru = self.cell == Cell.LSTM, self.cell == Cell.GRU
        width, state = self.cell.gates * self.hidden, (self.batch, self.hidden)

        def draw(*shape: int, scale: float = 1.0) -> Tensor:
            return (torch.randn(shape, generator=generator) * scale).to(self.dtype)

        forward: Tensors = {
            "pre": draw(*self.rows, width),
            "h0": draw(*state),
            "c0": draw(*state) if lstm else None,
            "weight_hh": draw(width, self.hidden, scale=1.5 * self.hidden**-0.5),
            "bias_hn": draw(self.hidden) if gru else None,
        }
        if not self.backward:
            return {k: None if k in self.without else t for k, t in forward.items()}
        saved = replace(self, backward=False).exact(forward)
        y, gates, cells = (saved[name] for name in ("y", "gates", "cells"))
        assert y is not None
        assert gates is not None
        assert cells is not None
        inputs = {
            "grad_y": draw(*self.rows, self.hidden),
            "grad_h_n": draw(*state),
            "grad_c_n": draw(*state) if lstm else None,
            "y": y.to(self.dtype),
            "gates": gates.to(self.dtype) if gates.numel() else None,
            "cells": cells.float() if lstm else None,
            **{name: forward[name] for name in ("h0", "c0", "weight_hh")},
        }
        return {k: None if k in self.without else t for k, t in inputs.items()}

    def outputs(self) -> Tensors:
        lstm, gru = self.cell == Cell.LSTM, self.cell == Cell.GRU
        state, every = (self.batch, self.hidden), (*self.rows, self.hidden)
        shapes: dict[str, tuple[int, ...] | None] = {
            "y": every,
            "h_n": state,
            "c_n": state if lstm else None,
            "gates": (*self.rows, 4 * self.hidden) if lstm or gru else None,
            "cells": every if lstm else None,
        }
        if self.backward:
            shapes = {
                "grad_pre": (*self.rows, self.cell.gates * self.hidden),
                "grad_aux": every if gru else None,
                "grad_h0": state,
                "grad_c0": state if lstm else None,
                "grad_reset_h": state if self.masked else None,
                "grad_reset_c": state if self.masked and lstm else None,
            }
        sums = ("cells", "grad_reset_h", "grad_reset_c")
        return {
            name: None
            if shape is None or name in self.without
            else torch.full(
                shape, float("nan"), dtype=torch.float32 if name in sums else self.dtype
            )
            for name, shape in shapes.items()
        }

    def prepare(self, found: Tensors, inputs: Tensors) -> None:
        """What the op does before a launch: rows without a step, and sums that are added to."""
        ends = {"h_n": "h0", "c_n": "c0", "grad_h0": "grad_h_n", "grad_c0": "grad_c_n"}
        for name, tensor in found.items():
            if tensor is None or not self.masked:
                continue
            if name in ends:
                state = inputs[ends[name]]
                assert state is not None
                tensor.copy_(state)
            elif name != "gates":
                tensor.zero_()

    def run(self, cases: Machine, inputs: Tensors | None = None) -> tuple[str | None, Tensors]:
        """What the machine says, and the results."""
        found, given = self.outputs(), inputs or self.inputs()
        self.prepare(found, given)
        marks = self.masks[1:] if self.masked else (None,) * 3
        tensors = [self.table(), *marks, *given.values(), *found.values()]
        pointers = (ctypes.c_void_p * len(tensors))(
            *(t.data_ptr() if t is not None else 0 for t in tensors)
        )
        name = "run_mailbox_backward" if self.backward else "run_mailbox_forward"
        sizes = (self.steps, self.batch, self.hidden, self.reverse, self.room, self.chunk)
        sizes = (*sizes, self.directions)
        said: bytes | None = getattr(cases.library, name)(
            CODES[self.dtype], int(self.cell), pointers, (ctypes.c_int64 * len(sizes))(*sizes)
        )
        return said.decode() if said else None, found

    def exact(self, inputs: Tensors | None = None) -> Tensors:
        """The CPU op's, in float64. Its results that are null here are empty."""
        taken = {
            name: t.double() if t is not None else None
            for name, t in (inputs or self.inputs()).items()
        }
        if self.masked and not self.backward:
            return masked_forward(taken, self.masks, self.cell, self.reverse)
        if self.masked:
            before = replace(self, backward=False).inputs()
            taken |= {n: t.double() for n in ("pre", "bias_hn") if (t := before[n]) is not None}
            return masked_backward(taken, self.masks, self.cell, self.reverse)
        sizes = torch.tensor(self.sizes()) if self.lengths else None
        code = int(self.cell)
        if not self.backward:
            names = ("y", "h_n", "c_n", "gates", "cells")
            results = torch.ops.fastseq.recurrence(
                *taken.values(), None, sizes, code, self.reverse, True
            )
            return dict(zip(names, results, strict=True))
        none = torch.empty(0, dtype=torch.float64)
        results = torch.ops.fastseq.recurrence_backward(
            *(taken[name] for name in ("grad_y", "grad_h_n", "grad_c_n")),
            None,
            None,
            taken["y"],
            *(none if taken[name] is None else taken[name] for name in ("gates", "cells")),
            *(taken[name] for name in ("h0", "c0", "weight_hh")),
            None,
            sizes,
            code,
            self.reverse,
        )
        names = ("grad_pre", "grad_aux", "grad_h0", "grad_c0")
        return dict(zip(names, results, strict=True))

    def check(self, cases: Machine) -> None:
        said, found = self.run(cases)
        assert said is None
        exact = self.exact()
        for name, tensor in found.items():
            expected = exact.get(name)
            if tensor is None or expected is None:
                continue
            if self.masked and name == "gates":  # nobody reads them beyond a length
                expected, tensor = self.masks.within(expected), self.masks.within(tensor)
            assert bool(tensor.isfinite().all()), f"{name} is not written, or not finite"
            off = (tensor.double() - expected).norm() / expected.norm()
            assert off < TOLERANCE[self.dtype], f"{name} is off by {off}"


def same(a: Tensors, b: Tensors) -> bool:
    """To the bit."""
    return all(
        torch.equal(t.view(torch.uint8), u.view(torch.uint8))
        for t, u in zip(a.values(), b.values(), strict=True)
        if t is not None and u is not None
    )


@both_ways
@each_dtype
@each_cell
def test_against_the_cpu_op(cell: Cell, dtype: torch.dtype, backward: bool, cases: Machine) -> None:
    for reverse in (False, True):
        Case(cell, dtype, backward, reverse=reverse).check(cases)


@both_ways
@each_cell
@pytest.mark.parametrize("reverse", [False, True])
def test_rows_of_different_lengths(
    reverse: bool, cell: Cell, backward: bool, cases: Machine
) -> None:
    ragged = Case(
        cell, torch.bfloat16, backward, 5, len(RAGGED), 24, reverse=reverse, lengths=RAGGED
    )
    ragged.check(cases)
    _, two_groups = ragged.run(cases)
    said, one = replace(ragged, room=6).run(cases)
    assert said is None
    assert same(one, two_groups)


@both_ways
@each_cell
@pytest.mark.parametrize(("batch", "hidden"), [(1, 1), (9, 8), (17, 31), (8, 128), (2, 97)])
def test_ends_of_tiles_and_blocks(
    batch: int, hidden: int, cell: Cell, backward: bool, cases: Machine
) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        Case(cell, dtype, backward, 2, batch, hidden).check(cases)


@both_ways
def test_eight_warps(backward: bool, cases: Machine) -> None:
    """Two teams share the tiles."""
    Case(Cell.LSTM, torch.bfloat16, backward, 3, 20, 150).check(cases)
    lengths = (3,) * 7 + (2,) * 8 + (1,) * 5
    Case(Cell.LSTM, torch.bfloat16, backward, 3, 20, 140, lengths=lengths).check(cases)


@both_ways
@each_cell
def test_few_steps_and_many_launches(cell: Cell, backward: bool, cases: Machine) -> None:
    """Not a bit depends on where a launch ends; the mailbox is the same memory in all of them."""
    ragged = Case(cell, torch.bfloat16, backward, 5, len(RAGGED), 24, lengths=RAGGED)
    for case in (
        Case(cell, torch.bfloat16, backward, 1, 2, 16),
        Case(cell, torch.float32, backward, 2, 2, 16),
        Case(cell, torch.bfloat16, backward, 7, 10, 16),
        ragged,
        replace(ragged, reverse=True),
    ):
        case.check(cases)
        _, whole = case.run(cases)
        for chunk in (1, 2, 3):
            said, found = replace(case, chunk=chunk).run(cases)
            assert said is None
            assert same(found, whole)


@both_ways
@each_cell
@pytest.mark.parametrize("reverse", [False, True])
def test_lengths_and_resets(reverse: bool, cell: Cell, backward: bool, cases: Machine) -> None:
    """In one launch and in many, and in one group of blocks or two: not a bit depends on that."""
    case = Case(cell, torch.bfloat16, backward, 6, 19, 24, reverse=reverse, masked=True)
    case.check(cases)
    _, whole = case.run(cases)
    for change in ({"chunk": 1}, {"chunk": 2}, {"chunk": 3}, {"room": 6}):
        said, found = replace(case, **change).run(cases)
        assert said is None
        assert same(found, whole)


@both_ways
def test_more_steps_than_a_launch_has(backward: bool, cases: Machine) -> None:
    Case(Cell.GRU, torch.float32, backward, 260, 1, 3).check(cases)


@both_ways
@pytest.mark.parametrize(
    ("cell", "dtype"), [(Cell.LSTM, torch.bfloat16), (Cell.GRU, torch.float32)], ids=str
)
def test_the_schedule_changes_nothing(
    cell: Cell, dtype: torch.dtype, backward: bool, cases: Machine
) -> None:
    """Words come late and in any order, and some blocks hardly run."""
    case = Case(cell, dtype, backward, batch=10)
    _, first = case.run(cases)
    for seed in range(20):
        cases.seed(seed)
        said, found = case.run(cases)
        assert said is None
        assert same(found, first)


@both_ways
def test_the_batch_changes_nothing(backward: bool, cases: Machine) -> None:
    """Nor how many groups of blocks there are: a row's bits are its own."""
    case = Case(Cell.LSTM, torch.bfloat16, backward, batch=26)
    _, groups = case.run(cases)
    for room in (8, 12):  # one group of four blocks; two
        said, found = replace(case, room=room).run(cases)
        assert said is None
        assert same(found, groups)
    inputs = case.inputs()

    def some(tensors: Tensors) -> Tensors:
        few: Tensors = {}
        for name, tensor in tensors.items():
            rows = tensor is not None and name not in {"weight_hh", "bias_hn"}
            few[name] = tensor[..., 9:20, :].contiguous() if rows and tensor is not None else tensor
        return few

    said, found = replace(case, batch=11).run(cases, some(inputs))
    assert said is None
    assert same(found, some(groups))


@each_cell
def test_what_may_be_null(cell: Cell, cases: Machine) -> None:
    Case(cell, torch.bfloat16, without=("bias_hn", "gates", "cells")).check(cases)
    gradients = ("grad_y", "grad_h_n", "grad_c_n")
    for kept in gradients[: 3 if cell == Cell.LSTM else 2]:
        null = tuple(name for name in gradients if name != kept)
        Case(cell, torch.bfloat16, backward=True, without=null).check(cases)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@each_cell
def test_infinity_and_every_nan(cell: Cell, dtype: torch.dtype, cases: Machine) -> None:
    """A NaN of all bits, in a whole word, is not taken for an empty one."""
    case = Case(cell, dtype, batch=4)
    inputs = case.inputs()
    pre = inputs["pre"]
    assert pre is not None
    bits = pre.view(torch.int16 if dtype == torch.bfloat16 else torch.int32)
    bits[0, 1] = -1
    bits[1, 2, 7] = -1
    pre[1, 3, 5] = float("inf")
    said, found = case.run(cases, inputs)
    assert said is None
    y, exact = found["y"], case.exact(inputs)["y"]
    assert y is not None
    assert exact is not None
    assert exact.isnan().any()
    assert torch.isclose(y.double(), exact, rtol=0.05, atol=0.05, equal_nan=True).all()


@both_ways
def test_who_does_not_fit_is_told(backward: bool, cases: Machine) -> None:
    def said(**changed: int) -> str | None:
        return replace(Case(Cell.GRU, torch.bfloat16, backward, 1, 1, 8), **changed).run(cases)[0]

    assert said(hidden=129) == "hidden_size is larger than the kernel"
    assert said(room=5) == "the device has no room for all blocks at once"
    assert said() is None


def test_how_a_call_is_divided(cases: Machine) -> None:
    """An H200 has 132 multiprocessors, and room for one block of the largest kernel on each."""

    def plan(*sizes: int, room: int = 132, directions: int = 1) -> tuple[int, ...]:
        numbers = (ctypes.c_int64 * 5)()
        asked = map(ctypes.c_int64, (*sizes, room, directions))
        assert cases.library.mailbox_numbers(*asked, numbers) is None
        blocks, groups, tiles, chunk, size = numbers
        assert size <= 2**25 + 4 * directions * (2**24 + sizes[1] * sizes[2])
        return blocks, groups, tiles, chunk

    assert plan(1024, 16, 768) == (48, 2, 1, 256)
    assert plan(1024, 16, 1024) == (64, 2, 1, 256)
    assert plan(1024, 44, 1024) == (64, 2, 3, 256)
    assert plan(100, 1, 513) == (34, 1, 1, 100)
    assert plan(1024, 200, 1024) == (64, 2, 13, 80)
    assert plan(1024, 16, 1024, room=68) == (64, 1, 2, 256)
    assert plan(1024, 16, 1024, directions=2) == (64, 1, 2, 256)
    assert plan(1024, 16, 512, directions=2) == (32, 2, 1, 256)
    assert plan(1024, 104, 1024, directions=2) == (64, 1, 13, 77)


@both_ways
def test_the_barriers_are_needed(backward: bool, cases: Machine) -> None:
    case = Case(Cell.LSTM, torch.bfloat16, backward)
    cases.forget_barriers()
    case.run(cases)
    barriers = cases.barriers()
    assert len(barriers) == 2
    for site in barriers:
        cases.drop_barrier(site)
        for seed in range(3):
            cases.seed(seed)
            said, _ = case.run(cases)
            assert said is not None
            assert "race: " in said or "nothing wrote" in said
