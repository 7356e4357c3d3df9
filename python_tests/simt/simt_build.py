"""Build the CUDA kernels and their ops for the host, over the machine of machine.h."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
OPS = ("persistent", "lrn", "trio", "pool", "recurrence")
# Switching fibers by longjmp looks like an error to the fortified C library.
FLAGS = (
    "-std=gnu++20", "-O1", "-fPIC", "-fvisibility=hidden", "-Wno-psabi", "-ffp-contract=off",
    "-U_FORTIFY_SOURCE", "-DFASTSEQ_SIMT", "-DTORCH_TARGET_VERSION=0x020b000000000000", f"-I{HERE}",
)  # fmt: skip


def compiler() -> str:
    found = shutil.which("c++") or shutil.which("g++")
    assert found, "the package cannot have been built without a C++ compiler"
    return found


def fingerprint() -> str:
    """Names the build: the sources, the flags and torch."""
    digest = hashlib.sha256(repr((FLAGS, OPS, torch.__version__, compiler())).encode())
    for folder in (ROOT / "csrc", HERE):
        for path in sorted(folder.rglob("*")):
            if path.suffix in {".h", ".cuh", ".cu", ".cpp"}:
                digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def compile_library(sources: list[Path], library: Path, *options: str) -> None:
    """Compile the sources, two at a time, and link them."""

    def compiled(source: Path) -> Path:
        to = library.with_name(f"{library.stem}-{source.name}.o")
        command = [compiler(), *FLAGS, *options, "-x", "c++", "-c", str(source), "-o", str(to)]
        subprocess.run(command, check=True)
        return to

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compiled, sources))
    lib = Path(torch.__file__).parent / "lib"
    subprocess.run(
        [compiler(), "-shared", *map(str, objects), f"-L{lib}", "-ltorch_cpu", "-o", str(library)],
        check=True,
    )
    for path in objects:
        path.unlink()


def built(folder: Path, name: str, sources: list[Path], *options: str) -> Path:
    """A library of the sources and the machine, in ``folder`` unless it stands there already."""
    library = folder / f"{name}-{fingerprint()}.so"
    # Of pytest's processes one builds, the others wait.
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if library.exists():
            return library
        for stale in folder.glob(f"{name}-*.so"):
            stale.unlink()
        partial = library.with_suffix(f".{os.getpid()}")
        compile_library([*sources, HERE / "machine.cpp"], partial, *options)
        partial.rename(library)
    return library


@dataclass(frozen=True)
class Moved:
    """Sums over a kind of requests, as ``traffic.h`` counts them."""

    requests: int
    lanes: int
    bytes: int
    units: int
    """Sectors, or wavefronts of shared memory."""
    least: int
    """Wavefronts, if no two lanes wanted the same bank."""


@dataclass
class Machine:
    """The settings of the machine that runs ``torch.ops.fastseq_simt``."""

    library: ctypes.CDLL

    def __post_init__(self) -> None:
        self.library.simt_seed.argtypes = [ctypes.c_uint64]
        self.library.simt_multiprocessors.argtypes = [ctypes.c_int]
        self.library.simt_drop_barrier.argtypes = [ctypes.c_char_p]
        self.library.simt_barriers.restype = ctypes.c_char_p
        self.library.simt_count_traffic.argtypes = [ctypes.c_bool]
        self.library.simt_traffic.restype = ctypes.c_char_p

    def seed(self, value: int) -> None:
        """Chooses the order in which threads and blocks run."""
        self.library.simt_seed(value)

    def multiprocessors(self, count: int = 0) -> None:
        """How many the machine has, each of which holds a block of the mailbox; 0: its own 8."""
        self.library.simt_multiprocessors(count)

    def restore(self) -> None:
        self.seed(1)
        self.library.simt_count_traffic(False)
        self.multiprocessors()
        self.drop_barrier("")

    def drop_barrier(self, site: str) -> None:
        """Makes the barrier ``file:line`` do nothing; the empty string restores it."""
        self.library.simt_drop_barrier(site.encode())

    def count_traffic(self) -> None:
        """Counts what the last launch from now on moves."""
        self.library.simt_count_traffic(True)

    def traffic(self) -> dict[str, Moved]:
        """What that launch moved, by tensor and direction: "x read", "shared write"."""
        moved = {}
        for line in self.library.simt_traffic().decode().splitlines():
            tensor, way, *sums = line.split()
            moved[f"{tensor} {way}"] = Moved(*map(int, sums))
        return moved

    def forget_barriers(self) -> None:
        self.library.simt_forget_barriers()

    def barriers(self) -> list[str]:
        """The barriers that launches have met since they were last forgotten."""
        return self.library.simt_barriers().decode().split()


def together(folder: Path) -> Path:
    """A source of all the ops."""
    files = [ROOT / "csrc/ops/memory.cpp", *(ROOT / f"csrc/ops/{op}_cuda.cpp" for op in OPS)]
    source = folder / f"simt-ops.{os.getpid()}.cpp"
    source.write_text("".join(f'#include "{path}"\n' for path in files))
    return source


def load(folder: Path) -> Machine:
    """All ops: registers ``torch.ops.fastseq_simt`` for CPU tensors."""
    # The longest ones first; the ops, which wait for torch's headers, together.
    sources = [HERE / "mailbox_library.cu"]
    sources += [ROOT / f"csrc/kernels/cuda/{op}.cu" for op in OPS]
    sources += [ROOT / "csrc/kernels/cuda/sequence_table.cu", together(folder)]
    include = ROOT / "third_party/torch/include"
    library = built(folder, "simt", sources, "-isystem", str(include))
    sources[-1].unlink()
    torch.ops.load_library(str(library))
    return Machine(ctypes.CDLL(str(library)))


def load_cases(folder: Path) -> Machine:
    """The kernels that the machine is tested with, over a machine of their own."""
    names = ("machine", "words", "mma", "mailbox", "traffic", "plan")
    sources = [HERE / f"{name}_cases.cu" for name in names]
    library = ctypes.CDLL(str(built(folder, "cases", sources, "-Wall", "-Wextra", "-Werror")))
    runs = ("run_mailbox", "run_mma", "run_tile", "run_ldmatrix", "run_copy")
    runs += ("run_mailbox_forward", "run_mailbox_backward", "mailbox_numbers")
    for name in ("run_case", "case_name", *runs):
        getattr(library, name).restype = ctypes.c_char_p
    library.litmus_outcome.restype = ctypes.c_int64
    return Machine(library)
