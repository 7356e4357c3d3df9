"""CoNLL files: a token and its tag on each line, an empty line after each sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

OUTSIDE = "O"
PREFIXES = ("B", "I")


class Sentence(NamedTuple):
    """Tokens and their tags, as many."""

    tokens: tuple[str, ...]
    tags: tuple[str, ...]


class Entity(NamedTuple):
    """A name: tokens ``start`` to ``end - 1`` of a sentence."""

    kind: str
    start: int
    end: int


def read_conll(path: Path) -> list[Sentence]:
    """Read the sentences of a file.

    The token is the first column and the tag the last, in IOB2 (``B-PER I-PER O``) or IOB1, where
    a name may begin with ``I-``; between them may be any others. Lines that begin with
    ``-DOCSTART-`` are left out.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line is broken; the message says which.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no CoNLL file at {path}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start}: {error.reason})") from error
    sentences = parse_conll(text, str(path))
    if not sentences:
        raise ValueError(f"{path} holds no sentence; each line should be a token and its tag")
    return sentences


def parse_conll(text: str, name: str) -> list[Sentence]:
    """Return the sentences of a text; ``name`` is said where a line is broken."""
    sentences, tokens, tags = [], [], []
    # Not splitlines(): it also ends lines at characters that may stand in a token.
    for number, line in enumerate([*text.split("\n"), ""], start=1):
        columns = line.split()
        if columns and columns[0] != "-DOCSTART-":
            tokens.append(columns[0])
            tags.append(_tag(columns, f"{name}, line {number}"))
        elif tokens:
            sentences.append(Sentence(tuple(tokens), tuple(tags)))
            tokens, tags = [], []
    return sentences


def write_conll(sentences: Iterable[Sentence]) -> str:
    """Return sentences as the text of a CoNLL file."""
    return "\n".join(
        "".join(f"{token} {tag}\n" for token, tag in zip(*sentence, strict=True))
        for sentence in sentences
    )


def entities(tags: Sequence[str]) -> set[Entity]:
    """Return the names that tags speak of, as conlleval reads them.

    A name begins at ``B-``, and at an ``I-`` that follows no tag of the same kind; predictions
    that are not well-formed are read in the same way.
    """
    found: set[Entity] = set()
    start, kind = 0, ""
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, _, here = tag.partition("-")
        if kind and (prefix != "I" or here != kind):
            found.add(Entity(kind, start, place))
            kind = ""
        if here and not kind:
            start, kind = place, here
    return found


def _tag(columns: list[str], place: str) -> str:
    if len(columns) < 2:
        raise ValueError(f"{place}: {columns[0]!r} has no tag; expected a token, a space, its tag")
    tag = columns[-1]
    prefix, _, kind = tag.partition("-")
    if tag != OUTSIDE and not (prefix in PREFIXES and kind):
        raise ValueError(f"{place}: tag {tag!r} is not O, B-KIND or I-KIND, for instance B-PER")
    return tag
