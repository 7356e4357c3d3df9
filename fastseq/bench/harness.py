"""The harness that every benchmark shares: providers timed in turn, and the rows that come of it.

One process times all providers of a case in rounds, A B C A B C ..., so that whatever else the
machine does falls on each of them alike. A row carries median, 20th and 80th percentile of single
calls, beside device, torch version, commit, threads, dtype, shape, mode and provider.
"""

from __future__ import annotations

import gc
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch
from torch import Tensor

from fastseq.bench.processor import cpu_model
from fastseq.bench.rows import Row

ROOT = Path(__file__).parents[2]  # of a checkout

MIN_ROUNDS = 5
MAX_ROUNDS = 200
# One turn of a provider: calls of this many seconds that are not timed, then timed ones.
WARM_SECONDS = 0.001
TURN_SECONDS = 0.004
# Idle threads of a thread pool spin for some milliseconds before they sleep, and would take a core
# from the next provider. Calls beyond LONG_SECONDS need neither the pause nor the untimed call.
PAUSE_SECONDS = 0.01
LONG_SECONDS = 0.02

# Relative error (Frobenius norm) below which two providers compute the same thing.
TOLERANCE = {
    torch.float64: 1e-9,
    torch.float32: 1e-4,
    torch.bfloat16: 5e-2,
    torch.float16: 1e-2,
}


@dataclass(frozen=True)
class Provider:
    """One way to compute a case.

    Attributes:
        name: ``torch.nn``, ``fastseq``, ...
        call: does the work once and returns its results, in the same order for every provider.
        capability: the instruction set it uses, as it reports it; empty if it does not.
        view: makes the results comparable with the other providers'; not timed. An empty
            result is not compared.
    """

    name: str
    call: Callable[[], Sequence[Tensor]]
    capability: str = ""
    view: Callable[[Sequence[Tensor]], Sequence[Tensor]] = tuple


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one provider's calls.

    Attributes:
        provider: whose calls.
        rounds: turns that the provider had.
        samples: of single calls.
        turns: the median of each turn: those of one round stand beside one another.
        contention: cores that torch's threads lacked because others used them, mean over the case.
    """

    provider: Provider
    rounds: int
    samples: tuple[float, ...]
    contention: float
    turns: tuple[float, ...] = ()

    def quantile(self, q: float) -> float:
        """A quantile of the calls, in ms, interpolated."""
        return float(torch.tensor(self.samples, dtype=torch.float64).quantile(q))


def measure(
    providers: Sequence[Provider],
    device: torch.device,
    dtype: torch.dtype,
    seconds: float,
    tolerance: float | None = None,
    rounds: int = MIN_ROUNDS,
) -> list[Timing]:
    """Check that the providers agree, then time them in turn.

    Args:
        providers: the first is the one that the others must agree with.
        device: CUDA calls are timed by events on the current stream.
        dtype: chooses the tolerance of the comparison.
        seconds: rounds go on for so long.
        tolerance: instead of the dtype's.
        rounds: at least so many.

    Raises:
        RuntimeError: a provider's results differ from the first provider's.
    """
    expected = providers[0].view(providers[0].call())
    for provider in providers[1:]:
        found = provider.view(provider.call())
        if found:  # the limit computes nothing
            _agree(provider.name, found, expected, tolerance or TOLERANCE[dtype])
    del expected
    timed = clock(device)
    last = [timed(provider.call) for provider in providers]
    samples: list[list[float]] = [[] for _ in providers]
    turns: list[list[float]] = [[] for _ in providers]
    done = 0
    others = _Others()
    gc.collect()
    gc.disable()
    try:
        end = time.perf_counter() + seconds
        while done < rounds or (done < MAX_ROUNDS and time.perf_counter() < end):
            for i, provider in enumerate(providers):
                # The provider before this one may have threads that still spin.
                if last[i] < LONG_SECONDS:
                    time.sleep(PAUSE_SECONDS)
                    _repeat(timed, provider.call, WARM_SECONDS)
                turn = _repeat(timed, provider.call, TURN_SECONDS)
                last[i] = min(turn)
                samples[i] += turn
                turns[i].append(1e3 * statistics.median(turn))
            done += 1
    finally:
        gc.enable()
    contention = others.contention()
    return [
        Timing(provider, done, tuple(1e3 * sample for sample in times), contention, tuple(medians))
        for provider, times, medians in zip(providers, samples, turns, strict=True)
    ]


class _Others:
    """What other processes take of the machine while this object lives.

    Where they want a core that a thread of ours runs on, each barrier may cost as long as a
    scheduler's slice or a spinning thread's patience: medians mean little then.
    """

    def __init__(self) -> None:
        self.start = self._now()

    @staticmethod
    def _now() -> tuple[float, float]:
        """Wall-clock seconds, and CPU seconds of all processes but this one; 0 if unknown."""
        try:
            with open("/proc/stat") as file:
                user, nice, system, _, _, *interrupts = map(int, file.readline().split()[1:9])
        except (OSError, ValueError):
            return time.perf_counter(), 0.0
        busy = (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
        return time.perf_counter(), busy - time.process_time()

    def contention(self) -> float:
        """Cores that torch's threads lacked since the start."""
        wall, busy = (now - then for now, then in zip(self._now(), self.start, strict=True))
        return max(0.0, busy / wall + torch.get_num_threads() - (os.cpu_count() or 1))


