"""All mutants, and what must hold of them as a list."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from .kernels_amx import KERNELS_AMX
from .kernels_images import KERNELS_IMAGES
from .kernels_mailbox import KERNELS_MAILBOX
from .kernels_recurrences import KERNELS_RECURRENCES
from .kernels_recurrences_cuda import KERNELS_RECURRENCES_CUDA
from .mutant import Mutant, Stale, with_switches
from .python_frozen import KERNELS_FROZEN, PYTHON_FROZEN
from .python_gradients import PYTHON_GRADIENTS
from .python_images import PYTHON_IMAGES
from .python_recurrences import PYTHON_RECURRENCES
from .python_routes import PYTHON_ROUTES
from .python_streams import PYTHON_STREAMS
from .python_swap import PYTHON_SWAP
from .tree import ROOT

MUTANTS = [
    *PYTHON_GRADIENTS,
    *PYTHON_IMAGES,
    *PYTHON_RECURRENCES,
    *PYTHON_STREAMS,
    *PYTHON_ROUTES,
    *PYTHON_SWAP,
    *PYTHON_FROZEN,
    *KERNELS_IMAGES,
    *KERNELS_RECURRENCES,
    *KERNELS_AMX,
    *KERNELS_RECURRENCES_CUDA,
    *KERNELS_MAILBOX,
    *KERNELS_FROZEN,
]


def check(mutants: Iterable[Mutant], root: Path = ROOT) -> None:
    """Every snippet is where its mutant looks for it; all that are not are named at once.

    Raises:
        Stale: a mutant must be aimed anew.
    """
    complaints, by_file = [], defaultdict(list)
    for mutant in mutants:
        by_file[mutant.file].append(mutant)
    for file, group in by_file.items():
        path = root / file
        if not path.exists():
            complaints += [f"mutant '{m.name}' is of {file}, which is not there" for m in group]
            continue
        text, found = path.read_text(), []
        for mutant in group:
            try:
                mutant.span(text)
                found.append(mutant)
            except Stale as stale:
                complaints.append(str(stale))
        if group[0].compiled:
            try:
                with_switches(text, found, "mutants.h")
            except Stale as stale:
                complaints.append(str(stale))
    if complaints:
        raise Stale("\n".join(complaints))
