"""The machine itself: what it reports of kernels that do wrong, and that it lets right ones be."""

from __future__ import annotations

import pytest
from simt_build import Machine

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
    "barrier_beside_shuffle": r"divergence: .* thread 0 waits at the barrier .* for its warp",
    "shuffle_of_some": r"divergence: .* waits for its warp at .*, but .* thread 31 has ended",
    "two_shuffles": r"divergence: .* waits for its warp at .*, but .* waits for its warp at",
    "misaligned": r"makes a misaligned access$",
    "misaligned_shared": r"makes a misaligned access to shared memory",
    # barriers of some warps
    "barrier_of_others": r"race: .* shared memory|nothing wrote",
    "barrier_of_too_few": r"divergence: .* waits at the barrier .*, but .* has ended",
    "two_counts": r"waits for \d+ threads at barrier 1, where others wait for \d+",
    "no_such_barrier": r"names barrier 16 of 16",
    "barrier_of_half_a_warp": r"divergence: .* waits at the barrier .*, but .* (has ended|runs)",
    "warp_barrier_is_no_barrier": r"race: .* shared memory|nothing wrote",
    # launches: the runtime's words, where it has some
    "too_many_threads": r"^invalid configuration argument: 1056 threads in a block$",
    "half_a_warp": r"^48 threads in a block, which should hold whole warps$",
    "beyond_the_usual_bounds": r"^288 threads .* __launch_bounds__ say 256$",
    "beyond_its_bounds": r"^544 threads .* __launch_bounds__ say 512$",
    "without_room": r"^too many blocks in cooperative launch$",
    "shared_not_asked_for": r"^invalid argument: 65540 bytes .* may have \d+$",
    "shared_beyond_the_device": r"^invalid argument$",
    "outside": r"touches memory outside the tensors of the launch$",
    "read_only": r"writes to in$",
    # words between blocks
    "empty_word": r"block 1, thread 3 publishes word 0 of words as an empty one$",
    "published_twice": r"publishes word \d+ of words, as block (0|1) did before$",
    "plain_load_of_a_word": r"mixes plain and relaxed accesses to word \d+ of words$",
    "half_of_a_word": r"mixes plain and relaxed accesses to word \d+ of words$",
    "upper_half_of_a_double": r"mixes plain and relaxed accesses to word 3 of words$",
    "word_beside_a_plain_store": r"mixes plain and relaxed accesses to word \d+ of words$",
    "word_outside": r"touches memory outside the tensors of the launch$",
    "misaligned_word": r"makes a misaligned access$",
    "waits_for_ever": r"^deadlock; block 0, thread \d+ polls, at words.h:\d+, word 5 of words, "
    r"as 31 others do$",
}
RIGHT = [
    *("good", "global_behind_a_barrier", "shuffles", "votes", "many_blocks"),
    *("two_teams", "handed_on", "warp_barrier"),
    *("within_its_bounds", "with_room", "shared_asked_for"),
    *("hand_over", "own_word", "nan_is_made_a_full_one"),
]


def run(cases: Machine, name: str) -> str | None:
    said: bytes | None = cases.library.run_case(name.encode())
    return said.decode() if said else None


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", FAULTS)
def test_it_says_what_is_wrong(name: str, seed: int, cases: Machine) -> None:
    cases.seed(seed)
    said = run(cases, name)
    assert said is not None
    with pytest.raises(RuntimeError, match=FAULTS[name]):
        raise RuntimeError(said)
    assert run(cases, "good") is None, "the machine works on after a fault"


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", RIGHT)
def test_it_lets_right_kernels_be(name: str, seed: int, cases: Machine) -> None:
    cases.seed(seed)
    assert run(cases, name) is None


def test_shuffles_hand_over_values(cases: Machine) -> None:
    assert run(cases, "shuffles") is None
    for t in range(64):
        lane = t % 32
        source = t - 1 if lane else t
        value = source + (500 if t < 32 else 0)
        down = lane + 3 if lane + 3 < 32 else lane
        assert cases.library.result(t) == value * 1000 + down


def test_a_vote_is_one_of_a_warp(cases: Machine) -> None:
    assert run(cases, "votes") is None
    assert [cases.library.result(t) for t in (0, 31, 32, 127)] == [2, 2, 0, 0]


def test_every_case_is_tested(cases: Machine) -> None:
    names = []
    while (name := cases.library.case_name(len(names))) is not None:
        names.append(name.decode())
    assert sorted(names) == sorted([*FAULTS, *RIGHT])


def test_a_barrier_can_be_dropped(cases: Machine) -> None:
    cases.forget_barriers()
    assert run(cases, "good") is None
    sites = cases.barriers()
    assert len(sites) == 2
    for site in sites:
        cases.drop_barrier(site)
        said = run(cases, "good")
        cases.drop_barrier("")
        assert said is not None
        assert "race" in said or "nothing wrote" in said
    assert run(cases, "good") is None
