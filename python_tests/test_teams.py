"""Teams of threads: the same bits from every grid, and no harm where threads are too many."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from recurrence_cases import (
    all_wanted,
    assert_close,
    assert_equal,
    call,
    numbers,
    packed,
    states,
    twins,
    whole_layer,
    whole_layer_backward,
)
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import fastseq
from fastseq import _native, ops
from fastseq.ops import Cell

COUNTS = (1, 2, 3, 4, 8)
# Shapes by the way in which the planner splits them over 4 threads.
BY_BATCH: dict[str, Any] = {"steps": 10, "batch": 37, "width": 21, "hidden": 33}
BY_UNITS: dict[str, Any] = {"steps": 12, "batch": 3, "width": 21, "hidden": 263}
IN_A_GRID: dict[str, Any] = {"steps": 10, "batch": 9, "width": 35, "hidden": 199}
SHAPES: dict[str, dict[str, Any]] = {
    "by batch": BY_BATCH,
    "by units": BY_UNITS,
    "in a grid": IN_A_GRID,
    # Slices of 12 and of 13 panels, whose chunks of steps differ in length.
    "uneven shares": {"steps": 100, "batch": 4, "width": 96, "hidden": 400},
    "uneven shares of GRU": {"steps": 60, "batch": 5, "width": 160, "hidden": 528},
    "one row": {"steps": 30, "batch": 1, "width": 7, "hidden": 301},
    "wide input": {"steps": 9, "batch": 3, "width": 1201, "hidden": 97},
    "packed": {"sizes": [61, 60, 60, 43, 42, 17, 9, 5, 1, 1], "width": 13, "hidden": 133},
    "packed by units": {"sizes": [5, 5, 4, 3, 3, 3, 1, 1], "width": 19, "hidden": 257},
}
CASES = [(cell, None) for cell in Cell] + [(Cell.LSTM, 71)]
each_case = pytest.mark.parametrize(
    ("cell", "project"), CASES, ids=lambda v: v.name if isinstance(v, Cell) else f"R={v or 'H'}"
)


@pytest.fixture(autouse=True)
def threads_restored() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def both_ways(forward: dict[str, Any]) -> dict[str, Tensor]:
    saved = ops.layer(**forward, save=True)
    backward = whole_layer_backward(forward, saved, all_wanted(forward))
    grads = ops.layer_backward(**backward)
    return {**saved._asdict(), **grads._asdict()}


def assert_same_bits(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    wrong = [name for name, t in expected.items() if not torch.equal(found[name], t)]
    assert wrong == []


@pytest.mark.parametrize(
    ("shape", "batches", "units"), [(BY_BATCH, 4, 1), (BY_UNITS, 1, 4), (IN_A_GRID, 2, 2)]
)
def test_shapes_are_split_as_they_are_named(
    shape: dict[str, Any], batches: int, units: int
) -> None:
    sizes = (shape[n] for n in ("steps", "batch", "width", "hidden", "hidden"))
    plan = _native.plan_recurrence(int(Cell.LSTM), *sizes, 4)
    assert plan == (4, batches, units)


@each_case
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("dtype", "reverse"), [(torch.float32, False), (torch.bfloat16, True)], ids=str
)
def test_any_number_of_threads_gives_the_same_bits(
    cell: Cell, project: int | None, shape: str, dtype: torch.dtype, reverse: bool
) -> None:
    options = SHAPES[shape]
    project = project and min(project, options["hidden"])
    forward = {**whole_layer(cell, dtype=dtype, project=project, **options), "reverse": reverse}
    torch.set_num_threads(1)
    expected = both_ways(forward)
    for threads in COUNTS[1:]:
        torch.set_num_threads(threads)
        assert_same_bits(both_ways(forward), expected)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("LSTM", {}), ("LSTM", {"proj_size": 67}), ("GRU", {}), ("RNN", {})],
    ids=str,
)
@pytest.mark.parametrize("batch", [49, 61])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_rows_of_every_length(
    kind: str, options: dict[str, Any], batch: int, bidirectional: bool
) -> None:
    """More rows than a tile's block, of 1 to 20 steps, in any order, by batch and by units."""
    hidden, threads = 131, 32
    batches = _native.plan_recurrence(int(Cell.RNN_TANH), 20, batch, 9, hidden, hidden, threads)
    assert batches.units > 1
    ours, native = twins(kind, 9, hidden, bidirectional=bidirectional, **options)
    x = packed([1 + 7 * i % 20 for i in range(batch)], 9)
    hx = states(native, batch)
    torch.set_num_threads(1)
    expected = call(ours, x, hx)
    assert_close(expected, call(native, x, hx), 2e-5)
    for count in (2, threads):
        torch.set_num_threads(count)
        assert_equal(call(ours, x, hx), expected)


