"""Build the recurrence's kernels as for AMX, over the tile unit of tiles_on_host.h."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from fastseq import _native

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
CPU = ROOT / "csrc/kernels/cpu"
SOURCES = [
    HERE / "library.cpp",
    *(CPU / f"{name}.cpp" for name in ("recurrence_forward", "recurrence_backward")),
]
# Vectors of 64 bytes are the compiler's own here, in halves; without -mf16c, whose are 32. Not
# optimized: compiling takes longer than the tests.
FLAGS = (
    "-std=gnu++20", "-O0", "-fPIC", "-fvisibility=hidden", "-pthread", "-Wall", "-Wextra",
    "-Werror", "-Wno-psabi", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math",
    "-DFASTSEQ_CAPABILITY=amx", "-DFASTSEQ_VECTOR_BYTES=64", "-DFASTSEQ_BF16_ALONE",
    "-DFASTSEQ_FEW_COPIES", "-DFASTSEQ_TILES_ON_HOST",
    *(f"-I{folder}" for folder in (ROOT / "csrc", HERE, HERE.parent)),
    *(("-mavx2", "-mfma") if "avx2" in _native.cpu_capabilities() else ()),
)  # fmt: skip


def compiler() -> str:
    found = shutil.which("c++") or shutil.which("g++")
    assert found, "the package cannot have been built without a C++ compiler"
    return found


def fingerprint() -> str:
    """Names the build: the sources and the flags."""
    digest = hashlib.sha256(repr((FLAGS, compiler())).encode())
    for path in sorted([*CPU.parent.glob("*.h"), *CPU.iterdir(), *HERE.iterdir()]):
        if path.suffix in {".h", ".cpp"}:
            digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def load(folder: Path) -> ctypes.CDLL:
    """The library, in ``folder`` unless it stands there already."""
    library = folder / f"amx-{fingerprint()}.so"
    with (folder / "amx.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            for stale in folder.glob("amx-*.so"):
                stale.unlink()
            partial = library.with_suffix(f".{os.getpid()}")
            command = [compiler(), *FLAGS, "-shared", *map(str, SOURCES), "-o", str(partial)]
            subprocess.run(command, check=True)
            partial.rename(library)
    loaded = ctypes.CDLL(str(library))
    for name in ("run_sweep", "run_transposed", "run_layer", "run_mistake"):
        getattr(loaded, name).restype = ctypes.c_char_p
    return loaded
