"""Cut the CHANGELOG for a release, or say what a tag lacks of one: ``nox -s changelog``.

``-- cut``: what is under [Unreleased] goes under the version of ``fastseq/_version.py``, with
today's date. ``-- check v0.1.0``: fails unless the tag, that version and the CHANGELOG agree.
"""

from __future__ import annotations

import datetime
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHANGELOG = ROOT / "CHANGELOG.md"
UNRELEASED = "## [Unreleased]"


def version() -> str:
    """The one place where it stands; read, not imported."""
    found = re.search(
        r'^__version__ = "(.+)"$', (ROOT / "fastseq/_version.py").read_text(), flags=re.MULTILINE
    )
    assert found
    return found[1]


def cut(text: str, name: str, date: str) -> str:
    """A CHANGELOG whose unreleased changes are those of a version.

    Raises:
        ValueError: there are none, or the version has been released.
    """
    if f"## [{name}]" in text:
        raise ValueError(f"CHANGELOG.md has {name} already; raise fastseq/_version.py first")
    _, _, rest = text.partition(UNRELEASED)
    if not rest.partition("\n## [")[0].strip():
        raise ValueError(f"there is nothing under {UNRELEASED} in CHANGELOG.md")
    return text.replace(UNRELEASED, f"{UNRELEASED}\n\n## [{name}] - {date}", 1)


def check(text: str, name: str, tag: str) -> None:
    """See that a tag can be released.

    Raises:
        ValueError: it is not the version's, or the CHANGELOG has no dated heading for it.
    """
    if tag != f"v{name}":
        raise ValueError(f"the tag is {tag}, and fastseq/_version.py says {name}")
    if not re.search(rf"^## \[{re.escape(name)}\] - \d{{4}}-\d\d-\d\d$", text, flags=re.MULTILINE):
        raise ValueError(f"CHANGELOG.md has no '## [{name}] - DATE': nox -s changelog -- cut")


def main(arguments: list[str]) -> None:
    """What the command does."""
    text, name = CHANGELOG.read_text(), version()
    try:
        match arguments:
            case ["cut"]:
                CHANGELOG.write_text(cut(text, name, datetime.date.today().isoformat()))
            case ["check", tag]:
                check(text, name, tag)
            case _:
                raise ValueError("say 'cut', or 'check' and a tag")
    except ValueError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main(sys.argv[1:])
