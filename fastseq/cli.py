"""Entry of the command line: `fastseq info | check | train rows`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, or say what it needs."""
    try:
        from fastseq.commands import app
    except ModuleNotFoundError as error:
        if error.name != "typer":
            raise
        print("fastseq's command line needs typer: pip install 'fastseq[cli]'", file=sys.stderr)
        raise SystemExit(1) from None
    app()


if __name__ == "__main__":
    main()
