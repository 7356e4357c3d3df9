"""The command line, called in this process."""

import io
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

from fastseq.commands import main


@dataclass(frozen=True)
class Result:
    """How a command ended.

    Attributes:
        exit_code: 0 if it returned.
        stdout: What it printed.
        stderr: What it complained of.
        exception: What it let through, but for its exit.
    """

    exit_code: int
    stdout: str
    stderr: str
    exception: Exception | None = None

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def invoke(arguments: Sequence[str]) -> Result:
    """Call `fastseq` with these arguments."""
    code, exception = 0, None
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        try:
            main(list(arguments))
        except SystemExit as exit:
            code = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
        except Exception as error:
            code, exception = 1, error
    return Result(code, out.getvalue(), err.getvalue(), exception)
