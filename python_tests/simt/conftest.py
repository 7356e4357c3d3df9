"""The machine, built once a session and kept between sessions for as long as no source changes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import simt_build
from simt_build import Machine


@pytest.fixture(scope="session")
def simt_library(request: pytest.FixtureRequest) -> Machine:
    cache = request.config.cache
    assert cache is not None
    return simt_build.load(cache.mkdir("simt"))


@pytest.fixture
def machine(simt_library: Machine) -> Iterator[Machine]:
    yield simt_library
    simt_library.seed(1)
    simt_library.drop_barrier("")
