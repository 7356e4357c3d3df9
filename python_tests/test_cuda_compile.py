"""What the CUDA compiler makes of every kernel: no spills, no stack, registers under a ceiling.

The ceilings stand in cuda_limits.json, by kernel template and architecture: the most registers that
any of its instances takes. After a change that is meant to raise them:
``python python_tests/test_cuda_compile.py``.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIMITS = Path(__file__).with_name("cuda_limits.json")
FILES = ("recurrence", "pool", "lrn", "trio")
ARCHITECTURES = ("sm_80", "sm_90a", "sm_100")
NVCC = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
ENTRY = re.compile(
    r"Function properties for (?P<name>\S+)\s+(?P<stack>\d+) bytes stack frame, "
    r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads\s+"
    r"ptxas info\s+: Used (?P<registers>\d+) registers"
)


@dataclass
class Kernel:
    name: str  # mangled
    stack: int
    spills: int
    registers: int

    @property
    def template(self) -> str:
        """The kernel's own name: the last part of a mangled nested name, before its arguments."""
        parts, rest = [], self.name.removeprefix("_ZN")
        while match := re.match(r"(\d+)", rest):
            length = int(match[1])
            parts.append(rest[match.end() : match.end() + length])
            rest = rest[match.end() + length :]
        return parts[-1]


def compiled(file: str, architecture: str) -> list[Kernel]:
    """Compile one file for one architecture and read what ptxas says of its kernels."""
    assert NVCC
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                NVCC, "-std=c++20", "-O3", "--expt-relaxed-constexpr", f"-arch={architecture}",
                "-Xptxas", "-v", "-cubin", "-o", f"{folder}/out.cubin",
                str(ROOT / f"csrc/kernels/cuda/{file}.cu"),
            ],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr, done.stderr
    return [
        Kernel(m["name"], int(m["stack"]), int(m["stores"]) + int(m["loads"]), int(m["registers"]))
        for m in ENTRY.finditer(done.stderr)
    ]


def most_registers(kernels: list[Kernel]) -> dict[str, int]:
    most: dict[str, int] = {}
    for kernel in kernels:
        most[kernel.template] = max(kernel.registers, most.get(kernel.template, 0))
    return dict(sorted(most.items()))


@pytest.mark.packaging
@pytest.mark.skipif(NVCC is None, reason="no CUDA compiler")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("file", FILES)
def test_kernels_fit_in_registers(file: str, architecture: str) -> None:
    kernels = compiled(file, architecture)
    assert kernels
    for kernel in kernels:
        assert kernel.stack == kernel.spills == 0, kernel
    ceilings = json.loads(LIMITS.read_text())[file][architecture]
    found = most_registers(kernels)
    assert found.keys() == ceilings.keys()
    for name, registers in found.items():
        assert registers <= ceilings[name], name


def test_limits_name_every_file_and_architecture() -> None:
    limits = json.loads(LIMITS.read_text())
    assert limits.keys() == set(FILES)
    assert {f"{name}.cu" for name in FILES} == {
        path.name for path in (ROOT / "csrc/kernels/cuda").glob("*.cu")
    }
    for by_architecture in limits.values():
        assert by_architecture.keys() == set(ARCHITECTURES)


if __name__ == "__main__":
    LIMITS.write_text(
        json.dumps(
            {
                file: {name: most_registers(compiled(file, name)) for name in ARCHITECTURES}
                for file in FILES
            },
            indent=1,
        )
        + "\n"
    )
