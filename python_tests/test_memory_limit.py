"""Memory that is kept for the next call: how much at most, and that it is given back."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from recurrence_cases import numbers

import fastseq

MB = 1 << 20
# The limit is read once a process. Forked, because importing torch takes longer than the rest.
KEPT = """
import json, os, torch, fastseq
torch.set_num_threads(1)
for limit in ("0", "5", None):
    if os.fork() == 0:
        if limit is not None:
            os.environ["FASTSEQ_KEEP_MB"] = limit
        lstm = fastseq.LSTM(64, 128)
        x = torch.randn(40, 16, 64)
        graphs = [lstm(x)[0] for _ in range(8)]  # each holds 1.6 MB
        del graphs
        print(json.dumps([limit, torch.ops.fastseq.empty_cache(), fastseq.empty_cache()]))
        os.sys.stdout.flush()
        os._exit(0)
    assert os.wait()[1] == 0
"""


@pytest.fixture(scope="module")
def kept() -> dict[str | None, tuple[int, int]]:
    """By limit: the bytes that were kept after 13 MB were freed, and those kept after that."""
    done = subprocess.run(
        [sys.executable, "-c", KEPT],
        cwd=Path(__file__).parent,  # not the root: its fastseq/ would hide an installed one
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {limit: (first, second) for limit, first, second in lines}


def test_no_more_is_kept_than_the_limit(kept: dict[str | None, tuple[int, int]]) -> None:
    assert kept["0"][0] == 0
    assert 3 * MB < kept["5"][0] <= 5 * MB
    assert 12 * MB < kept[None][0] < 40 * MB


def test_all_of_it_is_given_back(kept: dict[str | None, tuple[int, int]]) -> None:
    assert [second for _, second in kept.values()] == [0, 0, 0]


def test_what_was_kept_is_used_again() -> None:
    lstm, x = fastseq.LSTM(64, 128), numbers(40, 16, 64)
    fastseq.empty_cache()
    first = lstm(x)[0]
    expected = first.detach().clone()
    del first
    for _ in range(20):
        assert torch.equal(lstm(x)[0], expected)
    once = fastseq.empty_cache()
    lstm(x)
    assert once == fastseq.empty_cache() > 0
