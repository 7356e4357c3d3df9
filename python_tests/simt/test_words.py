"""Words that blocks publish for each other, and a mailbox of them in miniature.

Words lie empty (0xFF) before a launch, are published once, late and in any order, and polled. The
mailbox is right with every schedule; each mistake in it is found with every one, too.
"""

from __future__ import annotations

import ctypes
import re

import pytest
import torch
from simt_build import Machine
from torch import Tensor

NONE, DROPPED_PUBLISH, REUSED_SLOT, ONE_SET_OF_SUMS, NO_BARRIER, PLAIN_LOAD, ONE_STEP_AHEAD = range(
    7
)
STEPS, BLOCKS, UNITS = 5, 8, 16
WORD = 1 << 32
seeds = pytest.mark.parametrize("seed", range(20))


def start() -> Tensor:
    units = torch.arange(BLOCKS * UNITS, dtype=torch.int64)
    return (units * 2654435761 + 12345) % (WORD // 2)


def expected() -> Tensor:
    """The words of all steps, in Python's integers."""
    h, found = start(), []
    units = torch.arange(BLOCKS * UNITS)
    warps = units // 64 % 2
    for _ in range(STEPS):
        terms = h * (units + 1) % WORD
        first, second = (int(terms[warps == w].sum()) % WORD for w in (0, 1))
        h = (first + 5 * second) % WORD
        h = (h * (2 * units + 1) % WORD + units) % WORD // 2
        found.append(h)
    return torch.stack(found)


def run(
    cases: Machine, mistake: int = NONE, *, empty: bool = True, together: bool = True
) -> tuple[str | None, Tensor]:
    """What the machine says of a launch, and the words that it left."""
    first = start().to(torch.uint32)
    words = torch.full((STEPS, BLOCKS * UNITS), -1 if empty else 77, dtype=torch.int32)
    said: bytes | None = cases.library.run_mailbox(
        ctypes.c_void_p(first.data_ptr()),
        ctypes.c_void_p(words.data_ptr()),
        ctypes.c_int64(STEPS),
        ctypes.c_int64(BLOCKS),
        mistake,
        together,
    )
    return said.decode() if said else None, words.long() % WORD


@seeds
def test_the_mailbox_is_right_with_every_schedule(seed: int, cases: Machine) -> None:
    cases.seed(seed)
    said, words = run(cases)
    assert said is None
    assert torch.equal(words, expected())


def fault(cases: Machine, seed: int, mistake: int = NONE, **launch: bool) -> str:
    cases.seed(seed)
    said, _ = run(cases, mistake, **launch)
    assert said is not None
    return said


@seeds
def test_a_dropped_publish_is_a_deadlock_that_names_the_word(seed: int, cases: Machine) -> None:
    said = fault(cases, seed, DROPPED_PUBLISH)
    word = 2 * BLOCKS * UNITS + UNITS + 3
    # Whose slice holds it cannot go on, and the other warp waits: at its barrier, or further on.
    assert said.startswith("deadlock; ")
    assert re.search(rf"polls, at words.h:\d+, word {word} of mailbox", said)
    assert said.count("polls") == BLOCKS


@seeds
def test_a_reused_slot_is_found(seed: int, cases: Machine) -> None:
    said = fault(cases, seed, REUSED_SLOT)
    assert " of mailbox, as block " in said
    assert said.endswith(" did before")


@seeds
def test_a_missing_fill_is_found(seed: int, cases: Machine) -> None:
    said = fault(cases, seed, empty=False)
    assert said.endswith((" of mailbox, which was not empty", "nothing published in this launch"))


@seeds
def test_a_block_that_never_runs_is_found(seed: int, cases: Machine) -> None:
    """An ordinary launch promises no room for all blocks at once."""
    said = fault(cases, seed, together=False)
    assert said.startswith("deadlock; ")
    assert said.endswith(" blocks find no room to begin")


@seeds
@pytest.mark.parametrize("mistake", [ONE_SET_OF_SUMS, NO_BARRIER])
def test_sums_that_are_not_kept_apart_are_found(mistake: int, seed: int, cases: Machine) -> None:
    said = fault(cases, seed, mistake)
    assert ("race: " in said and "shared memory" in said) or "nothing wrote" in said


@seeds
def test_a_plain_load_is_found(seed: int, cases: Machine) -> None:
    assert "mixes plain and relaxed accesses" in fault(cases, seed, PLAIN_LOAD)


@seeds
def test_waiting_for_oneself_is_found(seed: int, cases: Machine) -> None:
    assert fault(cases, seed, ONE_STEP_AHEAD).startswith("deadlock; ")


def test_words_arrive_in_any_order(cases: Machine) -> None:
    """Who has seen the second word may have seen the first one, or not yet."""
    seen = set()
    for seed in range(64):
        cases.seed(seed)
        seen.add(cases.library.litmus_outcome())
    assert seen == {1, WORD - 1}
