"""The scripts of benchmarks/, run in the process of the tests."""

import contextlib
import io
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    # In this process: to import torch again for each script would take most of the time.
    command = [str(BENCHMARKS / script), *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    threads, code = torch.get_num_threads(), 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", command)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                runpy.run_path(command[0], run_name="__main__")
            except SystemExit as end:
                code = int(end.code or 0)
            finally:
                torch.set_num_threads(threads)
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())
