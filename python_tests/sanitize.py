"""Compiles the CPU kernels with AddressSanitizer and UBSan, and runs the tests of the ops on them.

    python -m python_tests.sanitize                         some minutes to compile, some to run
    python -m python_tests.sanitize python_tests/test_ops.py -k packed

In a copy of the checkout, build/sanitize. Every access beyond a tensor, a workspace or the stack,
every use of what was freed, and every overflow, shift or alignment that C++ does not define ends
the run with a trace. The build is the baseline with all its copies: the loops are those of the
wider instruction sets, which differ from it in the width of a vector.
"""

from __future__ import annotations

import os
import subprocess
import sys

from .mutants.tree import ROOT, Tree

FLAGS = (
    "-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined "
    "-fno-sanitize-recover=undefined -fno-sanitize=vptr"
)
TESTS = (
    "test_ops.py", "test_layer.py", "test_extended_layer.py", "test_absent_rows.py",
    "test_quick.py", "test_streaming.py", "test_lrn.py", "test_pool.py", "test_trio.py",
    "test_teams.py",
)  # fmt: skip
# What needs files of ONNX's, starts processes of its own, or holds a clock to what is slow here.
LEFT_OUT = "not opinfo and not onnx and not worker and not more_threads_than_cores"


def library(name: str) -> str:
    """Where the compiler has a library of its own."""
    compiler = os.environ.get("CXX", "c++")
    found = subprocess.run(
        [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if os.sep not in found:
        raise SystemExit(f"{compiler} has no {name}: install its sanitizers, or set CXX")
    return found


def main() -> int:
    """Build, and run the tests, or those that were named."""
    tree = Tree(ROOT / "build/sanitize")
    tree.build(os.cpu_count() or 1, FLAGS)
    environment = {
        **os.environ,
        # Before everything else: Python itself was built without.
        "LD_PRELOAD": " ".join(library(name) for name in ("libasan.so", "libubsan.so")),
        # Python and torch keep what they have to the end; it is no leak of ours.
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "FASTSEQ_KEEP_MB": "0",  # so that a block that is given back is gone
        "PYTHONPATH": str(tree.folder),
    }
    chosen = sys.argv[1:] or [f"python_tests/{name}" for name in TESTS]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", LEFT_OUT]
    return subprocess.run([*command, *chosen], cwd=tree.folder, env=environment).returncode


if __name__ == "__main__":
    raise SystemExit(main())
