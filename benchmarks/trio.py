"""ReLU, LRN and overlapping max-pool in one pass against torch.nn, torch.compile and a copy.

python benchmarks/trio.py                   # minutes, rows into results/trio.csv
python benchmarks/trio.py --quick           # seconds; keeps no rows
"""

from __future__ import annotations

import typer
from images import command

from fastseq.bench.images import OPS

OP = OPS["trio"]
main = command(OP)

if __name__ == "__main__":
    typer.run(main)
