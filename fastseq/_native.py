"""What the CPU library tells beside its ops: the machine's instruction sets, and the planner.

Plain C functions (``csrc/facts.cpp``), called by ctypes: no tensor crosses, and one build serves
every version of Python.
"""

from __future__ import annotations

import ctypes
import re
from functools import lru_cache
from typing import NamedTuple

from fastseq._build import CPU_LIBRARY, CUDA_LIBRARY


class RecurrencePlan(NamedTuple):
    """How the CPU kernels split a recurrence.

    Attributes:
        threads: in use.
        batches: slices of the batch, each with a time loop of its own.
        units: slices of the hidden units, which meet after every step.
    """

    threads: int
    batches: int
    units: int


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(CPU_LIBRARY))
    library.fastseq_capability_name.restype = ctypes.c_char_p
    library.fastseq_plan_recurrence.argtypes = [
        ctypes.c_int,
        *([ctypes.c_int64] * 6),
        ctypes.POINTER(ctypes.c_int64),
    ]
    library.fastseq_plan_recurrence.restype = None
    library.fastseq_ask_for_plan.argtypes = [ctypes.c_int64] * 3
    library.fastseq_ask_for_plan.restype = None
    library.fastseq_caches.argtypes = [ctypes.POINTER(ctypes.c_int64)]
    library.fastseq_caches.restype = None
    library.fastseq_persistent_kernel.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64]
    library.fastseq_persistent_kernel.restype = ctypes.c_char_p
    return library


def _name(i: int) -> str | None:
    name: bytes | None = _library().fastseq_capability_name(i)
    return None if name is None else name.decode()


def cpu_capabilities() -> list[str]:
    """Instruction sets that this build contains and this machine has, slowest first.

    The last but ``amx`` is the one whose kernels run unless another is asked for: no CPU has shown
    that those of ``amx`` are right.
    """
    names: list[str] = []
    i = 0
    while (name := _name(i)) is not None:
        if _library().fastseq_capability_available(i):
            names.append(name)
        i += 1
    return names


def cpu_capability() -> str:
    """The instruction set whose kernels run."""
    name = _name(_library().fastseq_capability())
    assert name is not None
    return name


class Caches(NamedTuple):
    """Bytes of the data caches that a core reads through; the last may be shared with others."""

    l1: int
    l2: int
    l3: int


def caches() -> Caches:
    """Those of this machine's first core, or common ones where the system does not tell."""
    found = (ctypes.c_int64 * 3)()
    _library().fastseq_caches(found)
    return Caches(*found)


_PLAN = re.compile(r"(\d{1,5})x(\d{1,5})(?:/(\d{1,6}))?")


def ask_for_plan(text: str | None) -> None:
    """Make every recurrence on the CPU, from now on, be split in one way, for measurements.

    What a shape or the threads do not allow is done as near to it as they do.

    Args:
        text: "BATCHESxUNITS", slices of the batch and of the hidden units, as in "2x1"; or
            "BATCHESxUNITS/ROWS", with rows of the input product that are made at a time. None: the
            planner chooses again.

    Raises:
        ValueError: the text is something else.
    """
    asked = [0, 0, 0]
    if text is not None:
        match = _PLAN.fullmatch(text)
        asked = [int(n or 0) for n in match.groups()] if match else asked
        if not all(asked[:2]):
            raise ValueError(
                f"a plan was {text!r}, and should be BATCHESxUNITS or BATCHESxUNITS/ROWS, as in "
                "'2x1' or '1x2/96'"
            )
    _library().fastseq_ask_for_plan(*asked)


def plan_recurrence(
    cell: int, steps: int, batch: int, input: int, hidden: int, state: int, threads: int
) -> RecurrencePlan:
    """How a recurrence of this shape is split over CPU threads.

    Args:
        cell: a code of ``fastseq.ops.Cell``.
        steps: T.
        batch: B.
        input: I.
        hidden: H.
        state: R, which is H without a projection.
        threads: those allowed.
    """
    if not 0 <= cell <= 3:
        raise ValueError(f"cell should be 0, 1, 2 or 3, got {cell}")
    made = (ctypes.c_int64 * 3)()
    _library().fastseq_plan_recurrence(cell, steps, batch, input, hidden, state, threads, made)
    return RecurrencePlan(*made)


def persistent_kernel(cell: int, itemsize: int, hidden: int) -> str:
    """The CUDA kernel that runs all steps of such a layer in one launch, built or not; or "".

    Args:
        cell: a code of ``fastseq.ops.Cell``.
        itemsize: bytes of a number; those of 4 are multiplied as TF32.
        hidden: H.
    """
    if not 0 <= cell <= 3:
        raise ValueError(f"cell should be 0, 1, 2 or 3, got {cell}")
    name: bytes = _library().fastseq_persistent_kernel(cell, itemsize, hidden)
    return name.decode()


@lru_cache(maxsize=1)
def _cuda_library() -> ctypes.CDLL | None:
    """None where this build has no CUDA kernels."""
    return _with_room(ctypes.CDLL(str(CUDA_LIBRARY))) if CUDA_LIBRARY.exists() else None


def _with_room(library: ctypes.CDLL) -> ctypes.CDLL:
    library.fastseq_persistent_room.argtypes = [
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_int64,
    ]
    library.fastseq_persistent_room.restype = ctypes.c_int
    return library


def persistent_room(cell: int, itemsize: int, hidden: int, batch: int, directions: int) -> bool:
    """Whether the current CUDA device holds all blocks of such a layer's kernel at once.

    Args:
        cell: a code of ``fastseq.ops.Cell``.
        itemsize: bytes of a number; those of 4 are multiplied as TF32.
        hidden: H, for which there is a kernel.
        batch: B.
        directions: in one launch, 1 or 2.
    """
    library = _cuda_library()
    return library is not None and bool(
        library.fastseq_persistent_room(cell, itemsize, hidden, batch, directions)
    )
