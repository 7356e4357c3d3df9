"""20,000 calls, eight threads, processes by fork and spawn, and Ctrl-C in mid-training."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from recurrence_cases import leaves, numbers
from torch import Tensor, nn

import fastseq


@pytest.fixture(autouse=True)
def threads_restored() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def modules() -> list[tuple[nn.Module, tuple[int, ...]]]:
    """One of each kind, and the shape of an input of one row or image."""
    torch.manual_seed(0)
    return [
        (fastseq.LSTM(6, 20, 2, bidirectional=True, proj_size=7), (3, 1, 6)),
        (fastseq.GRU(6, 20), (3, 1, 6)),
        (fastseq.RNN(6, 20, nonlinearity="relu"), (3, 1, 6)),
        (fastseq.LSTM(6, 20, layer_norm=True), (3, 1, 6)),
        (fastseq.LSTMCell(6, 20), (1, 6)),
        (fastseq.GRUCell(6, 20), (1, 6)),
        (fastseq.RNNCell(6, 20), (1, 6)),
        (fastseq.LocalResponseNorm(5), (1, 6, 5, 5)),
        (fastseq.MaxPool2d(3, 2), (1, 6, 5, 5)),
        (fastseq.ReLULRNMaxPool2d(5), (1, 6, 5, 5)),
    ]


def input_of(shape: tuple[int, ...], size: int) -> Tensor:
    """An input of so many rows, and steps of a layer; larger images."""
    if len(shape) == 3:
        shape = (size % 7 + 1, size, shape[2])
    elif len(shape) == 2:
        shape = (size, shape[1])
    else:
        shape = (1, shape[1], size + 2, size % 7 + 3)
    return numbers(*shape, seed=size)


def step(module: nn.Module, x: Tensor) -> list[Tensor]:
    """The output and its gradients."""
    leaf = x.clone().requires_grad_()
    y = leaves(module(leaf))[0]
    return [y.detach(), *torch.autograd.grad(y.sin().sum(), [leaf, *module.parameters()])]


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_memory_stays_over_20_000_calls_of_changing_shapes() -> None:
    torch.set_num_threads(1)
    built = modules()
    inputs = [[input_of(shape, size) for size in range(1, 21)] for _, shape in built]

    def rounds(count: int) -> int:
        """Of ten modules, twenty shapes each, every fourth with gradients."""
        calls = 0
        for turn in range(count):
            for (module, _), shapes in zip(built, inputs, strict=True):
                for size, x in enumerate(shapes):
                    if (turn + size) % 4 == 0:
                        step(module, x)
                    else:
                        with torch.no_grad():
                            module(x)
                    calls += 1
        gc.collect()
        return calls

    rounds(8)
    before = resident_bytes()
    assert rounds(100) == 20_000
    # A tensor of the smallest kept by every call would be 20 MB with what PyTorch has around it.
    assert resident_bytes() - before < 5e6


def test_eight_threads_use_all_modules_at_once() -> None:
    torch.set_num_threads(2)  # each has a team of its own
    built = modules()
    inputs = [input_of(shape, 9) for _, shape in built]
    expected = [step(module, x) for (module, _), x in zip(built, inputs, strict=True)]
    wrong: list[str] = []
    together = threading.Barrier(8)

    def work(first: int) -> None:
        together.wait()
        for turn in range(3 * len(built)):
            i = (first + turn) % len(built)
            found = step(built[i][0], inputs[i])
            if not all(map(torch.equal, found, expected[i])):
                wrong.append(type(built[i][0]).__name__)

    workers = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert not any(worker.is_alive() for worker in workers)
    assert wrong == []


def outputs(threads: int = 1) -> list[Tensor]:
    """Of all modules, without gradients: their engine does not survive a fork."""
    torch.set_num_threads(threads)
    with torch.no_grad():
        return [leaves(module(input_of(shape, 9)))[0] for module, shape in modules()]


def send(made: Callable[[], list[Tensor]], pipe: "multiprocessing.connection.Connection") -> None:
    pipe.send([y.numpy() for y in made()])
    pipe.close()


@pytest.mark.parametrize(("start", "threads"), [("fork", 1), ("spawn", 2)])
def test_a_child_computes_what_its_parent_does(start: str, threads: int) -> None:
    expected = outputs(2)
    context = multiprocessing.get_context(start)
    here, there = context.Pipe(duplex=False)
    # OpenMP's threads do not survive a fork, so the child is to have one.
    child = context.Process(target=send, args=(partial(outputs, threads), there))
    child.start()
    there.close()
    assert here.poll(120), "the child hangs"
    found = here.recv()
    child.join(30)
    assert child.exitcode == 0
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(torch.from_numpy(a), b)


# Trains until it is interrupted, five times; each time the module must still compute what a copy
# of it does that nobody has interrupted, and learn from there. The sixth ends it.
INTERRUPTED = """
import copy, torch, fastseq
torch.manual_seed(0)
torch.set_num_threads(2)
module = torch.nn.Sequential(fastseq.LSTM(32, 256, batch_first=True))
optimiser = torch.optim.SGD(module.parameters(), 1e-3)
x = torch.randn(64, 60, 32)
def step(module):
    y, _ = module(x)
    y.square().mean().backward()
def forever():
    print("training", flush=True)
    while True:
        optimiser.zero_grad()
        step(module)
        optimiser.step()
for turn in range(5):
    try:
        forever()
    except KeyboardInterrupt:
        module.zero_grad()
        fresh = copy.deepcopy(module)
        step(module), step(fresh)
        for a, b in zip(module.parameters(), fresh.parameters(), strict=True):
            assert torch.equal(a, b) and torch.equal(a.grad, b.grad) and a.isfinite().all()
forever()
"""


def test_an_interrupt_in_mid_training_ends_it_and_harms_nothing() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        cwd=Path(__file__).parent,  # not the root: its fastseq/ would hide an installed one
        env={**os.environ, "PYTHONPATH": str(Path(fastseq.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    try:
        for turn in range(6):
            assert child.stdout.readline() == "training\n", child.communicate()[1]
            threading.Event().wait(0.1 + 0.03 * turn)
            child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=60)
    finally:
        child.kill()
    assert errors.rstrip().endswith("KeyboardInterrupt"), errors
    assert child.returncode == -signal.SIGINT
