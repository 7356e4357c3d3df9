"""Both directions of a layer in one launch make, to the bit, what two launches make.

Those are held to float64 by test_self.py, test_mailbox.py and test_masks.py. Each direction has
tensors of its own here, so that whoever reads the other one's is seen; and the machine holds a
launch to its tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import test_mailbox
import test_masks
import test_self
import torch
from masked_cases import Masked, Tensors
from simt_build import Machine
from simt_cases import SIMT, poisoned
from test_mailbox import RAGGED, both_ways
from test_self import each_cell, each_dtype
from torch import Tensor

from fastseq.ops import Cell

OTHER = 50  # seed of the second direction
each_reverse = pytest.mark.parametrize("reverse", [False, True])


def stacked(*of_directions: Any) -> list[Tensor | None]:
    """Tensors of both directions, with the dimension of 2 in front; empty ones as they are."""
    return [
        None if pair[0] is None else torch.stack(pair) if pair[0].numel() else pair[0]
        for pair in zip(*of_directions, strict=True)
    ]


def assert_same(found: Any, expected: Any) -> None:
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert (a is None) == (b is None)
        if a is None or b is None:
            continue
        assert a.shape == b.shape
        assert torch.equal(a.view(torch.uint8), b.view(torch.uint8)), f"result {i}"


# ---- by the ops


@pytest.fixture(autouse=True)
def room(machine: Machine) -> Iterator[None]:
    machine.multiprocessors(36)
    with poisoned():
        yield


def check_loops(case: test_self.Case) -> None:
    """Dense or packed."""
    one, two = alone = (case, replace(case, reverse=not case.reverse, seed=OTHER))
    found = SIMT.recurrence_persistent(*stacked(*(c.inputs() for c in alone)), *case.tail, True)
    assert_same(found, stacked(one.forward(), two.forward()))
    given = stacked(*([*c.gradients(), *c.saved()] for c in alone))
    found = SIMT.recurrence_persistent_backward(*given, *case.tail)
    assert_same(found, stacked(one.backward(), two.backward()))


def stacked_masks(of_directions: list[Masked]) -> list[Tensor | None]:
    """Lengths and marks are of both directions."""
    one = of_directions[0]
    return [one.lengths, one.reset, *stacked(*(m[2:] for m in of_directions))]


def check_masks(case: test_masks.Case) -> None:
    """Lengths and resets; rows and what was saved of them are NaN beyond a length."""
    alone = (case, replace(case, reverse=not case.reverse, seed=OTHER))
    code = int(case.cell)
    tail = (None, *stacked_masks([c.masks for c in alone]), code, case.reverse)
    forward = [[c.inputs()[n] for n in ("pre", "h0", "c0", "weight_hh", "bias_hn")] for c in alone]
    for c, (pre, *_) in zip(alone, forward, strict=True):
        assert pre is not None
        c.beyond(pre)
    made = [
        SIMT.recurrence_persistent(*own, None, *c.tail, True)
        for c, own in zip(alone, forward, strict=True)
    ]
    found = SIMT.recurrence_persistent(*stacked(*forward), None, *tail, True)
    assert_known(found, stacked(*made), case)
    given: list[list[Tensor | None]] = []
    for c, (_, h0, c0, weight_hh, _), (y, _, _, gates, cells) in zip(
        alone, forward, made, strict=True
    ):
        grads = [c.inputs()[f"grad_{n}"] for n in ("y", "h_n", "c_n")]
        given.append([*grads, None, None, y, gates, cells, h0, c0, weight_hh, None])
    expected = [
        SIMT.recurrence_persistent_backward(*own, *c.tail)
        for c, own in zip(alone, given, strict=True)
    ]
    found = SIMT.recurrence_persistent_backward(*stacked(*given), *tail)
    assert_same(found, stacked(*expected))


def assert_known(found: Any, expected: Any, case: test_masks.Case) -> None:
    """Of gates, nothing is known beyond a length."""
    *found, gates, cells = found
    *expected, right, right_cells = expected
    assert_same([*found, cells], [*expected, right_cells])
    if gates.numel():
        gates, right = ([case.masks.within(t) for t in both] for both in (gates, right))
    assert_same(gates, right)


@each_dtype
@each_cell
@pytest.mark.parametrize("sizes", [(), test_self.RAGGED], ids=["dense", "packed"])
def test_one_block(cell: Cell, dtype: torch.dtype, sizes: tuple[int, ...]) -> None:
    """Self, dense and packed; six rows, one of which takes part in no step."""
    for reverse in (False, True):
        check_loops(test_self.Case(cell, dtype, 3, 6, sizes=sizes, reverse=reverse))


@each_cell
def test_ends_of_blocks_and_warps(cell: Cell) -> None:
    for batch, hidden, steps in ((1, 1, 1), (8, 64, 2), (17, 31, 2), (2, 65, 2)):
        check_loops(test_self.Case(cell, torch.bfloat16, steps, batch, hidden))


def test_fewer_rows_of_steps_than_of_states() -> None:
    check_loops(test_self.Case(Cell.LSTM, torch.float16, batch=9, sizes=(2, 1)))


@each_cell
@each_reverse
def test_lengths_and_resets_of_one_block(reverse: bool, cell: Cell) -> None:
    for kinds in ("LRS", "L", "R"):
        check_masks(test_masks.Case(cell, torch.bfloat16, kinds, steps=4, reverse=reverse))


def test_many_blocks() -> None:
    """The mailbox, as the op plans it: packed, with lengths and resets, of two tiles."""
    check_loops(test_self.Case(Cell.LSTM, torch.float32, 2, 2, 97, sizes=(2, 1)))
    check_masks(test_masks.Case(Cell.GRU, torch.bfloat16, steps=2, batch=3, hidden=161))
    check_loops(test_self.Case(Cell.RNN_TANH, torch.float16, 1, 9, 193, reverse=True))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({0: (3, 2, 60)}, r"shape \[2, T, 2"),
        ({1: (2, 20)}, "h0 and weight_hh should be 3-D"),
        ({1: (3, 2, 20)}, r"h0 should have shape \[2, 2, 20\]"),
        ({3: (3, 60, 20)}, r"weight_hh should have shape \[2, 60, 20\]"),
        ({4: (20,)}, r"bias_hn should have shape \[2, 20\]"),
    ],
    ids=str,
)
def test_what_is_of_one_direction_alone_is_refused(
    change: dict[int, tuple[int, ...]], words: str
) -> None:
    case = test_self.Case(Cell.GRU, torch.float16, 3, 2)
    given = stacked(case.inputs(), case.inputs())
    for place, shape in change.items():
        given[place] = torch.zeros(shape, dtype=torch.float16)
    with pytest.raises(RuntimeError, match=words):
        SIMT.recurrence_persistent(*given, *case.tail, True)


def test_no_room_for_both(machine: Machine) -> None:
    """The op says so; who asks for room before goes one direction after the other."""
    machine.multiprocessors(16)
    case = test_self.Case(Cell.LSTM, torch.float32, 1, 1, 97)
    case.forward()
    given = stacked(case.inputs(), case.inputs())
    with pytest.raises(RuntimeError, match="no room for all blocks at once"):
        SIMT.recurrence_persistent(*given, *case.tail, True)


# ---- the mailbox's kernels, cut as the library cuts larger ones


class Both(test_mailbox.Case):
    """A case of both directions: numbers of its own for each."""

    directions = 2

    @property
    def alone(self) -> tuple[test_mailbox.Case, test_mailbox.Case]:
        one = test_mailbox.Case(**vars(self))
        return one, replace(one, reverse=not self.reverse, seed=OTHER)

    @property
    def masks(self) -> Masked:
        return Masked(*stacked_masks([case.masks for case in self.alone]))

    def inputs(self) -> Tensors:
        return self._joined(lambda case: case.inputs())

    def outputs(self) -> Tensors:
        return self._joined(lambda case: case.outputs())

    def expected(self, cases: Machine) -> Tensors:
        """By two calls."""

        def made(case: test_mailbox.Case) -> Tensors:
            said, found = case.run(cases)
            assert said is None
            return found

        return self._joined(made)

    def _joined(self, of: Callable[[test_mailbox.Case], Tensors]) -> Tensors:
        one, two = (of(case) for case in self.alone)
        return dict(zip(one, stacked(one.values(), two.values()), strict=True))

    def check(self, cases: Machine) -> None:
        """In one launch and in many, and with one group of blocks a direction."""
        expected = self.expected(cases)
        one_group = 4 + 2 * ((self.hidden + 31) // 32 * 2)
        for change in ({}, {"chunk": 1}, {"chunk": 2}, {"room": one_group}):
            said, found = replace(self, **change).run(cases)
            assert said is None
            assert_same(found.values(), expected.values())


@both_ways
@each_dtype
@each_cell
def test_a_launch_of_many_blocks(
    cell: Cell, dtype: torch.dtype, backward: bool, cases: Machine
) -> None:
    """Three tiles in one or two groups of each direction, the last of which has one row."""
    Both(cell, dtype, backward, 3, 17, 24, room=12).check(cases)


@both_ways
@each_cell
@each_reverse
def test_ragged_rows_of_many_blocks(
    reverse: bool, cell: Cell, backward: bool, cases: Machine
) -> None:
    ragged = {"lengths": RAGGED, "steps": 5, "batch": len(RAGGED)}
    Both(cell, torch.bfloat16, backward, hidden=24, reverse=reverse, **ragged).check(cases)
    masked = Both(cell, torch.bfloat16, backward, 5, 9, 24, reverse=reverse, masked=True)
    masked.check(cases)


@both_ways
@pytest.mark.parametrize(("batch", "hidden"), [(1, 1), (2, 97)])
def test_ends_of_tiles_and_blocks(batch: int, hidden: int, backward: bool, cases: Machine) -> None:
    Both(Cell.GRU, torch.bfloat16, backward, 2, batch, hidden, room=20).check(cases)


@both_ways
def test_the_schedule_changes_nothing(backward: bool, cases: Machine) -> None:
    """Words come late and in any order, and some blocks of a direction hardly run."""
    case = Both(Cell.LSTM, torch.bfloat16, backward, batch=10, hidden=24, room=12)
    expected = case.expected(cases)
    for seed in range(20):
        cases.seed(seed)
        said, found = case.run(cases)
        assert said is None
        assert_same(found.values(), expected.values())


@both_ways
def test_who_does_not_fit_is_told(backward: bool, cases: Machine) -> None:
    """Two blocks of each direction, beside the four that are left free."""
    case = Both(Cell.GRU, torch.bfloat16, backward, 1, 1, 8)
    assert replace(case, room=7).run(cases)[0] == "the device has no room for all blocks at once"
    assert replace(case, room=8).run(cases)[0] is None
