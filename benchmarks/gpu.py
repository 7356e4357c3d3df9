"""On a machine with a GPU: build, test, measure, in one call of less than nine minutes.

    python benchmarks/gpu.py                       # all of it; results/gpu_*.csv, *.png, gpu.txt
    python benchmarks/gpu.py --minutes 4 --no-build
    python benchmarks/gpu.py --device cpu          # a rehearsal in seconds: tiny sizes, no build

It needs torch, nvcc, cmake, ninja, pytest, typer and matplotlib, and no network. A
section that its time does not suffice for stops, and what was left out is listed; the table comes
last. Nothing changes the device's clocks.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, TextIO

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the profiler speaks of each of its starts

import torch
import typer
from gpu_timing import Deadline

from fastseq.bench import harness, rows

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parents[1]
MINUTES = 8.5
# Seconds at most; the recurrences have what is left.
BUILD, TESTS, SPREAD, IMAGES, COMPILED, PICTURES = 210, 120, 8, 40, 60, 20


class Log:
    """Lines for the screen and for a file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file: TextIO = path.open("w")

    def say(self, text: str) -> None:
        """Write a line, or several, at once."""
        typer.echo(text)
        self.file.write(text + "\n")
        self.file.flush()


def build_command(capability: tuple[int, int]) -> tuple[list[str], dict[str, str]]:
    """How to install this checkout with kernels for one GPU, and the environment for it."""
    command = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "."]
    major, minor = capability
    wanted = {"FASTSEQ_CUDA": "1", "FASTSEQ_CUDA_ARCHITECTURES": f"{major}{minor}-real"}
    return command, {**os.environ, **wanted}


def test_command() -> list[str]:
    """How to run the tests that need a GPU, by ``pytest`` itself: of the installed package."""
    beside = Path(sys.executable).with_name("pytest")
    found = str(beside) if beside.exists() else shutil.which("pytest") or "pytest"
    files = sorted(str(path) for path in (ROOT / "python_tests").glob("test_cuda*.py"))
    return [found, "-m", "cuda", "-q", "--maxfail=20", "-p", "no:cacheprovider", *files]


def run(
    command: list[str], seconds: float, log: Log, lines: int, env: dict[str, str] | None = None
) -> bool:
    """Run a command from the checkout's root, and log the end of what it says.

    Args:
        command: with its arguments.
        seconds: after which it is killed.
        log: where.
        lines: how many of its last.
        env: its environment, if not ours.

    Returns:
        whether it succeeded.
    """
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            text=True,
            errors="replace",
        )
        said, code = done.stdout, done.returncode
    except subprocess.TimeoutExpired as slow:
        raw = slow.stdout or b""
        said = raw if isinstance(raw, str) else raw.decode(errors="replace")
        code = -1
        log.say(f"stopped after {seconds:.0f} s")
    except OSError as missing:
        said, code = str(missing), -1
    log.say("\n".join(said.rstrip().splitlines()[-lines:]))
    return code == 0


def software(device: torch.device) -> rows.Row:
    """Driver, CUDA and cuDNN, as far as there are any."""
    found = dict.fromkeys(rows.SOFTWARE, "")
    if device.type == "cuda":
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            said = subprocess.run(query, capture_output=True, text=True, timeout=30).stdout
            found["driver"] = said.splitlines()[0].strip() if said else ""
        except (OSError, subprocess.TimeoutExpired):
            pass
        found["cuda"] = torch.version.cuda or ""
        found["cudnn"] = str(torch.backends.cudnn.version() or "")
    return found


def main(
    device: Annotated[str, typer.Option(help="cuda, cuda:N, or cpu for a rehearsal.")] = "cuda",
    minutes: Annotated[float, typer.Option(help="For everything.")] = MINUTES,
    build: Annotated[bool, typer.Option(help="Install this checkout first.")] = True,
    tests: Annotated[bool, typer.Option(help="Run the tests that need a GPU.")] = True,
    out: Annotated[Path, typer.Option(help="Folder of rows, pictures, log.")] = RESULTS,
    commit: Annotated[str | None, typer.Option(help="Where git cannot tell it.")] = None,
) -> None:
    """Build, test and measure on a GPU, and print a table last."""
    all_of_it = Deadline(60 * minutes)
    place = torch.device(device)
    rehearsal = place.type == "cpu"
    if rehearsal:
        torch.set_num_threads(1)
    log = Log(out / "gpu.txt")
    if not rehearsal and not torch.cuda.is_available():
        log.say("torch sees no GPU here; --device cpu is a rehearsal.")
        raise typer.Exit(1)
    if build and not rehearsal:
        log.say("== build")
        command, env = build_command(torch.cuda.get_device_capability(place))
        if not run(command, min(BUILD, all_of_it.left()), log, 12, env):
            raise typer.Exit(1)
        importlib.invalidate_caches()
    if tests and not rehearsal:
        log.say("== tests")
        run(test_command(), min(TESTS, all_of_it.left()), log, 25)
    # Only now: these import the package that has just been installed.
    import gpu_measure

    run_columns = {**harness.run_columns(place), **software(place)}
    if commit:
        run_columns["commit"] = commit
    measured = gpu_measure.Bench(place, run_columns, out, log)
    log.say("== the same work against itself")
    measured.spread(Deadline(min(SPREAD, all_of_it.left())))
    log.say("== LRN, pooling, trio")
    measured.images(Deadline(min(IMAGES, all_of_it.left())), compiled=False)
    log.say("== the same under torch.compile")
    measured.images(Deadline(min(COMPILED, all_of_it.left())), compiled=True)
    log.say("== recurrences")
    measured.recurrences(Deadline(all_of_it.left() - PICTURES))
    measured.pictures()
    measured.report()


if __name__ == "__main__":
    typer.run(main)
