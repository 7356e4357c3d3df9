"""Fixtures that several test files share, and what a run in several processes needs."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is loaded. A thread that spins for work takes a core from the other processes.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from collections.abc import Iterator
from types import ModuleType

import pytest
import torch

# Files that take longest, longest first: what a process begins last should be short.
LONGEST = [
    "test_packaging.py",
    "test_capabilities.py",
    "test_benchmarks.py",
    "test_compilers.py",
    "test_recipe_survival.py",
    "test_forward_mode.py",
    "test_layer.py",
    "test_drop_in.py",
    "test_drop_in_calls.py",
]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Start with the longest files where several processes share the tests."""
    if hasattr(config, "workerinput"):
        place = {name: i for i, name in enumerate(LONGEST)}
        items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small tensors: a second thread costs more to wake than it does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def scripts() -> Iterator[None]:
    """Benchmarks import their neighbours by bare names, as scripts do."""
    from benchmark_scripts import BENCHMARKS

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield


@pytest.fixture
def rows(scripts: None) -> ModuleType:
    """The benchmarks' module of that name."""
    from fastseq.bench import rows

    return rows


@pytest.fixture
def inductor_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A cache of torch.compile's C++ that begins empty, one for a run: headers take long."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "inductor"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
    with torch._inductor.config.patch(compile_threads=1):  # no processes for three kernels
        yield
