"""A training step's peak memory is at most torch.nn's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("typer", reason="the bench extra is not installed")

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
# A fresh process each: memory that was freed before would be used again unseen. Forked, because
# importing torch takes longer than the steps; with one thread, because OpenMP does not survive it.
GROWTH = """
import json, os, sys, torch
sys.path.insert(0, sys.argv[1])
import memory
from fastseq.bench.rnn_cases import Case, Cell, DType, Layout, Mode
torch.set_num_threads(1)
for cell in Cell:
    for layout in Layout:
        case = Case(cell, DType.float32, Mode.train, layout, (100, 32, 256, 256))
        for provider in memory.PROVIDERS:
            if os.fork() == 0:
                grown = memory.growth(case, provider)
                print(json.dumps([cell.value, layout.value, provider, grown]), flush=True)
                os._exit(0)
            assert os.wait()[1] == 0
"""


def test_a_training_step_takes_no_more_than_torch_nns() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, str(BENCHMARKS)],
        cwd=Path(__file__).parent,  # not the root: its fastseq/ would hide an installed one
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, list[float]] = {}
    for line in done.stdout.splitlines():
        cell, layout, _, grown = json.loads(line)
        found.setdefault(f"{cell} {layout}", []).append(grown)
    assert len(found) == 6
    too_much = {
        case: f"{ours:.1f} MB, torch.nn {native:.1f}"
        for case, (native, ours) in found.items()
        if ours > native
    }
    assert too_much == {}
