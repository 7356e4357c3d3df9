"""What the CUDA compiler makes of the mailbox's kernels at the sizes that matter.

No spill and no stack, registers and shared memory under their ceilings, and in the loop over time
the instructions that it is made of: tensor cores, words without a fence, one barrier. The ceilings
stand in cuda_limits.json. After a change that is meant to raise them:
``python python_tests/test_cuda_mailbox.py``.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path

import pytest
from test_cuda_compile import LIMITS, ROOT, Kernel, cuobjdump, kernels, nvcc

SOURCE = "mailbox_twins"
# Before sm_80 tensor cores multiply neither bfloat16 nor TF32.
ARCHITECTURES = ("sm_80", "sm_90", "sm_100", "sm_120")
# Products that a warp makes of a tile in a step: tiles of the left operand, times those along K.
PRODUCTS = {
    "forward Lstm 256": 8,
    "forward Lstm 512": 16,
    "forward Lstm 1024": 32,
    "backward Lstm 256": 8,
    "backward Lstm 512": 16,
    "backward Lstm 1024": 32,
    "forward Gru 1024 half": 24,
    "backward Gru 1024 half": 24,
    "forward Elman 1024": 8,
    "backward Elman 1024": 8,
    "forward Lstm 512 float": 32,
    "backward Lstm 512 float": 32,
}


def loads(name: str) -> int:
    """Of 16 bytes a lane: a word is read once for all tiles, two products along K at a time."""
    tiles = {"forward Lstm": 4, "forward Gru": 3}.get(" ".join(name.split()[:2]), 1)
    return PRODUCTS[name] // tiles // 2


def short(kernel: str) -> str | None:
    """The name of an instance in PRODUCTS, of its mangled one."""
    found = re.search(
        r"mailbox_(forward|backward)_kernelI(f|NS_\d(?:BFloat16|Half)E?).*?\d(\w+?)Cell.*?Li(\d+)E",
        kernel,
    )
    if not found:
        return None
    way, dtype, cell, hidden = found.groups()
    kind = " float" if dtype == "f" else " half" if "Half" in dtype else ""
    return f"{way} {cell} {hidden}{kind}"


def compiled(folder: Path) -> Path:
    binary = folder / f"{SOURCE}.fatbin"
    compiler = nvcc()
    assert compiler
    targets = [f"-gencode=arch=compute_{a[3:]},code={a}" for a in ARCHITECTURES]
    source = ROOT / f"python_tests/simt/{SOURCE}.cu"
    options = ("-std=c++20", "--expt-relaxed-constexpr", "-Werror=all-warnings", "--threads=2")
    subprocess.run([compiler, *options, *targets, "-fatbin", "-o", binary, source], check=True)
    return binary


def registers(found: list[Kernel]) -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = {}
    for kernel in found:
        if name := short(kernel.name):
            table.setdefault(kernel.architecture, {})[name] = kernel.registers
    return table


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some seven seconds of one core an architecture."""
    if not nvcc():
        pytest.skip("there is no nvcc")
    if not cuobjdump():
        pytest.skip("neither CUDA's nor Triton's cuobjdump is installed")
    return compiled(tmp_path_factory.mktemp("mailbox"))


def test_registers_hold_the_weights(twins: Path) -> None:
    found = list(kernels(twins))
    assert [kernel for kernel in found if kernel.stack or kernel.local] == []
    ceilings = json.loads(LIMITS.read_text())[SOURCE]
    by_architecture = registers(found)
    assert by_architecture.keys() == set(ARCHITECTURES)
    for architecture, table in by_architecture.items():
        assert table.keys() == PRODUCTS.keys() == ceilings[architecture].keys()
        for name, count in table.items():
            assert count <= ceilings[architecture][name], (architecture, name)


def loop_of(code: str) -> str:
    """A listing from the loop over time on: behind the barrier before the first step."""
    return code.split("BAR.SYNC", 1)[1]


def test_a_step_is_made_of_the_instructions_meant(twins: Path) -> None:
    tool = cuobjdump()
    assert tool
    dump = subprocess.run([tool, "-sass", twins], capture_output=True, text=True, check=True).stdout
    seen = set()
    for listing in re.split(r"(?=arch = sm_)", dump)[1:]:
        architecture = listing.split()[2]
        code = dict(re.findall(r"Function : (\S+)(.*?)(?=Function :|\Z)", listing, re.DOTALL))
        for mangled, text in code.items():
            assert not re.search(r"\b(LDL|STL)\b", text), mangled
            name = short(mangled)
            if name is None:
                continue
            loop = loop_of(text)
            assert not re.search(r"MEMBAR|CCTL|ERRBAR|FENCE|ATOM|\bRED\b", loop), name
            kind = ".TF32" if "float" in name else "" if "half" in name else ".BF16"
            assert len(re.findall(rf"HMMA\.\d+\.F32{kind} ", loop)) == PRODUCTS[name], name
            # Asked for once at first, and once more while they are waited for.
            assert len(re.findall(r"LDG\.E\.128\.STRONG\.GPU", loop)) == 2 * loads(name), name
            assert "STG.E.STRONG.GPU" in loop
            assert len(re.findall(r"BAR\.SYNC", loop)) == 1, name
            seen.add((architecture, name))
    assert len(seen) == len(PRODUCTS) * len(ARCHITECTURES)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        limits = json.loads(LIMITS.read_text())
        limits[SOURCE] = registers(list(kernels(compiled(Path(folder)))))
        LIMITS.write_text(json.dumps(limits, indent=1, sort_keys=True) + "\n")
