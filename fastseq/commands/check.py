"""`fastseq check`."""

from __future__ import annotations

from typing import Annotated

import typer

from fastseq.commands.shared import refuse


def check(
    device: Annotated[str, typer.Option(help="Device to check: cpu, cuda or cuda:N.")] = "cpu",
    quick: Annotated[bool, typer.Option("--quick", help="Only float32.")] = False,
    full: Annotated[bool, typer.Option("--all", help="Print every row.")] = False,
) -> None:
    """Compare every op with the native PyTorch op and a float64 reference."""
    import fastseq.check

    try:
        report = fastseq.check.run(device, quick)
    except ValueError as error:
        refuse(str(error))
    typer.echo(report.table(full))
    typer.echo(report.verdict())
    if not report.ok:
        raise typer.Exit(1)
