"""Local response normalization against torch.nn, torch.compile and a copy of the input.

python benchmarks/lrn.py                    # minutes, rows into results/lrn.csv
python benchmarks/lrn.py --quick            # seconds; keeps no rows
"""

from __future__ import annotations

import typer
from images import Op, command
from torch import nn

import fastseq

OP = Op(
    name="LRN",
    file="lrn",
    native=lambda: nn.LocalResponseNorm(5),
    ours=lambda: fastseq.LocalResponseNorm(5),
)
main = command(OP)

if __name__ == "__main__":
    typer.run(main)
