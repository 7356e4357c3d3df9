"""A copy of the checkout to make mistakes in, and a build of its kernels."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from .mutant import SWITCH, Mutant, with_switches

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("csrc", "fastseq", "python_tests", "benchmarks", "third_party")
FILES = ("CMakeLists.txt", "pyproject.toml", "setup.py")
LEFT_OUT = {"__pycache__", "results"}
LIBRARY = Path("lib/libfastseq_cpu.so")


def installed() -> Path:
    """The package whose compiled parts are used: this checkout's, or the one that is installed."""
    for folder in (str(ROOT), *sys.path):
        if (Path(folder, "fastseq") / LIBRARY).exists():
            return Path(folder, "fastseq")
    raise SystemExit("fastseq is not built: run 'pip install -e .' first")


def sources() -> dict[Path, bytes]:
    """What the copy holds, by path from the root."""
    found = [ROOT / name for name in FILES]
    for folder in FOLDERS:
        found += (path for path in (ROOT / folder).rglob("*") if path.is_file())
    return {
        path.relative_to(ROOT): path.read_bytes()
        for path in found
        if path.suffix != ".so" and not LEFT_OUT.intersection(path.parts)
    }


def write(path: Path, content: bytes) -> None:
    """Write what differs, so that a second build compiles what has changed and no more."""
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


class Tree:
    """A copy of the checkout in ``folder``, whose C++ holds ``mutants`` if any are given."""

    def __init__(self, folder: Path, mutants: Iterable[Mutant] = ()) -> None:
        self.folder = folder
        by_file: dict[str, list[Mutant]] = defaultdict(list)
        for mutant in mutants:
            by_file[mutant.file].append(mutant)
        switch = folder / "mutants.h"
        write(switch, SWITCH.encode())
        content = sources()
        for file, group in by_file.items():
            text = content[Path(file)].decode()
            content[Path(file)] = with_switches(text, group, str(switch)).encode()
        for path, value in content.items():
            write(folder / path, value)
        for top in FOLDERS:  # what was there before and is no longer
            for path in (folder / top).rglob("*"):
                if path.is_file() and path.relative_to(folder) not in content:
                    path.unlink()
        package = installed()
        for path in (package / LIBRARY, package / LIBRARY.with_name("build.json")):
            write(folder / "fastseq" / path.relative_to(package), path.read_bytes())

    def build(self, jobs: int, flags: str = "-O1") -> None:
        """Compile the kernels, for no instruction set in particular, and use them."""
        build = self.folder / "cmake"
        configure = [
            "cmake", "-S", str(self.folder), "-B", str(build), "-G", "Ninja",
            "-DCMAKE_BUILD_TYPE=Mutants", f"-DCMAKE_CXX_FLAGS={flags}",
            "-DFASTSEQ_BASELINE_ONLY=ON", "-DFASTSEQ_BASELINE_COPIES=ON",
        ]  # fmt: skip
        compile_ = ["cmake", "--build", str(build), "--target", "fastseq_cpu", "-j", str(jobs)]
        compile_ += ["--", "-k", "0"]  # every mutant that does not compile, not the first alone
        for command in (configure, compile_):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                errors = [line for line in done.stdout.splitlines() if "error" in line]
                raise SystemExit("\n".join([*errors[:20], "the kernels do not compile"]))
        shutil.copyfile(build / "libfastseq_cpu.so", self.folder / "fastseq" / LIBRARY)
