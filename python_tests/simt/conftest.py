"""The machine, built once a session and kept between sessions for as long as no source changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import simt_build
from layers_of_a_gpu import Loops, layers_of_a_gpu
from simt_build import Machine


@pytest.fixture(scope="session")
def simt_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = getattr(request.config, "cache", None)  # pytest may run without
    return cache.mkdir("simt") if cache else tmp_path_factory.mktemp("simt")


@pytest.fixture(scope="session")
def simt_library(simt_folder: Path) -> Machine:
    return simt_build.load(simt_folder)


@pytest.fixture
def machine(simt_library: Machine) -> Iterator[Machine]:
    yield simt_library
    simt_library.restore()


@pytest.fixture
def loops(machine: Machine) -> Iterator[Loops]:
    """The CPU with the layers of a GPU; yields the time loops that run."""
    with layers_of_a_gpu(machine) as seen:
        yield seen


@pytest.fixture(scope="session")
def cases_library(simt_folder: Path) -> Machine:
    return simt_build.load_cases(simt_folder)


@pytest.fixture
def cases(cases_library: Machine) -> Iterator[Machine]:
    """The machine with the kernels of ``*_cases.cu``."""
    yield cases_library
    cases_library.restore()
