"""What a recurrence cannot be faster than: its matrix products at the rate of a large one.

A row of T steps needs 2 * G * H * (I + H) operations a step in its matrix products, with G gates;
the backward needs twice as many, for the gradients of weights and of inputs.
"""

from __future__ import annotations

from functools import cache

import torch

from fastseq.bench import harness
from fastseq.bench.rnn_cases import TORCH_DTYPE, Case, Cell, Mode
from fastseq.bench.rows import Row

GATES = {Cell.lstm: 4, Cell.gru: 3, Cell.rnn: 1}
# Elements saved for the backward beside y, in units of (rows, H): LSTM's gates and c; GRU's gates
# and W_hn h + b_hn; an RNN's derivative follows from y.
SAVED = {Cell.lstm: 5, Cell.gru: 4, Cell.rnn: 0}
STATES = {Cell.lstm: 2, Cell.gru: 1, Cell.rnn: 1}
SIZE = {"cpu": 2048, "cuda": 8192}
QUICK_SIZE = 512
CALLS = 5


def gemm_gflop(case: Case) -> float:
    """Operations of the matrix products, in 10^9."""
    _, _, width, hidden = case.shape
    forward = 2 * GATES[case.cell] * hidden * (width + hidden) * int(case.lengths().sum())
    return 1e-9 * forward * (3 if case.mode is Mode.train else 1)


def mbytes(case: Case) -> float:
    """The least that must move, in 10^6 bytes: every tensor once.

    Input, parameters, output and final states; forward and train: what is saved for the backward;
    train: the gradients of input, parameters and output.
    """
    _, batch, width, hidden = case.shape
    count = int(case.lengths().sum())
    parameters = GATES[case.cell] * hidden * (width + hidden + 2)
    elements = count * (width + hidden) + parameters
    if case.mode is Mode.train:
        elements *= 2
    elements += STATES[case.cell] * batch * hidden
    if case.mode is not Mode.infer:
        elements += SAVED[case.cell] * count * hidden
    return 1e-6 * elements * TORCH_DTYPE[case.dtype].itemsize


@cache
def gemm_gflops(dtype: torch.dtype, device: torch.device, threads: int, size: int) -> float:
    """10^9 operations a second of a size^3 product: the fastest of a few calls, once a process.

    Args:
        dtype: of the factors.
        device: where.
        threads: that torch has been given; for the cache alone.
        size: of the three sides.
    """
    a, b = (torch.randn(size, size).to(device, dtype) for _ in range(2))
    clock = harness.clock(device)
    times = [clock(lambda: a @ b) for _ in range(1 + CALLS)]
    return 2e-9 * size**3 / min(times[1:])


def columns(case: Case, device: torch.device, threads: int, quick: bool) -> Row:
    """The roofline columns of a case's rows; ``quick`` takes the rate from a smaller product."""
    size = QUICK_SIZE if quick else SIZE[device.type]
    rate = gemm_gflops(TORCH_DTYPE[case.dtype], device, threads, size)
    work = gemm_gflop(case)
    return {
        "gemm_gflop": f"{work:.5g}",
        "gemm_gflops": f"{rate:.5g}",
        "floor_ms": f"{1e3 * work / rate:.5g}",
        "mbytes": f"{mbytes(case):.5g}",
    }
