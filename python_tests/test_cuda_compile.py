"""What the CUDA compiler made of every kernel: no spills, no stack, registers under a ceiling.

Read from the library that is installed. The ceilings stand in cuda_limits.json, by file,
architecture and kernel template: the most registers that any of its instances takes. After a change
that is meant to raise them: ``python python_tests/test_cuda_compile.py``.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from fastseq._library import CUDA_LIBRARY

ROOT = Path(__file__).resolve().parents[1]
LIMITS = Path(__file__).with_name("cuda_limits.json")
ARCHITECTURES = {"sm_75", "sm_80", "sm_90", "sm_100", "sm_120"}
Limits = dict[str, dict[str, dict[str, int]]]


@dataclass(frozen=True)
class Kernel:
    name: str  # mangled
    architecture: str
    registers: int
    stack: int
    local: int  # memory: what spills, or is indexed at run time

    @property
    def file(self) -> str:
        """The source file, as far as an anonymous namespace names it; else it is in a header."""
        found = re.search(r"_GLOBAL__N__[0-9a-f]+_\d+_(\w+?)_cu_", self.name)
        return found[1] if found else "headers"

    @property
    def template(self) -> str:
        """The kernel's own name: the last part of a mangled nested name, before its arguments."""
        parts, rest = [], self.name.removeprefix("_ZN")
        while match := re.match(r"(\d+)", rest):
            length = int(match[1])
            parts.append(rest[match.end() : match.end() + length])
            rest = rest[match.end() + length :]
        return parts[-1]


def cuobjdump() -> str | None:
    """CUDA's, or the one that comes with torch's Triton."""
    if found := shutil.which("cuobjdump") or shutil.which("/usr/local/cuda/bin/cuobjdump"):
        return found
    spec = find_spec("triton")
    folders = (spec.submodule_search_locations if spec else None) or []
    return next(
        filter(None, (shutil.which(f"{f}/backends/nvidia/bin/cuobjdump") for f in folders)), None
    )


def kernels(library: Path) -> Iterator[Kernel]:
    """Every kernel for every architecture in a library."""
    tool = cuobjdump()
    assert tool
    dump = subprocess.run(
        [tool, "--dump-resource-usage", str(library)], capture_output=True, text=True, check=True
    ).stdout
    architecture = name = ""
    for line in dump.splitlines():
        if found := re.search(r"arch = (sm_\w+)", line):
            architecture = found[1]
        elif found := re.search(r"Function (\S+):$", line):
            name = found[1]
        elif found := re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", line):
            yield Kernel(name, architecture, *map(int, found.groups()))


def most_registers(found: list[Kernel]) -> Limits:
    most: Limits = {}
    for kernel in sorted(found, key=lambda k: (k.file, k.architecture, k.template)):
        templates = most.setdefault(kernel.file, {}).setdefault(kernel.architecture, {})
        templates[kernel.template] = max(kernel.registers, templates.get(kernel.template, 0))
    return most


@pytest.fixture(scope="module")
def built() -> list[Kernel]:
    if not CUDA_LIBRARY.exists():
        pytest.skip("this fastseq was built without CUDA kernels")
    if not cuobjdump():
        pytest.skip("neither CUDA's nor Triton's cuobjdump is installed")
    return list(kernels(CUDA_LIBRARY))


def test_no_kernel_spills(built: list[Kernel]) -> None:
    assert len(built) > 300
    assert [kernel for kernel in built if kernel.stack or kernel.local] == []


def test_registers_stay_under_their_ceilings(built: list[Kernel]) -> None:
    limits: Limits = json.loads(LIMITS.read_text())
    for file, by_architecture in most_registers(built).items():
        for architecture, templates in by_architecture.items():
            if architecture not in ARCHITECTURES:
                continue  # built for another one
            ceilings = limits[file][architecture]
            assert templates.keys() == ceilings.keys()
            for name, registers in templates.items():
                assert registers <= ceilings[name], (file, architecture, name)


def test_limits_name_every_file_and_architecture() -> None:
    limits: Limits = json.loads(LIMITS.read_text())
    sources = {path.stem for path in (ROOT / "csrc/kernels/cuda").glob("*.cu")}
    assert limits.keys() == {*sources, "headers"}
    for by_architecture in limits.values():
        assert by_architecture.keys() == ARCHITECTURES


if __name__ == "__main__":
    LIMITS.write_text(json.dumps(most_registers(list(kernels(CUDA_LIBRARY))), indent=1) + "\n")
