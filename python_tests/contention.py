"""Layers by torch.nn and by fastseq while other processes hold the cores: ``contention.py BUSY``.

Prints, as JSON, the median time of a call of each in ms, and the longest of ours, by layer. The
two are called in turn, so that both see the same load. Teams of two threads meet at barriers
after every step here, and one of them is often without a core.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import time

import torch

import fastseq

# By kind, (T, B, I, H): a slice of the batch a thread, or one of the units, at a barrier a step.
SHAPES = {"LSTM": (40, 48, 32, 64), "GRU": (60, 9, 64, 192), "RNN": (60, 3, 64, 256)}
ROUNDS = 4
# Ends with its parent, however that ends.
SPIN = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"


def step(module: torch.nn.RNNBase, x: torch.Tensor) -> float:
    """Seconds of a forward and a backward."""
    start = time.perf_counter()
    y, _ = module(x)
    torch.autograd.grad(y.sum(), [x, *module.parameters()])
    return time.perf_counter() - start


def measure() -> dict[str, list[float]]:
    """By kind: torch.nn's median, ours, and our longest, in ms."""
    found = {}
    for kind, (steps, batch, width, hidden) in SHAPES.items():
        x = torch.randn(steps, batch, width, requires_grad=True)
        modules = [getattr(library, kind)(width, hidden) for library in (torch.nn, fastseq)]
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(ROUNDS + 1):
            for module, of in zip(modules, times, strict=True):
                seconds = step(module, x)
                if turn:  # the first loads libraries
                    of.append(1e3 * seconds)
        theirs, ours = (statistics.median(each) for each in times)
        found[kind] = [theirs, ours, max(times[1])]
    return found


def main() -> None:
    """Start the busy processes, measure, end them."""
    torch.set_num_threads(2)
    busy = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(int(sys.argv[1]))]
    try:
        time.sleep(0.2)
        print(json.dumps(measure()))
    finally:
        for process in busy:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()


if __name__ == "__main__":
    main()
