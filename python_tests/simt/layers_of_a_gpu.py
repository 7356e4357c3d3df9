"""The CPU with the layers of a GPU, whose time loops the machine runs."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from cuda_stand_in import persistent_kernels
from simt_build import Machine
from simt_cases import SIMT

from fastseq.functional import stack
from fastseq.ops import Cell, extended_layer_cuda, layer_cuda, persistent

FORWARD, BACKWARD = "recurrence_persistent", "recurrence_persistent_backward"
Loops = list[str]


def _room(machine: Machine) -> Any:
    """What the machine says in place of a GPU."""
    ask = machine.library.fastseq_persistent_room
    ask.argtypes = [ctypes.c_int, ctypes.c_int, *[ctypes.c_int64] * 3]

    def asked(
        _: torch.device, cell: Cell, itemsize: int, hidden: int, tiles: int, directions: int
    ) -> bool:
        return bool(ask(cell, itemsize, hidden, tiles * persistent.TILE, directions))

    return asked


@contextmanager
def layers_of_a_gpu(machine: Machine) -> Iterator[Loops]:
    """Yields the time loops that run, by the names of their ops."""
    seen: Loops = []
    library = torch.library.Library("fastseq", "IMPL")

    def noted(name: str) -> Any:
        loop = getattr(SIMT, name)

        def run(*args: Any) -> Any:
            seen.append(name)
            return loop(*args)

        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(persistent, "DEVICES", {"cpu"})
        patch.setattr(persistent, "capability", lambda device: (9, 0))
        patch.setattr(persistent, "tf32", lambda single: True)
        patch.setattr(persistent, "_room", _room(machine))
        for name in (FORWARD, BACKWARD):
            library.impl(name, noted(name), "CPU")
        for name in ("recurrence", "recurrence_backward"):
            library.impl(name, noted(name), "CPU", allow_override=True)
        for name in ("layer", "layer_backward"):
            library.impl(name, getattr(layer_cuda, name), "CPU", allow_override=True)
        for name in ("extended_layer", "extended_layer_backward"):
            kernel = getattr(extended_layer_cuda, name)
            library.impl(name, kernel, "CPU", allow_override=True)
        for module in (stack, sys.modules["fastseq.autograd.extended_layer"]):
            patch.setattr(module, "KERNEL_DEVICES", frozenset({"meta"}))
        with persistent_kernels():
            yield seen
        library._destroy()
