"""Find and load the compiled libraries, and explain in a paragraph when that cannot be done."""

from __future__ import annotations

import ctypes
import os
import warnings
from pathlib import Path

import torch

from fastseq import _native
from fastseq._build import CPU_LIBRARY, CUDA_LIBRARY, build_info

OLDEST_TORCH = (2, 11)


def _check_torch() -> None:
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < OLDEST_TORCH:
        raise ImportError(
            f"fastseq needs torch {'.'.join(map(str, OLDEST_TORCH))} or newer, and this is torch "
            f"{torch.__version__}. Run 'pip install --upgrade torch'; fastseq need not be rebuilt."
        )


def _check_capability() -> None:
    name = os.environ.get("FASTSEQ_CPU_CAPABILITY")
    if name and name not in _native.cpu_capabilities():
        raise ImportError(
            f"FASTSEQ_CPU_CAPABILITY is {name!r}, and this build on this machine offers "
            f"{', '.join(_native.cpu_capabilities())}. Unset the variable to use the fastest."
        )


def _check_plan() -> None:
    if text := os.environ.get("FASTSEQ_PLAN"):
        try:
            _native.ask_for_plan(text)
        except ValueError as error:
            raise ImportError(
                f"FASTSEQ_PLAN: {error}. Unset it to leave the choice to us."
            ) from None


def _load(path: Path) -> None:
    built = build_info()
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


def _driver() -> int:
    """The newest CUDA that the driver knows, as in 12080; 0 without one. Starts nothing."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    version = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    return version.value


def _old_driver(built: str, driver: int) -> str | None:
    """What is wrong with a driver for kernels built with a CUDA toolkit, if anything.

    Args:
        built: the toolkit's version, as in "13.0.88".
        driver: as :func:`_driver` says.
    """
    major = int(built.split(".")[0])
    if not 0 < driver < 1000 * major:
        return None
    return (
        f"fastseq's CUDA kernels were built with CUDA {built} and need a driver that knows CUDA "
        f"{major}; this one knows CUDA {driver // 1000}.{driver % 1000 // 10}. They will fail. "
        f"Update the driver, or rebuild fastseq with a CUDA {driver // 1000} toolkit."
    )


def _load_cuda() -> str:
    """Load the CUDA kernels where torch has CUDA; the reason in words where they are not loaded."""
    if torch.version.cuda is None:
        return "not loaded: this torch has no CUDA"
    built = build_info()
    if not CUDA_LIBRARY.exists():
        return f"not built: {built['cuda_note']}"
    _load(CUDA_LIBRARY)
    if sentence := _old_driver(built["cuda"], _driver()):
        warnings.warn(sentence, RuntimeWarning, stacklevel=2)
    return "loaded"


_check_torch()
_load(CPU_LIBRARY)
_check_capability()
_check_plan()
cuda_status = _load_cuda()
