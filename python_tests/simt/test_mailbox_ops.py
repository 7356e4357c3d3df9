"""The mailbox by its ops: the smallest sizes for which one block has no registers.

test_mailbox.py looks at the kernels themselves. Here: that an op chooses them, divides the call,
gives them memory and the steps of a packed batch, and is refused where a device has no room.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from simt_build import Machine
from simt_cases import poisoned
from test_self import Case

from fastseq.ops import Cell

ENOUGH = 20  # multiprocessors: sixteen blocks, and four that are left free
TOO_FEW = 8
# Units of blocks of 16 whose kernels are for 256 units, and of an RNN for 1,024.
SIZES = [
    (Cell.LSTM, torch.float32, 97),
    (Cell.GRU, torch.float32, 97),
    (Cell.LSTM, torch.bfloat16, 129),
    (Cell.GRU, torch.float16, 162),
    (Cell.RNN_TANH, torch.float32, 129),
    (Cell.RNN_RELU, torch.float16, 194),
]
each_size = pytest.mark.parametrize(("cell", "dtype", "hidden"), SIZES, ids=str)


@pytest.fixture(autouse=True)
def room(machine: Machine) -> Iterator[None]:
    machine.multiprocessors(ENOUGH)
    with poisoned():
        yield


@each_size
@pytest.mark.parametrize("sizes", [(), (9, 4, 1)], ids=["dense", "packed"])
def test_against_the_cpu_op(
    cell: Cell, dtype: torch.dtype, hidden: int, sizes: tuple[int, ...]
) -> None:
    batch, reverse = (9, True) if sizes else (2, False)
    case = Case(cell, dtype, 3, batch, hidden, sizes, reverse)
    case.check()


def test_without_saving_and_without_a_bias() -> None:
    case = Case(Cell.GRU, torch.float32, steps=2, batch=1, hidden=97, bias=False, save=False)
    y, h_n, *_ = case.forward()
    saving = replace(case, save=True).forward()
    assert y is not None
    assert h_n is not None
    assert saving[0] is not None
    assert torch.equal(y, saving[0])
    assert torch.equal(y[-1], h_n)


def test_a_device_without_room_says_so(machine: Machine) -> None:
    machine.multiprocessors(16)  # of which four are left free
    case = Case(Cell.LSTM, torch.float32, steps=1, batch=1, hidden=97)
    ask = machine.library.fastseq_persistent_room
    assert ask(int(case.cell), 4, 97, 1, 1)
    assert ask(int(case.cell), 4, 97, 400, 1)
    assert not ask(int(case.cell), 4, 97, 100_000, 1)  # a block's shared memory
    assert ask(int(case.cell), 2, 192, 1, 1)
    assert not ask(int(case.cell), 2, 193, 1, 1)  # 14 blocks
    assert not ask(int(case.cell), 4, 97, 1, 2)  # 8 of each direction
    machine.multiprocessors(20)
    assert ask(int(case.cell), 4, 97, 1, 2)
    machine.multiprocessors(TOO_FEW)
    assert not ask(int(case.cell), 4, 97, 1, 1)
    assert ask(int(case.cell), 4, 96, 100_000, 2)  # Self waits for nobody
    for call in (case.forward, case.backward):
        with pytest.raises(RuntimeError, match="no room for all blocks at once"):
            call()


def test_a_row_without_a_step_keeps_its_state() -> None:
    """A PackedSequence has none."""
    Case(Cell.LSTM, torch.float32, steps=2, batch=3, hidden=97, sizes=(2, 1)).check()
