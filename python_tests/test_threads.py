"""Threads, forks, and memory over many calls."""

import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from recurrence_cases import KINDS, assert_equal, call, numbers, packed, states
from torch.utils.data import DataLoader, Dataset

import fastseq


@pytest.fixture(autouse=True)
def threads_restored() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ragged", [False, True], ids=["padded", "packed"])
def test_any_number_of_threads_gives_the_same_bits(kind: str, ragged: bool) -> None:
    options = {"proj_size": 24} if kind == "LSTM" else {}
    module = getattr(fastseq, kind)(20, 64, num_layers=2, bidirectional=True, **options)
    lengths = sorted((1 + 7 * i % 25 for i in range(24)), reverse=True)
    x: Any = packed(lengths, 20) if ragged else numbers(25, 24, 20)
    hx = states(module, 24)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        if threads > 1 and not ragged:
            assert "slices" in fastseq.explain(module, x)
        results.append(call(module, x, hx))
    # ATen's products over all rows may sum in another order, the time loops never do.
    exact = ["output 0", "output 1"]
    for other in results[1:]:
        for name, value in results[0].items():
            if name in exact:
                assert torch.equal(other[name], value), name
            torch.testing.assert_close(other[name], value, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_input_gradient_is_the_same_for_any_number_of_threads(kind: str) -> None:
    module = getattr(fastseq, kind)(20, 96)
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(call(module, numbers(12, 16, 20))["gradient of argument 0"])
    assert torch.equal(*found)


def own_threads() -> int:
    return len(os.listdir("/proc/self/task"))


def test_thread_count_is_obeyed() -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # a fresh process, whose pool has not been woken
        torch.set_num_threads(1)
        before = own_threads()
        with torch.no_grad():
            fastseq.LSTM(32, 128)(numbers(30, 64, 32))
        os.write(write, f"{own_threads() - before}".encode())
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert os.read(read, 10) == b"0"
    torch.set_num_threads(1)
    assert "single thread" in fastseq.explain(fastseq.LSTM(32, 128), numbers(30, 64, 32))


@pytest.mark.parametrize("kind", KINDS)
def test_python_threads_side_by_side(kind: str) -> None:
    torch.set_num_threads(1)
    module = getattr(fastseq, kind)(8, 48)
    inputs = [numbers(10, 6, 8, seed=i) for i in range(4)]
    with torch.no_grad():
        expected = [module(x)[0] for x in inputs]
    slopes = [torch.autograd.grad(module(x)[0].sum(), module.weight_hh_l0)[0] for x in inputs]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(15):
            y = module(inputs[i])[0]
            (slope,) = torch.autograd.grad(y.sum(), module.weight_hh_l0)
            if not (torch.equal(y, expected[i]) and torch.equal(slope, slopes[i])):
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


def test_forked_child_after_use_in_the_parent() -> None:
    torch.set_num_threads(2)
    module = fastseq.LSTM(20, 64)
    x = numbers(25, 24, 20)
    with torch.no_grad():
        expected = module(x)[0]
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)  # OpenMP's pool does not survive a fork; DataLoader does this too
        with torch.no_grad():
            right = torch.equal(module(x)[0], expected)
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class Encoded(Dataset[torch.Tensor]):
    """A data set whose workers run an LSTM."""

    def __init__(self) -> None:
        self.lstm = fastseq.LSTM(20, 64)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        with torch.no_grad():
            return self.lstm(numbers(25, 24, 20, seed=index))[0][-1]


def test_data_loader_worker() -> None:
    torch.set_num_threads(2)
    data = Encoded()
    expected = [data[i] for i in range(len(data))]
    loader = DataLoader(data, batch_size=None, num_workers=1, multiprocessing_context="fork")
    for found, value in zip(loader, expected, strict=True):
        assert torch.equal(found, value)


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ragged", [False, True], ids=["padded", "packed"])
def test_memory_does_not_grow(kind: str, ragged: bool) -> None:
    torch.set_num_threads(1)
    module = getattr(fastseq, kind)(16, 64, num_layers=2, bidirectional=True)
    x: Any = packed([16] * 8 + [5] * 8, 16) if ragged else numbers(16, 16, 16)

    def loop(calls: int) -> None:
        for _ in range(calls):
            call(module, x)
        gc.collect()

    loop(60)
    before = resident_bytes()
    loop(200)  # saved activations of 200 calls would be tens to hundreds of MB
    assert resident_bytes() - before < 6e6


@pytest.mark.parametrize("kind", KINDS)
def test_graphs_are_freed_without_the_garbage_collector(kind: str) -> None:
    module = getattr(fastseq, kind)(4, 8)
    gc.collect()
    gc.disable()
    try:
        y = module(numbers(5, 3, 4))[0]
        y.sum().backward(retain_graph=True)
        freed: list[bool] = []

        class Mark:
            def __del__(self) -> None:
                freed.append(True)

        y.grad_fn.metadata["mark"] = Mark()
        del y
        assert freed == [True]
    finally:
        gc.enable()


def test_results_do_not_share_memory_between_calls() -> None:
    module = fastseq.GRU(4, 8)
    first = call(module, numbers(5, 3, 4))
    kept = {n: v.clone() for n, v in first.items()}
    call(module, numbers(5, 3, 4, seed=9))
    assert_equal(first, kept)
