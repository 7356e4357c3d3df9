"""Make what a release is made of, look into it, and try it where users will: ``nox -s release``.

Builds the source archive and from it the wheel, renames the wheel for the oldest Linux that it runs
on, checks it, and runs the quick tests on that same file beside the oldest and the newest torch and
Python of this machine. What it made lies in dist/. Every step that fails ends it with its words.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLATFORM = "manylinux_2_28_x86_64"  # that of torch's own wheels
# The user's: torch's, and the driver's.
NOT_OURS = ("libtorch_cpu.so", "libtorch_cuda.so", "libcuda.so.1")
OLDEST_TORCH = "2.11.0"
TESTS = ("pytest>=8.2", "expecttest>=0.2", "numpy")


def run(*command: str | Path, quiet: bool = True, **options: object) -> str:
    """Run a command; what it printed, or the end of this program with that."""
    done = subprocess.run(
        [str(part) for part in command],
        text=True,
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.STDOUT if quiet else None,
        check=False,
        **options,  # type: ignore[call-overload]
    )
    if done.returncode:
        sys.exit(f"{done.stdout or ''}\n{' '.join(map(str, command))}: exit {done.returncode}")
    return done.stdout or ""


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Say what is being done, and how long it took."""
    began = time.monotonic()
    print(f"== {name}", flush=True)
    yield
    print(f"   {time.monotonic() - began:.0f} s", flush=True)


def build(into: Path) -> Path:
    """The source archive into dist/, and the wheel that comes of it into a folder."""
    run(sys.executable, "-m", "build", "--sdist", "--outdir", ROOT / "dist", ROOT)
    archive = max((ROOT / "dist").glob("*.tar.gz"), key=lambda path: path.stat().st_mtime)
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", into, archive)
    return next(into.glob("*.whl"))


def repair(wheel: Path) -> Path:
    """The wheel under the name of the platform that auditwheel finds it fit for, into dist/."""
    excluded = [f"--exclude={name}" for name in NOT_OURS]
    made = wheel.parent / "repaired"
    run(
        *(sys.executable, "-m", "auditwheel", "repair", "--plat", PLATFORM, "--only-plat"),
        *(*excluded, "-w", made, wheel),
    )
    repaired = next(made.glob("*.whl"))
    if not repaired.name.endswith(f"-py3-none-{PLATFORM}.whl"):
        sys.exit(f"the wheel is named {repaired.name}")
    return Path(shutil.copy(repaired, ROOT / "dist"))


def inspect(wheel: Path) -> None:
    """Print what is in the wheel; end where it is more than the stable ABI, or asks for more."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
        package = Path(folder) / "fastseq"
        if list(Path(folder).glob("*.libs")):
            sys.exit("auditwheel copied libraries into the wheel; name them in NOT_OURS")
        facts = json.loads((package / "lib" / "build.json").read_text())
        print(f"   {wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB")
        for library in sorted(package.glob("lib/*.so")):
            report = json.loads(run("torch-abi-audit", "--json", library))
            [found] = report["bundled_libs"] or report["extensions"]
            of_torch = found["torch"]
            oldest = of_torch["min_torch_version"]
            if not of_torch["stable"] or of_torch["unknown_shim_symbols"]:
                sys.exit(f"{library.name} asks torch for more than the stable ABI: {of_torch}")
            if oldest != OLDEST_TORCH:
                sys.exit(f"{library.name} asks for torch {oldest}, and {OLDEST_TORCH} is promised")
            of = facts["cuda_architectures"] if "cuda" in library.name else facts["compiler"]
            size = library.stat().st_size / 1e6
            print(f"   {library.name}: {size:.1f} MB, {of}, torch {oldest} or newer")


def pythons() -> list[Path]:
    """Every Python from 3.10 on that this machine offers, one of a version, oldest first."""
    folders = [Path(p) for p in os.environ["PATH"].split(os.pathsep)]
    folders += Path.home().glob(".pyenv/versions/3.*/bin")
    found: dict[tuple[int, int], Path] = {}
    for folder in folders:
        for path in folder.glob("python3.*"):
            version = re.fullmatch(r"python3\.(\d+)", path.name)
            if version and int(version[1]) >= 10 and works(path):
                found.setdefault((3, int(version[1])), path)
    return [found[version] for version in sorted(found)]


def works(python: Path) -> bool:
    """Whether it runs, and can make environments."""
    try:
        done = subprocess.run([python, "-c", "import venv, ensurepip"], capture_output=True)
    except OSError:
        return False
    return done.returncode == 0


def attempt(wheel: Path, python: Path, torch: str) -> None:
    """Install the wheel into a fresh environment where no compiler is found; run the quick tests.

    Args:
        wheel: the file.
        python: makes the environment.
        torch: a version, or "" for the newest.
    """
    with tempfile.TemporaryDirectory() as folder:
        run(python, "-m", "venv", folder)
        bin_ = Path(folder) / "bin"
        alone = {**os.environ, "PATH": str(bin_), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        wanted = f"torch=={torch}" if torch else "torch"
        # Bytecode of all of torch takes longer than what the tests import of it.
        install = (bin_ / "python", "-m", "pip", "install", "-q", "--no-compile")
        run(*install, wanted, wheel, *TESTS, env=alone)
        tests = Path(folder) / "tests"  # where no checkout is beside them
        shutil.copytree(ROOT / "python_tests", tests / "python_tests")
        shutil.copy(ROOT / "pyproject.toml", tests)
        code = "import sys; from fastseq import check; sys.exit(not check.run(quick=True).ok)"
        run(bin_ / "python", "-c", code, env=alone, cwd=folder)
        known = {**alone, "PATH": os.environ["PATH"]}  # some tests compile for themselves
        said = run(bin_ / "pytest", "-q", "@python_tests/quick.txt", env=known, cwd=tests)
        print(f"   {said.strip().splitlines()[-1]}")


def main(arguments: Sequence[str] | None = None) -> None:
    """What the command does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheel", type=Path, help="look into and try this one; build none")
    parser.add_argument("--build-only", action="store_true", help="try it nowhere")
    options = parser.parse_args(arguments)
    if options.wheel:
        wheel = options.wheel
    else:
        with tempfile.TemporaryDirectory() as folder:
            with stage("build"):
                built = build(Path(folder))
            with stage("repair"):
                wheel = repair(built)
    with stage("inspect"):
        inspect(wheel)
    if options.build_only:
        return
    here = pythons()
    for python, torch in ((here[0], OLDEST_TORCH), (here[-1], "")):
        with stage(f"{python.name}, torch {torch or 'newest'}"):
            attempt(wheel, python, torch)


if __name__ == "__main__":
    main()
