"""The recurrence over many blocks that hand h to each other, against the CPU op in float64.

What this proves: where every weight, word and row lies; the words' protocol, under late and
reordered words and blocks that hardly run. What it does not: that the weights stay in registers
(test_cuda_compile.py), and how fast it is.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field, replace

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
Tensors = dict[str, Tensor | None]


@dataclass(frozen=True)
class Case:
    cell: Cell
    dtype: torch.dtype
    steps: int = 3
    batch: int = 3
    hidden: int = 40
    reverse: bool = False
    bias: bool = True
    save: bool = True
    lengths: tuple[int, ...] = ()  # longest first; none: all have all steps
    chunk: int = 0  # steps of a launch, at most; 0: as many as the plan says
    room: int = 16  # multiprocessors, of which the plan leaves some free

    @property
    def sizes(self) -> list[int]:
        return [sum(n > t for n in self.lengths) for t in range(self.steps)]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of y, but for its last dimension."""
        return (sum(self.lengths),) if self.lengths else (self.steps, self.batch)

    def inputs(self) -> Tensors:
        generator = torch.Generator().manual_seed(self.hidden)
        lstm, gru = self.cell == Cell.LSTM, self.cell == Cell.GRU
        width = self.cell.gates * self.hidden

        def draw(*shape: int, scale: float = 1.0) -> Tensor:
            return (torch.randn(shape, generator=generator) * scale).to(self.dtype)

        state = (self.batch, self.hidden)
        return {
            "pre": draw(*self.shape, width),
            "h0": draw(*state),
            "c0": draw(*state) if lstm else None,
            "weight_hh": draw(width, self.hidden, scale=1.5 * self.hidden**-0.5),
            "bias_hn": draw(self.hidden) if gru and self.bias else None,
        }

    def offsets(self) -> Tensor | None:
        if not self.lengths:
            return None
        return torch.tensor([0, *self.sizes], dtype=torch.int32).cumsum(0, dtype=torch.int32)

    def call(self, cases: Machine, name: str, inputs: Tensors, outputs: Tensors) -> str | None:
        tensors = [*inputs.values(), self.offsets(), *outputs.values()]
        pointers = (ctypes.c_void_p * len(tensors))(
            *(t.data_ptr() if t is not None else 0 for t in tensors)
        )
        sizes = map(ctypes.c_int64, (self.steps, self.batch, self.hidden))
        said: bytes | None = getattr(cases.library, name)(
            CODES[self.dtype],
            int(self.cell),
            pointers,
            *sizes,
            self.reverse,
            ctypes.c_int64(self.room),
            ctypes.c_int64(self.chunk),
        )
        return said.decode() if said else None

    def empty(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.full(shape, float("nan"), dtype=dtype or self.dtype)

    def run(self, cases: Machine, inputs: Tensors | None = None) -> tuple[str | None, Tensors]:
        lstm, cached = self.cell == Cell.LSTM, 4 if self.cell in {Cell.LSTM, Cell.GRU} else 0
        state, every = (self.batch, self.hidden), (*self.shape, self.hidden)
        saved = self.empty(*self.shape, cached * self.hidden)
        found = {
            "y": self.empty(*every),
            "h_n": self.empty(*state),
            "c_n": self.empty(*state) if lstm else None,
            "gates": saved if cached and self.save else None,
            "cells": self.empty(*every, dtype=torch.float32) if lstm and self.save else None,
        }
        return self.call(cases, "run_mailbox_forward", inputs or self.inputs(), found), found

    def exact(self, inputs: Tensors | None = None) -> Tensors:
        doubles = [t.double() if t is not None else None for t in (inputs or self.inputs()).values()]
        sizes = torch.tensor(self.sizes) if self.lengths else None
        results = torch.ops.fastseq.recurrence(
            *doubles, None, sizes, int(self.cell), self.reverse, True
        )
        return dict(zip(("y", "h_n", "c_n", "gates", "cells"), results, strict=True))

    def check(self, cases: Machine) -> None:
        said, found = self.run(cases)
        assert said is None
        close(found, self.exact(), self.dtype)


def close(found: Tensors, exact: Tensors, dtype: torch.dtype) -> None:
    for name, tensor in found.items():
        if tensor is None:
            continue
        expected = exact[name]
        assert expected is not None
        assert bool(tensor.isfinite().all()), f"{name} is not written, or not finite"
        off = (tensor.double() - expected).norm() / expected.norm()
        assert off < TOLERANCE[dtype], f"{name} is off by {off}"


@each_dtype
@each_cell
def test_against_the_cpu_op(cell: Cell, dtype: torch.dtype, cases: Machine) -> None:
    for reverse in (False, True):
        Case(cell, dtype, reverse=reverse).check(cases)
