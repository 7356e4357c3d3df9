"""The command line as users know it: every command, its options and their defaults."""

import json
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer", reason="the cli extra is not installed")

import typer.main

from fastseq.commands import app

# Written when typer made the command line, and kept: a command, option or default that changes is
# changed here too, and in the CHANGELOG.
KNOWN = json.loads((Path(__file__).parent / "command_options.json").read_text())


def plain(default: object) -> object:
    value = default.value if isinstance(default, Enum) else default
    return str(value) if isinstance(value, Path) else value


def walk(command: Any, *words: str) -> Iterator[tuple[str, Any]]:
    if hasattr(command, "commands"):
        for word, part in command.commands.items():
            yield from walk(part, *words, word)
    else:
        yield " ".join(words), command


def option(parameter: Any) -> dict[str, object]:
    row = {"default": plain(parameter.default), "flag": bool(parameter.is_flag)}
    kind = parameter.type_descriptor.annotation
    if isinstance(kind, type) and issubclass(kind, Enum):
        row["choices"] = [choice.value for choice in kind]
    return row


COMMANDS = dict(walk(typer.main.get_command(app)))


def test_every_command_is_there() -> None:
    assert list(COMMANDS) == list(KNOWN)


@pytest.mark.parametrize("name", KNOWN)
def test_options_and_defaults(name: str) -> None:
    found = {
        parameter.opts[0]: option(parameter)
        for parameter in COMMANDS[name].params
        if parameter.opts[0] != "--help"
    }
    assert found == KNOWN[name]