@each_case
@pytest.mark.parametrize("shape", [BY_UNITS, IN_A_GRID], ids=["by units", "in a grid"])
def test_python_threads_side_by_side(
    cell: Cell, project: int | None, shape: dict[str, Any]
) -> None:
    """Each Python thread has OpenMP threads of its own, so teams compete for the cores."""
    forward = whole_layer(cell, project=project, dtype=torch.float32, **shape)
    torch.set_num_threads(1)
    expected = both_ways(forward)
    torch.set_num_threads(2)
    wrong: list[str] = []

    def work() -> None:
        for _ in range(5):
            found = both_ways(forward)
            wrong.extend(n for n, t in expected.items() if not torch.equal(found[n], t))

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert not any(worker.is_alive() for worker in workers)
    assert wrong == []


@each_case
def test_slices_that_begin_late(cell: Cell, project: int | None) -> None:
    """Backwards, a slice of short rows has nothing to do at first, and nobody to wait for."""
    sizes = [3] * 15 + [14, 14, 13, 12]
    sizes.sort(reverse=True)
    forward = whole_layer(cell, sizes=sizes, hidden=131, project=project, dtype=torch.float32)
    forward["reverse"] = True
    torch.set_num_threads(1)
    expected = ops.layer(**forward, save=False).y
    torch.set_num_threads(16)
    wrong: list[int] = []

    def work(caller: int) -> None:
        for _ in range(10):
            if not torch.equal(ops.layer(**forward, save=False).y, expected):
                wrong.append(caller)

    callers = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


class Trained(Dataset[torch.Tensor]):
    """A data set whose workers take a training step: with two threads, a team of units."""

    def __init__(self, kind: str, threads: int) -> None:
        self.module, self.threads = getattr(fastseq, kind)(20, 256), threads

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> torch.Tensor:
        torch.set_num_threads(self.threads)
        # Without gradients: PyTorch's engine refuses to run in a fork of a process that used it.
        with torch.no_grad():
            y: torch.Tensor = self.module(numbers(12, 3, 20, seed=index))[0]
        return y


@pytest.mark.parametrize(
    ("kind", "start", "threads"),
    [("LSTM", "fork", 1), ("GRU", "fork", 1), ("RNN", "fork", 1), ("GRU", "spawn", 2)],
)
def test_in_a_data_loader_worker(kind: str, start: str, threads: int) -> None:
    data = Trained(kind, 2)
    expected = [data[i] for i in range(len(data))]
    data.threads = threads  # OpenMP's pool does not survive a fork
    loader = DataLoader(data, batch_size=None, num_workers=1, multiprocessing_context=start)
    for found, value in zip(loader, expected, strict=True):
        assert torch.equal(found, value)


STEPS = """
import os, sys, time, torch, fastseq
if len(sys.argv) > 1:
    torch.set_num_threads(int(sys.argv[1]))
for kind in ("LSTM", "GRU", "RNN"):
    for batch in (4, 9, 33):
        torch.manual_seed(0)
        module, x = getattr(fastseq, kind)(32, 256), torch.randn(20, batch, 32)
        best, sums = 1e9, set()
        for _ in range(3):
            start = time.perf_counter()
            module.zero_grad()
            y = module(x)[0]
            y.sum().backward()
            best = min(best, time.perf_counter() - start)
            sums.add(repr((y.sum().item(), module.weight_hh_l0.grad.double().sum().item())))
        assert len(sums) == 1, sums
        assert best < 1, (kind, batch, best)  # alone on two cores: milliseconds
"""


@pytest.mark.parametrize(
    ("variable", "threads", "cores"),
    [("1", None, None), ("1", 5, 1), (None, 16, None), ("16", None, 1)],
    ids=str,
)
def test_more_threads_than_cores(
    variable: str | None, threads: int | None, cores: int | None
) -> None:
    """Whoever waits gives way: a barrier may not cost a time slice, nor a late thread the call."""
    environment = {n: v for n, v in os.environ.items() if n != "OMP_NUM_THREADS"}
    if variable:
        environment["OMP_NUM_THREADS"] = variable
    code = STEPS if cores is None else "import os; os.sched_setaffinity(0, {0})\n" + STEPS
    command = [sys.executable, "-c", code, *([] if threads is None else [str(threads)])]
    ran = subprocess.run(
        command,
        env=environment,
        cwd=Path(__file__).parent,  # not the root: its fastseq/ would hide an installed one
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
