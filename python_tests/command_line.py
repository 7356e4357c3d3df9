"""The command line, called in this process."""

from collections.abc import Sequence

from typer.testing import CliRunner, Result

from fastseq.commands import app

__all__ = ["Result", "invoke"]


def invoke(arguments: Sequence[str]) -> Result:
    """Call `fastseq` with these arguments; an exception that it lets through is in the result."""
    return CliRunner().invoke(app, list(arguments))
