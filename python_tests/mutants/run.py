"""Runs tests in a copy of the checkout, each time in a fork of this process.

torch takes seconds to import, longer than most of these tests; a fork has it already, with what it
imports later at the first comparison and the first trace, and imports fastseq afresh from the copy.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch._dynamo

from .mutant import Mutant, NoVerdict
from .tree import ROOT, Tree

torch.testing.assert_close(torch.ones(1), torch.ones(1))
LIMIT = 180.0  # seconds; a mutant may well wait for ever
PASSED, FAILED = pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED


@dataclass
class Outcome:
    """Who noticed, nobody if all is well, and how long it took."""

    killers: list[str]
    seconds: float


def run(
    tree: Tree, tests: Iterable[str], mutant: str | None = None, limit: float = LIMIT
) -> Outcome:
    """Run tests of a tree: all of them, or with a mutant up to the first that notices it.

    Args:
        tree: where.
        tests: pytest's ids, from ``python_tests``.
        mutant: what the environment says to the kernels; None for no mutant at all.
        limit: seconds after which it is ended.

    Raises:
        NoVerdict: pytest found no such test, or could not import one.
    """
    log = tree.folder / "log.txt"
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        _become_pytest(tree.folder, list(tests), mutant, log)
    try:
        status = _wait(child, start + limit)
    except BaseException:  # somebody has had enough
        os.killpg(child, signal.SIGKILL)
        raise
    seconds = time.monotonic() - start
    if status is None:
        return Outcome([f"the limit of {limit:.0f} s"], seconds)
    code = os.waitstatus_to_exitcode(status)
    said = log.read_text(errors="replace")
    if code == PASSED:
        return Outcome([], seconds)
    if code == FAILED:
        named = re.findall(r"^(?:FAILED|ERROR) python_tests/(.*?)(?: - .*)?$", said, re.MULTILINE)
        return Outcome(named or ["a test"], seconds)
    if code < 0:
        return Outcome([signal.Signals(-code).name], seconds)
    raise NoVerdict(f"pytest ended with {code}:\n{said[-3000:]}")


def _become_pytest(folder: Path, tests: list[str], mutant: str | None, log: Path) -> None:
    """In the child; does not return."""
    code = 70
    try:
        os.setsid()  # so that it can be ended with whatever it starts
        with log.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(folder)
        sys.path[:] = [str(folder), *(p for p in sys.path if p not in ("", str(ROOT)))]
        sys.dont_write_bytecode = True  # a patch may be as long and as old as what it replaces
        os.environ["PYTHONPATH"] = str(folder)
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        os.environ["FASTSEQ_MUTANT"] = mutant or ""
        options = ["-q", "--tb=short"] + ["-x"] * (mutant is not None)
        code = int(pytest.main([*options, *(f"python_tests/{test}" for test in tests)]))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _wait(child: int, until: float) -> int | None:
    """The child's status, or None if it had to be ended."""
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        if time.monotonic() > until:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.02)


@contextmanager
def made_in(tree: Tree, mutant: Mutant) -> Iterator[str]:
    """Makes the mistake, and takes it back; yields what the environment must say meanwhile."""
    if mutant.compiled:
        yield mutant.code
        return
    path = tree.folder / mutant.file
    right = path.read_text()
    path.write_text(mutant.patched(right))
    try:
        yield ""
    finally:
        path.write_text(right)
