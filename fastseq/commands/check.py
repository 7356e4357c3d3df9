"""`fastseq check`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from fastseq.commands.refuse import refuse


def check(
    *,
    device: str = "cpu",
    quick: bool = False,
    full: Annotated[bool, Parameter("--all")] = False,
) -> None:
    """Compare every op with the native PyTorch op and a float64 reference.

    Args:
        device: Device to check: cpu, cuda or cuda:N.
        quick: Only float32.
        full: Print every row.
    """
    import fastseq.check

    try:
        report = fastseq.check.run(device, quick)
    except ValueError as error:
        refuse(str(error))
    print(report.table(full))
    print(report.verdict())
    if not report.ok:
        raise SystemExit(1)
