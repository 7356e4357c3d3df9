"""Local response normalization against torch.nn, torch.compile and a copy of the input.

python benchmarks/lrn.py                    # minutes, rows into results/lrn.csv
python benchmarks/lrn.py --quick            # seconds; keeps no rows
"""

from __future__ import annotations

import typer
from images import command

from fastseq.bench.images import OPS

OP = OPS["lrn"]
main = command(OP)

if __name__ == "__main__":
    typer.run(main)
