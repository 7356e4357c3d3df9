"""Peak memory of a call: how far the resident set of a fresh process grows.

    python -m fastseq.bench.peak '{"work": "rnn", "provider": "fastseq", ...}'

is what ``fastseq bench --memory`` starts for every provider: memory that was freed before would be
used again unseen.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

M_MMAP_THRESHOLD = -3  # of mallopt


def resident(field: str) -> float:
    """A line of /proc/self/status in 10^6 bytes: VmRSS now, or VmHWM at its peak.

    Raises:
        RuntimeError: there is none of that name.
    """
    for text in Path("/proc/self/status").read_text().splitlines():
        name, _, value = text.partition(":")
        if name == field:
            return 1.024e-3 * int(value.split()[0])
    raise RuntimeError(f"/proc/self/status has no {field}.")


def growth_of(call: Callable[[], object]) -> float:
    """The peak of two calls above what was resident before, in 10^6 bytes."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc
        # Large blocks go back to the system when freed: else the peak has the heap's holes in it.
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 17)
        libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from VmRSS
    before = resident("VmRSS")
    for _ in range(2):
        call()
    return resident("VmHWM") - before


def growth_elsewhere(asked: dict[str, Any]) -> float:
    """``growth_of`` a provider's call in a process of its own.

    Args:
        asked: what ``fastseq.bench.cases.provider_of`` takes.

    Raises:
        RuntimeError: the process failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "fastseq.bench.peak", json.dumps(asked)],
        cwd=Path(__file__).resolve().parents[2],  # where this package is: no other goes before it
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{asked}: {done.stderr}")
    return float(done.stdout.split()[-1])


def main() -> None:
    """Print the growth of what the argument asks for."""
    import torch

    from fastseq.bench.cases import provider_of, smallest

    asked = json.loads(sys.argv[1])
    torch.set_num_threads(asked["threads"])
    call = provider_of(asked).call
    warm = provider_of(smallest(asked)).call  # loads libraries and starts threads
    for _ in range(2):
        warm()
    print(growth_of(call))


if __name__ == "__main__":
    main()
