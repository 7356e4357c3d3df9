"""The package as strangers meet it: sdist, wheel, fresh environments, oldest torch, errors."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import fastseq

ROOT = Path(__file__).resolve().parents[1]
OLDEST = "2.11.0"
SMOKE = """
import sys, torch, fastseq
from fastseq import check
assert fastseq.__file__.startswith(sys.argv[1]), fastseq.__file__
report = check.run(quick=True)
print(report.table())
print("torch", torch.__version__, "ok" if report.ok else "MISMATCH")
"""


def run(
    *command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **(env or {})},
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=1500,
    )


def succeed(*command: str | Path, **options: object) -> str:
    done = run(*command, **options)  # type: ignore[arg-type]
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


# The package under test was built with everything; these builds are for the way they come about.
QUICK = {
    "FASTSEQ_CUDA": "0",
    "FASTSEQ_BASELINE_ONLY": "1",
    "FASTSEQ_TORCH_DIR": str(Path(torch.__file__).parent),
}


class Environment:
    """A fresh virtual environment, outside the checkout."""

    def __init__(self, folder: Path, borrow_torch: bool) -> None:
        venv.create(folder, with_pip=True)
        self.folder = folder
        self.python = folder / "bin" / "python"
        site = succeed(self.python, "-c", "import sysconfig; print(sysconfig.get_path('platlib'))")
        self.site = Path(site.strip())
        if borrow_torch:  # gigabytes: linked, not copied, and without the fastseq under test
            borrowed = folder / "borrowed"
            borrowed.mkdir()
            for entry in Path(sysconfig.get_path("platlib")).iterdir():
                if "fastseq" not in entry.name and entry.suffix != ".pth":
                    (borrowed / entry.name).symlink_to(entry)
            (self.site / "torch.pth").write_text(str(borrowed))

    def pip(self, *arguments: str | Path, **options: object) -> str:
        # Bytecode of all of torch would take longer than what the tests import of it.
        command = (self.python, "-m", "pip", "install", "-q", "--no-compile")
        return succeed(*command, *arguments, **options)

    def smoke(self) -> str:
        return succeed(self.python, "-c", SMOKE, self.folder, cwd=self.folder)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that is gone afterwards: an environment with torch takes 6 GB."""
    folder = tmp_path_factory.mktemp("packaging")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def source(work: Path) -> Path:
    """A copy of what git would clone."""
    copy = work / "source"
    keep = shutil.ignore_patterns(
        ".git", "build", "dist", "*.egg-info", "*.so", "runs", ".venv", "__pycache__", ".*_cache"
    )
    shutil.copytree(ROOT, copy, ignore=keep)
    return copy


