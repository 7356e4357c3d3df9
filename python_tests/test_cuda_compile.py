"""What the CUDA compiler made of every kernel: no spills, no stack, registers under a ceiling.

Read from the library that is installed. The ceilings stand in cuda_limits.json, by file,
architecture and kernel template: the most registers that any of its instances takes. After a change
that is meant to raise them: ``python python_tests/test_cuda_compile.py``.

What no kernel of the library asks of the device yet (words between blocks, barriers of some warps)
is compiled here, in the kernels that the machine of simt/ is tested with; and so are, for all
architectures, those kernels of the library that are closest to the end of their registers.
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

from fastseq._build import CUDA_LIBRARY

ROOT = Path(__file__).resolve().parents[1]
LIMITS = Path(__file__).with_name("cuda_limits.json")
ARCHITECTURES = {"sm_75", "sm_80", "sm_90", "sm_100", "sm_120"}
WRITES_OUT = {"sm_100", "sm_120"}
TWINS = 8  # kernels of device_twins.cu
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


def nvcc() -> str | None:
    return shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")


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
    assert len(built) > 150
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


def test_strips_move_whole_vectors(built: list[Kernel]) -> None:
    """On odd planes, too: 16 bytes of x, of a gradient and of the result in one instruction."""
    names = sorted({k.name for k in built if "strip" in k.template and "BFloat16" in k.name})
    assert len(names) == 8
    assert vectors_missing(CUDA_LIBRARY, names) == []


def test_rows_move_whole_vectors(built: list[Kernel]) -> None:
    """In channels_last: loads always, and stores where a row is flat."""
    names = sorted({k.name for k in built if "_rows_" in k.template and "BFloat16" in k.name})
    flat = [name for name in names if re.search(r"BFloat16E(Li5E)?Lb1E", name)]
    assert (len(names), len(flat)) == (8, 4)
    assert vectors_missing(CUDA_LIBRARY, names, (LOADS,)) == []
    assert vectors_missing(CUDA_LIBRARY, flat) == []


LOADS, STORES = r"LDG\.E\.128", r"STG\.E\.128"


def vectors_missing(
    library: Path, names: list[str], words: tuple[str, ...] = (LOADS, STORES)
) -> list[str]:
    """Which of these kernels lack loads or stores of 16 bytes, on some architecture."""
    tool = cuobjdump()
    assert tool
    command = [tool, "-sass", "-fun", ",".join(names), str(library)]
    dump = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"Function : (\S+)(.*?)(?=Function :|\Z)", dump, re.DOTALL)
    assert {name for name, _ in found} == set(names)
    return [name for name, text in found if not all(re.search(word, text) for word in words)]


def test_limits_name_every_file_and_architecture() -> None:
    limits: Limits = json.loads(LIMITS.read_text())
    files = (ROOT / "csrc/kernels/cuda").glob("*.cu")
    own = {path.stem for path in files if "FASTSEQ_KERNEL" in path.read_text()}
    mailbox = limits.pop("mailbox_twins")  # test_cuda_mailbox.py
    assert mailbox.keys() == ARCHITECTURES - {"sm_75"}
    assert limits.keys() == {*own, "headers"}
    for by_architecture in limits.values():
        assert by_architecture.keys() == ARCHITECTURES


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """device_twins.cu for every architecture: some seconds of one core."""
    compiler = nvcc()
    if not compiler:
        pytest.skip("there is no nvcc")
    binary = tmp_path_factory.mktemp("twins") / "twins.fatbin"
    numbers = [architecture.removeprefix("sm_") for architecture in sorted(ARCHITECTURES)]
    targets = [f"-gencode=arch=compute_{n},code=sm_{n}" for n in numbers]
    source = ROOT / "python_tests/simt/device_twins.cu"
    options = ("-std=c++20", "--expt-relaxed-constexpr", "-Werror=all-warnings", "--threads=2")
    subprocess.run([compiler, *options, *targets, "-fatbin", "-o", binary, source], check=True)
    return binary


def test_device_words_compile_for_every_architecture(twins: Path) -> None:
    if not cuobjdump():
        pytest.skip("neither CUDA's nor Triton's cuobjdump is installed")
    found = list(kernels(twins))
    assert {kernel.architecture for kernel in found} == ARCHITECTURES
    assert len(found) == TWINS * len(ARCHITECTURES)
    assert [kernel for kernel in found if kernel.stack or kernel.local] == []


# By their place in a mangled name: products of a step, those of all tiles and K steps of a warp.
SELF = {
    "self_forward_kernelINS_8BFloat16E": 2 * 8,
    "self_backward_kernelINS_8BFloat16E": 4 * 8,
    "self_backward_kernelIf": 4 * 12,
}


def test_device_words_become_the_instructions_meant(twins: Path) -> None:
    """Words without a fence; products on the tensor cores, but for bfloat16 and TF32 on sm_75."""
    tool = cuobjdump()
    if not tool:
        pytest.skip("neither CUDA's nor Triton's cuobjdump is installed")
    dump = subprocess.run([tool, "-sass", twins], capture_output=True, text=True, check=True).stdout
    seen = set()
    for listing in re.split(r"(?=arch = sm_)", dump)[1:]:
        architecture = listing.split()[2]
        code = dict(re.findall(r"Function : (\S+)(.*?)(?=Function :|\Z)", listing, re.DOTALL))
        for name, text in code.items():
            if "mailbox" in name:
                assert "LDG.E.STRONG.GPU" in text
                assert "STG.E.STRONG.GPU" in text
                assert not re.search(r"MEMBAR|CCTL|ERRBAR|FENCE", text)
            elif "self_" in name:
                products = next(n for part, n in SELF.items() if part in name)
                kind = "BF16" if "BFloat16" in name else "TF32"
                found = len(re.findall(rf"HMMA\.\d+\.F32\.{kind} ", text))
                # From sm_100 on ptxas writes an LSTM's first step back out, before the loop.
                copies = {1, 2} if architecture in WRITES_OUT and "backward" in name else {1}
                made = {0} if architecture == "sm_75" else {n * products for n in copies}
                assert found in made, (architecture, name)
                assert ("LDSM.16.M88.4" in text) == (architecture != "sm_75")
                assert not re.search(r"\b(LDL|STL)\b", text)
            elif architecture == "sm_75" and re.search("Tf32|BFloat16", name):
                assert "BPT.TRAP" in text
            elif "on_tile" in name:
                kind = ".TF32" if "Tf32" in name else ".BF16" if "BFloat16" in name else ""
                assert re.search(rf"HMMA\.\d+\.F32{kind} ", text)
                assert "LDSM.16.M88.4" in text
            seen.add((architecture, name))
    assert len(seen) == TWINS * len(ARCHITECTURES)


if __name__ == "__main__":
    limits = json.loads(LIMITS.read_text()) | most_registers(list(kernels(CUDA_LIBRARY)))
    LIMITS.write_text(json.dumps(limits, indent=1) + "\n")
