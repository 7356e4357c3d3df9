"""Compiles whole recurrences with ThreadSanitizer, and runs them on teams of threads.

    python -m python_tests.races

In build/races, without Python or torch around the kernels: OpenMP's own threads are strange to the
sanitizer, and would need suppressions that could hide ours. The teams and barriers alone are in
the tests (``test_team_races.py``); this takes minutes.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CPU = ROOT / "csrc/kernels/cpu"
# The baseline's kernels are those of the wider instruction sets but for the width of a vector.
KERNELS = ("recurrence_forward", "recurrence_backward", "linear", "step")
OTHERS = ("recurrence_dispatch", "capability", "caches", "plan")
FLAGS = (
    "-std=gnu++20", "-O1", "-g", "-fsanitize=thread", "-pthread", "-Wno-psabi",
    "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", f"-I{ROOT / 'csrc'}",
    f"-I{ROOT / 'python_tests'}",
)  # fmt: skip
BASELINE = (
    "-DFASTSEQ_CAPABILITY=baseline", "-DFASTSEQ_VECTOR_BYTES=16", "-DFASTSEQ_FEW_COPIES",
)  # fmt: skip


def main() -> int:
    """Build and run; the status is 66 where the sanitizer complained."""
    compiler = os.environ.get("CXX", "c++")
    folder = ROOT / "build/races"
    folder.mkdir(parents=True, exist_ok=True)

    def compiled(source: Path) -> Path:
        built = folder / f"{source.stem}.o"
        flags = BASELINE if source.stem in KERNELS else ()
        subprocess.run([compiler, *FLAGS, *flags, "-c", source, "-o", built], check=True)
        return built

    sources = [CPU / f"{name}.cpp" for name in KERNELS + OTHERS]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, [*sources, ROOT / "python_tests/races/recurrences.cpp"]))
    program = folder / "recurrences"
    subprocess.run([compiler, "-fsanitize=thread", "-pthread", *objects, "-o", program], check=True)
    # The sanitizer's memory map leaves no room for addresses as random as those of new kernels.
    setarch = shutil.which("setarch")
    before = [setarch, platform.machine(), "-R"] if setarch else []
    return subprocess.run([*before, str(program)]).returncode


if __name__ == "__main__":
    raise SystemExit(main())
