"""What is installed here, and what a module will do with an input."""

from __future__ import annotations

import platform

import torch
from torch import Tensor, nn

from fastseq import _C, _library
from fastseq._version import __version__
from fastseq.ops import Cell

_CELLS = {
    "LSTM": Cell.LSTM,
    "GRU": Cell.GRU,
    "RNN_TANH": Cell.RNN_TANH,
    "RNN_RELU": Cell.RNN_RELU,
}


def info() -> dict[str, str]:
    """Versions, libraries loaded, CPU capability and CUDA architectures, for a bug report."""
    built = _C.build_info()
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "fastseq": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "torch CUDA": torch.version.cuda or "none",
        "built against torch": built["torch"],
        "built with": built["compiler"] + (f", CUDA {built['cuda']}" if built["cuda"] else ""),
        "CPU library": str(_library.CPU_LIBRARY),
        "CPU capability": f"{_C.cpu_capability()} (available: {', '.join(_C.cpu_capabilities())})",
        "threads": str(torch.get_num_threads()),
        "CUDA kernels": _library.cuda_status,
        "CUDA architectures": built["cuda_architectures"].replace(" ", ", ") or "none",
        "GPUs": ", ".join(devices) or "none",
    }


def explain(module: nn.RNNBase, input: Tensor) -> str:
    """Say which path a recurrent module takes for an input, and why.

    Args:
        module: a ``fastseq.LSTM``, ``GRU`` or ``RNN``.
        input: what it would be called with, (T, B, I), or (B, T, I) if ``batch_first``.

    Raises:
        TypeError: the module is not one of fastseq's.
    """
    if not type(module).__module__.startswith("fastseq."):
        raise TypeError(
            f"explain() was given a {type(module).__name__}; it knows fastseq.LSTM, GRU and RNN."
        )
    if input.dim() == 2:
        input = input.unsqueeze(0 if module.batch_first else 1)
    steps, batch = input.shape[:2]
    if module.batch_first:
        steps, batch = batch, steps
    state = module.proj_size or module.hidden_size
    shape = f"T={steps}, B={batch}, H={module.hidden_size}" + (
        f", R={state}" if module.proj_size else ""
    )
    if input.is_cuda:
        return f"{module.mode} {shape}: CUDA step kernels, one product and one cell kernel a step."
    threads = torch.get_num_threads()
    plan = _C.plan_recurrence(_CELLS[module.mode], steps, batch, module.hidden_size, state, threads)
    slices = plan["slices"]
    why = (
        f"{slices} slices of the batch, each with its own time loop"
        if slices > 1
        else "one time loop: a single thread is allowed"
        if threads == 1
        else "one time loop: a single row cannot be split"
        if batch == 1
        else "one time loop: too little work to wake a second thread"
    )
    return f"{module.mode} {shape}: CPU kernels ({_C.cpu_capability()}), {why}."
