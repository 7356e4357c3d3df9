"""ReLU, LRN and overlapping max-pool in one pass against torch.nn, torch.compile and a copy.

python benchmarks/trio.py                   # minutes, rows into results/trio.csv
python benchmarks/trio.py --quick           # seconds; keeps no rows
"""

from __future__ import annotations

import typer
from images import Op, command
from torch import nn

import fastseq

OP = Op(
    name="trio",
    file="trio",
    native=lambda: nn.Sequential(nn.ReLU(), nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2)),
    ours=lambda: fastseq.ReLULRNMaxPool2d(5),
    # Of two values that are equal but for rounding, one provider may take the other: of millions
    # of gradients a few go to a neighbour.
    tolerance=1e-2,
)
main = command(OP)

if __name__ == "__main__":
    typer.run(main)
