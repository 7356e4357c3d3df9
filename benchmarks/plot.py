"""Draw the rows of a CSV file: the speed-up over torch.nn by shape, a panel for each op and mode.

    python benchmarks/plot.py                            # results/rnn.csv
    python benchmarks/plot.py results.csv --out figures
    python benchmarks/plot.py benchmarks/results/rnn_heat.csv --kind heat

One PNG for each machine, dtype and number of threads in the CSV file. A file whose name ends in
``_heat`` or ``_steps`` is drawn as a map over B x H or as lines over T, if not told otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastseq.bench.plot import Kind, draw, kind_of

RESULTS = Path(__file__).parent / "results"


def main(
    path: Annotated[Path, typer.Argument(help="CSV file of rows.")] = RESULTS / "rnn.csv",
    out: Annotated[Path | None, typer.Option(help="Folder; default the CSV file's.")] = None,
    kind: Annotated[Kind | None, typer.Option(help="Default by the file's name.")] = None,
) -> None:
    """Draw the rows of a CSV file, one figure for each machine, dtype and number of threads."""
    for target in draw(path, out or path.parent, kind or kind_of(path)):
        typer.echo(target)


if __name__ == "__main__":
    typer.run(main)
