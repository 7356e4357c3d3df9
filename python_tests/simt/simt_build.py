"""Build the CUDA recurrence for the host: the same sources, kernels run thread by thread."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]


def load(folder: Path, *defines: str, name: str = "simt") -> None:
    """Compile into ``folder`` and load: registers ``torch.ops.fastseq_simt`` for CPU tensors."""
    compiler = shutil.which("c++") or shutil.which("g++")
    assert compiler, "the package cannot have been built without a C++ compiler"
    torch_dir = Path(torch.__file__).parent
    library = folder / f"{name}.so"
    subprocess.run(
        [
            compiler,
            "-std=gnu++20", "-O1", "-fPIC", "-shared", "-fvisibility=hidden", "-Wno-psabi",
            "-DFASTSEQ_SIMT", "-DTORCH_TARGET_VERSION=0x020b000000000000", *defines,
            "-isystem", str(torch_dir / "include"),
            str(ROOT / "csrc/ops/recurrence_cuda.cpp"),
            "-x", "c++", str(ROOT / "csrc/kernels/cuda/recurrence.cu"),
            f"-L{torch_dir / 'lib'}", "-ltorch_cpu",
            "-o", str(library),
        ],
        check=True,
    )  # fmt: skip
    torch.ops.load_library(str(library))
