"""What is installed here."""

from __future__ import annotations

import platform

import torch

from fastseq import _library, _native
from fastseq._build import CPU_LIBRARY, build_info
from fastseq._version import __version__


def info() -> dict[str, str]:
    """Versions, libraries loaded, CPU capability and CUDA architectures, for a bug report."""
    built = build_info()
    architectures = built["cuda_architectures"].replace(" ", ", ")
    if architectures and built["cuda_note"]:
        architectures += f" ({built['cuda_note']})"
    capabilities = ", ".join(_native.cpu_capabilities())
    if "amx" in _native.cpu_capabilities():
        capabilities += "; no CPU has run amx yet, so FASTSEQ_CPU_CAPABILITY alone chooses it"
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "fastseq": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "torch CUDA": torch.version.cuda or "none",
        "built against torch": built["torch"],
        "built with": built["compiler"] + (f", CUDA {built['cuda']}" if built["cuda"] else ""),
        "CPU library": str(CPU_LIBRARY),
        "CPU capability": f"{_native.cpu_capability()} (available: {capabilities})",
        "CPU caches": ", ".join(
            f"L{level} {size // 1024} KB" for level, size in enumerate(_native.caches(), start=1)
        ),
        "threads": str(torch.get_num_threads()),
        "CUDA kernels": _library.cuda_status,
        "CUDA architectures": architectures or "none",
        "GPUs": ", ".join(devices) or "none",
    }
