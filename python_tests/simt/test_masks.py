"""Lengths and resets in the loops of one launch, against the reference in float64.

By the op: Self, and the mailbox at the smallest sizes that it is taken for, whose launches
test_mailbox.py cuts elsewhere. What lies beyond a length is NaN here, and must reach nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from masked_cases import Masked, Tensors, draw_masks, masked_backward, masked_forward
from simt_build import Machine
from simt_cases import SIMT, poisoned
from torch import Tensor

from fastseq.ops import Cell, Forward
from fastseq.ops.persistent import PersistentBackward

TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 2e-2, torch.float16: 4e-3}
MAILBOX = [
    (Cell.LSTM, torch.float32, 97),
    (Cell.GRU, torch.bfloat16, 161),
    (Cell.RNN_TANH, torch.float16, 193),
]
each_cell = pytest.mark.parametrize("cell", list(Cell))


@pytest.fixture(autouse=True)
def room(machine: Machine) -> Iterator[None]:
    machine.multiprocessors(20)
    with poisoned():
        yield


@dataclass(frozen=True)
class Case:
    cell: Cell
    dtype: torch.dtype
    kinds: str = "LRS"
    steps: int = 5
    batch: int = 11
    hidden: int = 20
    reverse: bool = False
    seed: int = 0

    @property
    def masks(self) -> Masked:
        sizes = (self.steps, self.batch, self.hidden)
        return draw_masks(*sizes, self.cell, self.dtype, self.kinds, self.seed)

    @property
    def tail(self) -> tuple[Any, ...]:
        return None, *self.masks, int(self.cell), self.reverse

    def inputs(self) -> Tensors:
        generator = torch.Generator().manual_seed(self.hidden + self.seed)
        lstm, gru = self.cell == Cell.LSTM, self.cell == Cell.GRU
        rows, width = (self.steps, self.batch), self.cell.gates * self.hidden

        def draw(*shape: int, scale: float = 1.0) -> Tensor:
            return (torch.randn(shape, generator=generator) * scale).to(self.dtype)

        return {
            "pre": draw(*rows, width),
            "h0": draw(self.batch, self.hidden),
            "c0": draw(self.batch, self.hidden) if lstm else None,
            "weight_hh": draw(width, self.hidden, scale=1.5 * self.hidden**-0.5),
            "bias_hn": draw(self.hidden) if gru else None,
            "grad_y": draw(*rows, self.hidden),
            "grad_h_n": draw(self.batch, self.hidden),
            "grad_c_n": draw(self.batch, self.hidden) if lstm else None,
        }

    def beyond(self, rows: Tensor) -> Tensor:
        """Those beyond the lengths become NaN."""
        lengths = self.masks.lengths
        if lengths is not None:
            rows[torch.arange(self.steps).unsqueeze(-1) >= lengths] = float("nan")
        return rows

    def check(self) -> None:
        inputs = self.inputs()
        exact = {n: None if t is None else t.double() for n, t in inputs.items()}
        names = ("pre", "h0", "c0", "weight_hh", "bias_hn")
        pre, h0, c0, weight_hh, bias_hn = (inputs[n] for n in names)
        assert pre is not None
        given = (self.beyond(pre), h0, c0, weight_hh, bias_hn, None)
        found = Forward(*SIMT.recurrence_persistent(*given, *self.tail, True))
        right = masked_forward(exact, self.masks, self.cell, self.reverse)
        self.compare(found, right)

        y, gates, cells = (right[n] for n in ("y", "gates", "cells"))
        assert y is not None
        assert gates is not None
        assert cells is not None
        gates = self.beyond(gates.to(self.dtype)) if gates.numel() else gates.to(self.dtype)
        cells = self.beyond(cells.float()) if cells.numel() else cells.float()
        grads = (inputs["grad_y"], inputs["grad_h_n"], inputs["grad_c_n"], None, None)
        saved = (y.to(self.dtype), gates, cells, h0, c0, weight_hh, None)
        back = SIMT.recurrence_persistent_backward(*grads, *saved, *self.tail)
        right = masked_backward(exact, self.masks, self.cell, self.reverse)
        self.compare(PersistentBackward(*back), right)

    def compare(self, found: Any, right: Tensors) -> None:
        for name, tensor in found._asdict().items():
            expected = right.get(name)
            if expected is None or not expected.numel():
                assert not tensor.numel(), name
                continue
            assert tensor.shape == expected.shape, name
            if name == "gates":  # nobody reads them there
                tensor, expected = self.masks.within(tensor), self.masks.within(expected)
            assert bool(tensor.isfinite().all()), f"{name} is not written, or not finite"
            off = (tensor.double() - expected).norm() / expected.norm().clamp_min(1e-3)
            assert off < TOLERANCE[self.dtype], f"{name} is off by {off}"


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@each_cell
@pytest.mark.parametrize("reverse", [False, True])
def test_one_block(reverse: bool, cell: Cell, dtype: torch.dtype) -> None:
    """Self. There are two of them, for eleven rows."""
    for kinds in ("L", "R", "RS", "LRS") if dtype == torch.float16 else ("LRS",):
        Case(cell, dtype, kinds, steps=4, reverse=reverse).check()


@pytest.mark.parametrize(("cell", "dtype", "hidden"), MAILBOX, ids=str)
@pytest.mark.parametrize("reverse", [False, True])
def test_many_blocks(reverse: bool, cell: Cell, dtype: torch.dtype, hidden: int) -> None:
    Case(cell, dtype, hidden=hidden, reverse=reverse, batch=10).check()


@each_cell
def test_few_steps(cell: Cell) -> None:
    for steps in (1, 2):
        for reverse in (False, True):
            Case(cell, torch.float16, steps=steps, reverse=reverse).check()


def test_lengths_out_of_range_count_as_the_nearest_bound() -> None:
    """And on the device, where nobody waits to see them."""
    case = Case(Cell.GRU, torch.float16, "L")
    inputs = [case.inputs()[n] for n in ("pre", "h0", "c0", "weight_hh", "bias_hn")]
    lengths = torch.tensor([-1, -(2**40), 6, 2**40, 3] * 3)[: case.batch]
    tail = (None, None, None, None, int(case.cell), False, True)
    found = SIMT.recurrence_persistent(*inputs, None, *tail[:1], lengths, *tail[1:])
    within = SIMT.recurrence_persistent(*inputs, None, *tail[:1], lengths.clamp(0, 5), *tail[1:])
    for mine, right in zip(found[:3], within[:3], strict=True):
        assert torch.equal(mine, right)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({0: torch.tensor([1, 1])}, "packed batch takes neither lengths nor resets"),
        ({1: torch.ones(3)}, "lengths should be a 1-D int64 tensor of 11 numbers"),
        (
            {2: torch.ones(5, 10, dtype=torch.bool)},
            r"reset should be a bool tensor of shape \[5, 11",
        ),
        ({3: torch.ones(11, 19, dtype=torch.float16)}, "reset_h should have shape"),
        ({4: torch.ones(11, 20, dtype=torch.float16)}, "reset_c belongs to LSTM"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(change: dict[int, Tensor], words: str) -> None:
    case = replace(Case(Cell.GRU, torch.float16), batch=11)
    given = [case.inputs()[n] for n in ("pre", "h0", "c0", "weight_hh", "bias_hn")]
    tail = [*case.tail, True]
    for place, value in change.items():
        tail[place] = value
    if 0 in change:
        given[0] = torch.zeros(2, 60, dtype=torch.float16)
    with pytest.raises(RuntimeError, match=words):
        SIMT.recurrence_persistent(*given, None, *tail)
