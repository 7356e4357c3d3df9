"""The machine, built once a session and kept between sessions for as long as no source changes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import simt_build
from simt_build import Machine


@pytest.fixture(scope="session")
def simt_library(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Machine:
    cache = getattr(request.config, "cache", None)  # pytest may run without
    return simt_build.load(cache.mkdir("simt") if cache else tmp_path_factory.mktemp("simt"))


@pytest.fixture
def machine(simt_library: Machine) -> Iterator[Machine]:
    yield simt_library
    simt_library.seed(1)
    simt_library.drop_barrier("")
