"""The list of mutants (python_tests/mutants): that it is up to date, and that it finds who lives.

All of them run by ``python -m python_tests.mutants``, which takes minutes; here a few in Python do.
"""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from mutants.catalogue import MUTANTS, check
from mutants.mutant import Mutant, Stale, with_switches

ROOT = Path(__file__).parents[1]
SAMPLE = (
    "reference trio",
    "step_ takes what asks for a gradient",
    "recurrent_dropout is not scaled",
)


def mutant(name: str = "one", **changed: str) -> Mutant:
    values = {"file": "csrc/a.h", "old": "a + b", "new": "a - b", "at": "", **changed}
    return Mutant(name, values["file"], values["old"], values["new"], ("test_a.py",), values["at"])


def test_every_snippet_is_where_its_mutant_looks_for_it() -> None:
    """Where this fails, a source has moved on: aim the mutants that it names anew."""
    check(MUTANTS)


def test_names_and_codes_are_of_one_mutant_each() -> None:
    assert [n for n, count in Counter(m.name for m in MUTANTS).items() if count > 1] == []
    assert len({m.code for m in MUTANTS}) == len(MUTANTS)


def test_a_choice_between_right_and_wrong_can_compile() -> None:
    """Of C++ all mutants compile together: one that cannot keeps every other from running."""
    for found in MUTANTS:
        for text in (found.old, found.new) if found.compiled else ():
            for pair in ("()", "[]", "{}"):
                assert text.count(pair[0]) == text.count(pair[1]), found.name


def test_every_mutant_has_tests_that_are_there() -> None:
    for found in MUTANTS:
        assert found.tests, found.name
        for test in found.tests:
            path, _, name = test.partition("::")
            function = name.partition("[")[0]
            assert f"def {function}(" in (ROOT / "python_tests" / path).read_text(), found.name


def test_every_floor_has_mutants() -> None:
    """The ops by their stems, on each floor that they stand on."""
    files = {m.file for m in MUTANTS}
    for stem in ("recurrence", "layer", "linear", "step", "lrn", "pool", "trio"):
        assert any(stem in Path(file).name for file in files), stem
    for folder in ("kernels/cpu", "kernels/cuda", "ops", "autograd", "functional", "nn", "onnx",
                   "reference", "swap"):  # fmt: skip
        assert any(f"/{folder}/" in file for file in files), folder
    assert len(MUTANTS) >= 60


def test_stale_snippets_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "csrc").mkdir()
    (tmp_path / "csrc/a.h").write_text("c = a + b; d = a + b;\n")
    twice, gone = mutant("twice"), mutant("gone", old="a * b")
    right = mutant("right", at="d = a + b")
    missing = mutant("missing", file="csrc/b.h")
    with pytest.raises(Stale) as raised:
        check([twice, gone, right, missing], tmp_path)
    words = str(raised.value)
    assert "'twice' looks for 'a + b' once in csrc/a.h and finds it 2 times" in words
    assert "'gone' looks for 'a * b' once in csrc/a.h and finds it 0 times" in words
    assert "'missing' is of csrc/b.h, which is not there" in words
    assert "right" not in words


def test_switches_leave_the_rest_as_it_was() -> None:
    text = "c = a + b;\nd = e;\n"
    one, two = mutant(), mutant("two", old="d = e;", new="d = f;")
    made = with_switches(text, [two, one], "switch.h")
    assert made == (
        '#include "switch.h"\n'
        f"c = (fastseq_mutant == 0x{one.code}u ? (a - b) : (a + b));\n"
        f"if (fastseq_mutant == 0x{two.code}u) {{ d = f; }} else {{ d = e; }}\n"
    )
    with pytest.raises(Stale, match="overlap"):
        with_switches(text, [one, mutant("three", old="b;\nd")], "switch.h")


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """The command, with a mutant that changes nothing beside the others."""
    code = f"""
import sys
from python_tests.mutants import __main__ as command
from python_tests.mutants.mutant import Mutant
tests = ("test_trio.py::test_against_the_reference[torch.float32]",)
command.MUTANTS.append(
    Mutant("no change", "fastseq/reference/trio.py", "one after the other", "in a row", tests)
)
sys.argv[1:] = ["--only", "python", *{words!r}]
command.main()
"""
    environment = {n: v for n, v in os.environ.items() if not n.startswith("PYTEST")}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_few_are_killed_and_one_lives(tmp_path: Path) -> None:
    """By the command itself, in a copy of the checkout."""
    done = command("--folder", str(tmp_path), "no change", *SAMPLE)
    assert "1 of 4 mutants live: no change" in done.stderr, (done.stdout + done.stderr)[-3000:]
    assert done.returncode == 1
    assert "4 selections of tests pass without mutants" in done.stdout
    verdicts = [line.split("  ")[-1] for line in done.stdout.splitlines()[1:]]
    assert verdicts.count("ALIVE") == 1
    assert sum("::test_" in verdict for verdict in verdicts) == 3


def test_no_such_mutant() -> None:
    done = command("no such words")
    assert done.returncode == 1
    assert "no mutant's name has any of no such words in it" in done.stderr
