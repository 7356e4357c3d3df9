"""How ``gpu.py`` takes its times: events on the stream, inputs that the cache has forgotten.

On a CPU the same functions read the clock instead, so that a rehearsal runs all of the code.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise

import torch

Call = Callable[[], object]
LEAST_CALLS, MOST_CALLS = 5, 200
HOST_CALLS = 3
# Two inputs at least: one that is read again at once might be in the cache, whatever its size.
LEAST_COPIES, MOST_COPIES = 2, 16


class Deadline:
    """Seconds that a section has."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until the end, not below 0."""
        return max(0.0, self.end - time.monotonic())

    def over(self) -> bool:
        """Whether nothing is to be begun any more."""
        return self.left() == 0.0


@dataclass(frozen=True)
class Samples:
    """Times of single calls.

    Attributes:
        ms: on the device, from event to event: of a call that the host is slow to make, the host's.
        host_us: until a call returned, while the device was idle before; the median.
    """

    ms: tuple[float, ...]
    host_us: float

    def quantile(self, q: float) -> float:
        """A quantile of the times, in ms, interpolated."""
        return float(torch.tensor(self.ms, dtype=torch.float64).quantile(q))


def copies(size: int, device: torch.device) -> int:
    """How many inputs of so many bytes it takes until the first is out of the cache again."""
    cache = 0
    if device.type == "cuda":
        cache = torch.cuda.get_device_properties(device).L2_cache_size
    return min(MOST_COPIES, max(LEAST_COPIES, 2 + 2 * cache // max(size, 1)))


def sample(calls: Sequence[Call], device: torch.device, seconds: float) -> Samples:
    """Time calls in turn.

    Args:
        calls: the same work on different inputs.
        device: where.
        seconds: how long about; but some calls at least.
    """
    wait: Callable[[], object] = torch.cuda.synchronize if device.type == "cuda" else int
    for call in calls[:2]:  # loads kernels, takes memory
        call()
    wait()
    host, longest = [], 1e-9
    for call, _ in zip(cycle(calls), range(HOST_CALLS), strict=False):
        start = time.perf_counter()
        call()
        host.append(time.perf_counter() - start)
        wait()
        longest = max(longest, time.perf_counter() - start)
    count = int(min(MOST_CALLS, max(LEAST_CALLS, seconds / longest)))
    turns = [call for call, _ in zip(cycle(calls), range(count), strict=False)]
    ms = _on_cuda(turns) if device.type == "cuda" else _on_cpu(turns)
    return Samples(tuple(ms), 1e6 * sorted(host)[HOST_CALLS // 2])


def _on_cuda(turns: Sequence[Call]) -> list[float]:
    marks = [_event()]
    for call in turns:  # queued without a wait, as a model queues its layers
        call()
        marks.append(_event())
    marks[-1].synchronize()
    return [float(start.elapsed_time(end)) for start, end in pairwise(marks)]


def _event() -> torch.cuda.Event:
    made = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    made.record()
    return made


def _on_cpu(turns: Sequence[Call]) -> list[float]:
    found = []
    for call in turns:
        start = time.perf_counter()
        call()
        found.append(1e3 * (time.perf_counter() - start))
    return found


def kernels(call: Call, device: torch.device, most: int = 3) -> str:
    """The kernels (on a CPU: operators) that take most of a call's time, by the profiler.

    Args:
        call: what to look at.
        device: where it runs.
        most: how many names.
    """
    cuda = device.type == "cuda"
    kind = torch.profiler.ProfilerActivity
    try:
        with torch.profiler.profile(activities=[kind.CUDA if cuda else kind.CPU]) as seen:
            call()
            if cuda:
                torch.cuda.synchronize()
    except RuntimeError as error:  # times are worth more than names
        return f"no profiler: {str(error).splitlines()[0]}"
    spent: dict[str, float] = {}
    for event in seen.events() or ():
        if cuda and not str(event.device_type).endswith("CUDA"):
            continue
        length = event.time_range.elapsed_us() if cuda else event.self_cpu_time_total
        spent[event.name] = spent.get(event.name, 0.0) + length
    names = sorted(spent, key=lambda name: -spent[name])[:most]
    return "; ".join(short(name) for name in names)


def short(name: str) -> str:
    """A kernel's name without its template arguments, which can fill a page."""
    kept, depth = [], 0
    for letter in name.removeprefix("void "):
        depth += (letter == "<") - (letter == ">")
        if depth == 0 and letter not in "<>":
            kept.append(letter)
    return "".join(kept).split("(")[0].strip()[:80]


def a_to_a(calls: Sequence[Call], device: torch.device, seconds: float, times: int = 5) -> float:
    """How far apart medians of one and the same work lie: the largest over the smallest."""
    medians = [sample(calls, device, seconds / times).quantile(0.5) for _ in range(times)]
    return max(medians) / min(medians)
