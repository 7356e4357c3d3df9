"""Where the compiled libraries lie, and what they were built with."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

LIBRARIES = Path(__file__).parent / "lib"
CPU_LIBRARY = LIBRARIES / "libfastseq_cpu.so"
CUDA_LIBRARY = LIBRARIES / "libfastseq_cuda.so"
_FACTS = LIBRARIES / "build.json"  # a file, and not in a library: one that fails to load can't tell


@lru_cache(maxsize=1)
def build_info() -> dict[str, str]:
    """The version, and the torch, compiler, CUDA toolkit and architectures of this build.

    Raises:
        ImportError: there are no libraries beside this file.
    """
    try:
        facts: dict[str, str] = json.loads(_FACTS.read_text())
    except FileNotFoundError:
        raise ImportError(
            f"fastseq's compiled libraries are not in {LIBRARIES}. If that is a source checkout, "
            "Python found it before the installed package: start from another folder, or run "
            "'pip install -e .' there. Otherwise reinstall with 'pip install --force-reinstall "
            "--no-deps fastseq'."
        ) from None
    return facts