def _repeat(
    timed: Callable[[Callable[[], object]], float], call: Callable[[], object], seconds: float
) -> list[float]:
    """Time single calls until they add up to so many seconds; at least one."""
    times = [timed(call)]
    while sum(times) < seconds:
        times.append(timed(call))
    return times


def clock(device: torch.device) -> Callable[[Callable[[], object]], float]:
    """What times a single call on a device, in seconds."""
    return _cuda_call if device.type == "cuda" else _cpu_call


def _cpu_call(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _cuda_call(call: Callable[[], object]) -> float:
    start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) * 1e-3


def _agree(name: str, got: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> None:
    for i, (result, wanted) in enumerate(zip(got, expected, strict=True)):
        if result.shape != wanted.shape:
            raise RuntimeError(
                f"{name}: result {i} is {tuple(result.shape)}, expected {tuple(wanted.shape)}"
            )
        error = distance(result, wanted)
        if not error <= tolerance:  # also true of nan
            raise RuntimeError(
                f"{name}: result {i} is off by {error:.2e} of its norm, allowed {tolerance:.0e}"
            )


def distance(result: Tensor, wanted: Tensor) -> float:
    """The Frobenius norm of the difference, over that of what was wanted."""
    difference = (result.detach().double() - wanted.detach().double()).norm()
    return float(difference / wanted.detach().double().norm().clamp_min(1e-30))


def parse_sizes(text: str, names: str) -> tuple[int, int, int, int]:
    """Four positive numbers between commas; ``names`` has a letter for each.

    Raises:
        ValueError: the text is something else.
    """
    try:
        a, b, c, d = (int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"'{text}' is not four numbers {','.join(names)}") from None
    if min(a, b, c, d) < 1:
        raise ValueError(f"'{text}' has a size below 1")
    return a, b, c, d


def busy() -> str:
    """A warning if other work keeps this machine's cores from the benchmark, or nothing."""
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if load < 0.5 * cores:
        return ""
    return f"This machine is busy (load {load:.1f} on {cores} cores): expect noise, repeat later."


def run_columns(device: torch.device) -> Row:
    """The columns that all rows of a run share, but for the number of threads."""
    cuda = device.type == "cuda"
    return {
        "run": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "commit": commit(),
        "torch": torch.__version__,
        "device": device.type,
        "cpu": cpu_model(),
        "gpu": torch.cuda.get_device_name(device) if cuda else "",
    }


def commit() -> str:
    """The checkout's commit, with "+dirty" if anything but results differs from it."""
    if not (ROOT / ".git").exists():  # an installed package may lie in somebody else's checkout
        return "unknown"
    try:
        name = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--", ".", ":(exclude)benchmarks/results")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name + ("+dirty" if changed else "")


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        # Reading must not take the index's lock from someone who is committing.
        env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
    ).stdout.strip()


def make_rows(
    run: Row,
    threads: int,
    case: Row,
    shape: dict[str, int],
    timings: Sequence[Timing],
    limits: Row | None = None,
) -> list[Row]:
    """The CSV rows of one case.

    Args:
        run: of ``run_columns``.
        threads: that every provider was given.
        case: op, dtype, mode, layout.
        shape: names and sizes.
        timings: of ``measure``.
        limits: further columns of the case, such as ``rows.ROOFLINE``.
    """
    return [
        {
            **run,
            "threads": str(threads),
            **case,
            **{name: str(size) for name, size in shape.items()},
            **(limits or {}),
            "provider": timing.provider.name,
            "capability": timing.provider.capability,
            "rounds": str(timing.rounds),
            "calls": str(len(timing.samples)),
            "contention": f"{timing.contention:.2f}",
            "median_ms": f"{timing.quantile(0.5):.5g}",
            "p20_ms": f"{timing.quantile(0.2):.5g}",
            "p80_ms": f"{timing.quantile(0.8):.5g}",
        }
        for timing in timings
    ]