@pytest.fixture(scope="module")
def sdist(work: Path, source: Path) -> Path:
    succeed(sys.executable, "-m", "build", "--sdist", "--no-isolation", "-o", work / "dist", source)
    return next((work / "dist").glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(work: Path, sdist: Path) -> Path:
    """Built from the sdist as an installer without a wheel would: isolated, for this torch."""
    succeed(
        sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", work / "wheels", sdist,
        env=QUICK,
    )  # fmt: skip
    return next((work / "wheels").glob("*.whl"))


@pytest.mark.packaging
def test_sdist_to_wheel_to_fresh_environment(work: Path, wheel: Path) -> None:
    environment = Environment(work / "fresh", borrow_torch=True)
    environment.pip("--no-deps", wheel)
    assert (environment.site / "fastseq" / "py.typed").exists()
    assert f"torch {torch.__version__} ok" in environment.smoke()


@pytest.mark.packaging
def test_the_same_wheel_beside_the_oldest_torch(work: Path, wheel: Path) -> None:
    environment = Environment(work / "oldest", borrow_torch=False)
    environment.pip(f"torch=={OLDEST}", "pytest", "expecttest", "numpy")
    environment.pip("--no-deps", wheel)
    assert f"torch {OLDEST}" in environment.smoke()
    # What crosses the ABI: every op with every type, through modules, packed or not.
    names = ("test_recurrent_parity.py", "test_ops.py", "test_layer.py")
    tests = [ROOT / "python_tests" / name for name in names]
    chosen = "test_packed or test_sizes or opcheck and (padded or packed or projection)"
    succeed(environment.python, "-m", "pytest", "-q", *tests, "-k", chosen, cwd=work)
    shutil.rmtree(environment.folder)


@pytest.mark.packaging
def test_editable_install(work: Path, source: Path) -> None:
    """`pip install --no-build-isolation -e .`, as CONTRIBUTING has it, runs in place."""
    # The kernels are not to run: unoptimised they compile in less than half the time.
    launcher = work / "launcher"
    launcher.write_text('#!/bin/sh\nexec "$@" -O0\n')
    launcher.chmod(0o755)
    environment = Environment(work / "editable", borrow_torch=True)
    environment.pip("setuptools>=77")  # the rest is borrowed
    environment.pip(
        *("--no-deps", "--no-build-isolation", "-e", source),
        env={**QUICK, "CMAKE_CXX_COMPILER_LAUNCHER": str(launcher)},
    )
    code = "import fastseq; print(fastseq.__file__, fastseq.info()['CPU capability'])"
    out = succeed(environment.python, "-c", code, cwd=work)
    assert out.split()[:2] == [str(source / "fastseq" / "__init__.py"), "baseline"]


def requirements(env: dict[str, str]) -> str:
    code = "from setuptools import build_meta as b; print(b.get_requires_for_build_wheel())"
    return succeed(sys.executable, "-c", code, cwd=ROOT, env=env)


def test_torch_is_a_build_requirement_only_where_there_is_none(tmp_path: Path) -> None:
    assert "torch" not in requirements({"FASTSEQ_TORCH_DIR": str(Path(torch.__file__).parent)})
    assert "torch>=2.11" in requirements({"FASTSEQ_TORCH_DIR": str(tmp_path)})


def test_a_torch_that_is_too_old_is_not_used(tmp_path: Path) -> None:
    header = tmp_path / "include/torch/csrc/stable/library.h"
    header.parent.mkdir(parents=True)
    header.touch()
    (tmp_path / "version.py").write_text("__version__ = '2.10.1+cu126'\ncuda: str = '12.6'\n")
    assert "torch>=2.11" in requirements({"FASTSEQ_TORCH_DIR": str(tmp_path)})
    (tmp_path / "version.py").write_text("__version__ = '2.11.0+cu130'\ncuda: str = '13.0'\n")
    assert "torch" not in requirements({"FASTSEQ_TORCH_DIR": str(tmp_path)})


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ({"FASTSEQ_TORCH_DIR": "/nonexistent"}, "building needs torch 2.11 or newer"),
        ({"CXX": "no-such-compiler"}, "needs a C++ compiler, and no-such-compiler was not found"),
        ({"FASTSEQ_CUDA": "yes"}, "FASTSEQ_CUDA is 'yes'; it should be auto, 0 or 1"),
        (
            {"FASTSEQ_CUDA": "1", "CUDA_HOME": "/nonexistent", "CUDACXX": ""},
            "FASTSEQ_CUDA=1, but no nvcc was found",
        ),
        ({"PATH": ""}, "building needs a C++ compiler"),
    ],
    ids=["no torch", "no such compiler", "bad switch", "no nvcc", "nothing installed"],
)
def test_a_build_that_cannot_be_says_what_to_do(
    env: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    done = run(
        sys.executable, "setup.py", "build_ext",
        "--build-temp", tmp_path / "temp", "--build-lib", tmp_path / "lib",
        cwd=ROOT, env=env,
    )  # fmt: skip
    assert done.returncode != 0
    assert sentence in done.stdout
    assert "Traceback" not in done.stdout


def test_the_cuda_library_names_what_it_was_built_for() -> None:
    """Where CUDA kernels are built in, they load beside this torch, GPU or not."""
    info = fastseq.info()
    architectures = info["CUDA architectures"]
    if architectures == "none":
        assert info["CUDA kernels"].startswith(("not built", "not loaded"))
    else:
        assert info["CUDA kernels"] == "loaded" or torch.version.cuda is None
