"""Overlapping max-pool (3 x 3, stride 2) against torch.nn, torch.compile and a copy of the input.

python benchmarks/pool.py                   # minutes, rows into results/pool.csv
python benchmarks/pool.py --quick           # seconds; keeps no rows
"""

from __future__ import annotations

import typer
from images import Op, command
from torch import nn

import fastseq

OP = Op(
    name="pool",
    file="pool",
    native=lambda: nn.MaxPool2d(3, 2),
    ours=lambda: fastseq.MaxPool2d(3, 2),
)
main = command(OP)

if __name__ == "__main__":
    typer.run(main)
