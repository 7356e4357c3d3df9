"""Entry of the command line: `fastseq info | check | bench | train | tune | study`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, or say what it needs."""
    try:
        from fastseq import commands
    except ModuleNotFoundError as error:
        if error.name not in ("cyclopts", "yaml"):
            raise
        sentence = f"fastseq's command line needs {error.name}: pip install 'fastseq[cli]'"
        print(sentence, file=sys.stderr)
        raise SystemExit(1) from None
    commands.main()


if __name__ == "__main__":
    main()
