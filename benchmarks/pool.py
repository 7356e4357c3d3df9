"""Overlapping max-pool (3 x 3, stride 2) against torch.nn, torch.compile and a copy of the input.

python benchmarks/pool.py                   # minutes, rows into results/pool.csv
python benchmarks/pool.py --quick           # seconds; keeps no rows
"""

from __future__ import annotations

import typer
from images import command

from fastseq.bench.images import OPS

OP = OPS["pool"]
main = command(OP)

if __name__ == "__main__":
    typer.run(main)
