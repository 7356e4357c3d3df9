"""The machine itself: what it reports of kernels that do wrong, and that it lets right ones be."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import pytest
import simt_build
from simt_build import HERE, Machine

FAULTS = {
    "shared_race": r"race: block \d, thread \d+ writes shared memory, byte \[\d+\], which block "
    r"\d, thread \d+ touches with no barrier between them",
    "missing_barrier": r"race: .* (reads|writes) shared memory|reads byte \d+ .* nothing wrote",
    "write_after_read": r"race: .* shared memory",
    "shuffle_is_no_barrier": r"race: .* shared memory",
    "global_race": r"race: .* writes global memory",
    "race_between_blocks": r"race: block (0|1), .* which block (1|0), ",
    "read_between_blocks": r"race: block (0|1), .* which block (1|0), ",
    "beyond_shared": r"thread \d+ touches element \d+ of an array of 32 in shared memory",
    "before_shared": r"thread 0 touches element -1 of an array of 16 in shared memory",
    "beyond_the_block": r"thread 0 touches element 99 of an array of 100 in shared memory",
    "unwritten": r"reads byte \d+ of shared memory, which nothing wrote",
    "barrier_of_some": r"divergence: .* waits at the barrier machine_cases.cu:\d+, but .* ended",
    "two_barriers": r"divergence: .* waits at the barrier .*, but .* waits at the barrier",
    "one_leaves_early": r"divergence: .*, but block \d, thread 7 has ended",
    "barrier_beside_shuffle": r"divergence: .* thread 0 waits at the barrier .* at the shuffle",
    "shuffle_of_some": r"divergence: .* waits at the shuffle .*, but .* thread 31 has ended",
    "two_shuffles": r"divergence: .* waits at the shuffle .*, but .* waits at the shuffle",
    "misaligned": r"makes a misaligned access$",
    "misaligned_shared": r"makes a misaligned access to shared memory",
}
RIGHT = ["good", "global_behind_a_barrier", "shuffles"]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    path = tmp_path_factory.mktemp("machine") / "cases.so"
    sources = [HERE / "machine_cases.cu", HERE / "machine.cpp"]
    simt_build.compile_library(sources, path, "-Wall", "-Wextra", "-Werror")
    library = ctypes.CDLL(str(path))
    library.run_case.restype = library.case_name.restype = ctypes.c_char_p
    return library


@pytest.fixture
def run(library: ctypes.CDLL) -> Callable[[str], str | None]:
    def run(name: str) -> str | None:
        said: bytes | None = library.run_case(name.encode())
        return said.decode() if said else None

    return run


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", FAULTS)
def test_it_says_what_is_wrong(
    name: str, seed: int, library: ctypes.CDLL, run: Callable[[str], str | None]
) -> None:
    Machine(library).seed(seed)
    said = run(name)
    assert said is not None
    with pytest.raises(RuntimeError, match=FAULTS[name]):
        raise RuntimeError(said)
    assert run("good") is None, "the machine works on after a fault"


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", RIGHT)
def test_it_lets_right_kernels_be(
    name: str, seed: int, library: ctypes.CDLL, run: Callable[[str], str | None]
) -> None:
    Machine(library).seed(seed)
    assert run(name) is None


def test_shuffles_hand_over_values(library: ctypes.CDLL, run: Callable[[str], str | None]) -> None:
    assert run("shuffles") is None
    for t in range(64):
        lane = t % 32
        source = t - 1 if lane else t
        value = source + (500 if t < 32 else 0)
        down = lane + 3 if lane + 3 < 32 else lane
        assert library.result(t) == value * 1000 + down


def test_every_case_is_tested(library: ctypes.CDLL) -> None:
    names = []
    while (name := library.case_name(len(names))) is not None:
        names.append(name.decode())
    assert sorted(names) == sorted([*FAULTS, *RIGHT])


def test_a_barrier_can_be_dropped(library: ctypes.CDLL, run: Callable[[str], str | None]) -> None:
    machine = Machine(library)
    machine.forget_barriers()
    assert run("good") is None
    sites = machine.barriers()
    assert len(sites) == 2
    for site in sites:
        machine.drop_barrier(site)
        said = run("good")
        machine.drop_barrier("")
        assert said is not None
        assert "race" in said or "nothing wrote" in said
    assert run("good") is None
