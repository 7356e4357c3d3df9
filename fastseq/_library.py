"""Find and load the compiled libraries, and explain in a paragraph when that cannot be done."""

from __future__ import annotations

import os
from pathlib import Path

import torch

OLDEST_TORCH = (2, 11)
LIBRARIES = Path(__file__).parent / "lib"
CPU_LIBRARY = LIBRARIES / "libfastseq_cpu.so"
CUDA_LIBRARY = LIBRARIES / "libfastseq_cuda.so"


def _check_torch() -> None:
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < OLDEST_TORCH:
        raise ImportError(
            f"fastseq needs torch {'.'.join(map(str, OLDEST_TORCH))} or newer, and this is torch "
            f"{torch.__version__}. Run 'pip install --upgrade torch'; fastseq need not be rebuilt."
        )


try:
    _check_torch()
    from fastseq import _C
except ImportError as error:
    if "fastseq needs torch" in str(error):
        raise
    raise ImportError(
        f"fastseq's compiled module fastseq._C could not be loaded ({error}). "
        f"It is looked for in {Path(__file__).parent}. If that is a source checkout, Python found "
        "it before the installed package: start from another folder, or run 'pip install -e .' "
        "there. Otherwise reinstall with 'pip install --force-reinstall --no-deps fastseq'; each "
        "Python version needs its own build."
    ) from error


def _check_capability() -> None:
    name = os.environ.get("FASTSEQ_CPU_CAPABILITY")
    if name and name not in _C.cpu_capabilities():
        raise ImportError(
            f"FASTSEQ_CPU_CAPABILITY is {name!r}, and this build on this machine offers "
            f"{', '.join(_C.cpu_capabilities())}. Unset the variable to use the fastest."
        )


def _load(path: Path) -> None:
    built = _C.build_info()
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        raise ImportError(
            f"fastseq could not load {path} ({error.__cause__ or error}). "
            f"It was built for torch {built['torch']}"
            f"{' and CUDA ' + built['cuda'] if built['cuda'] else ''} and found torch "
            f"{torch.__version__}. Rebuild it for this environment: 'pip install "
            "--force-reinstall --no-deps fastseq'."
        ) from error


def _load_cuda() -> str:
    """Load the CUDA kernels where torch has CUDA; the reason in words where they are not loaded."""
    if torch.version.cuda is None:
        return "not loaded: this torch has no CUDA"
    if not CUDA_LIBRARY.exists():
        return "not built: rebuild with FASTSEQ_CUDA=1 where nvcc is installed"
    _load(CUDA_LIBRARY)
    return "loaded"


_check_capability()
_load(CPU_LIBRARY)
cuda_status = _load_cuda()
