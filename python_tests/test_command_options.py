"""The command line as users know it: every command, its options, their defaults, and its files."""

import dataclasses
import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cyclopts", reason="the cli extra is not installed")

import yaml
from command_line import invoke

from fastseq.commands import build_app
from fastseq.recipes import commands
from fastseq.recipes.shared.config import as_yaml

COMMANDS = commands()
# What users know: an option or default that changes is changed here too, and in the CHANGELOG.
KNOWN = json.loads((Path(__file__).parent / "command_options.json").read_text())
FILES = {
    "--config": {"default": None, "flag": False},
    "--print-config": {"default": False, "flag": True},
}
# Values that YAML or a command line could take for something else.
ODD = {"prompt": " yes: [1, 2] ", "labels": "1,10", "devices": "2", "text": Path("null")}


def config_of(words: str) -> Any:
    folder = COMMANDS[words]
    title = "".join(word.capitalize() for word in folder.split("_"))
    module = importlib.import_module(f"fastseq.recipes.{folder}.config")
    return getattr(module, f"{title}Config")


def arguments_of(words: str) -> dict[str, Any]:
    """What cyclopts made of a command's options, by name."""
    app = build_app()
    for word in words.split():
        app = app[word]
    arguments = app.assemble_argument_collection(parse_docstring=True)
    return {argument.names[0]: argument for argument in arguments if not argument.children}


def option(argument: Any) -> dict[str, object]:
    default = argument.field_info.default
    row = {
        "default": str(default) if isinstance(default, Path) else default,
        "flag": argument.hint is bool,
    }
    choices = argument.get_choices()
    return {**row, "choices": list(choices)} if choices else row


def test_no_command_is_lost() -> None:
    assert set(KNOWN) <= {*COMMANDS, "info", "check"}


def test_the_readme_shows_every_command_and_each_is_there() -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text()
    shown = set(re.findall(r"fastseq ((?:train|tune|study) \w+)", text))
    assert shown == set(COMMANDS)
    for words in re.findall(r"`fastseq ([a-z -]+)`", text):
        result = invoke([*words.split(), "--help"])
        assert result.exit_code == 0, words


@pytest.mark.parametrize("words", KNOWN)
def test_options_and_defaults(words: str) -> None:
    files = FILES if words in COMMANDS else {}
    found = {name: option(argument) for name, argument in arguments_of(words).items()}
    assert found == {**KNOWN[words], **files}


@pytest.mark.parametrize("words", COMMANDS)
def test_every_option_is_explained(words: str) -> None:
    for name, argument in arguments_of(words).items():
        assert (argument.parameter.help or "").endswith("."), name


@pytest.mark.parametrize("words", COMMANDS)
def test_a_printed_configuration_is_read_again(words: str, tmp_path: Path) -> None:
    odd = {name: value for name, value in ODD.items() if hasattr(config_of(words), name)}
    config = dataclasses.replace(config_of(words)(), **odd)
    (tmp_path / "run.yaml").write_text(as_yaml(config))
    result = invoke([*words.split(), "--config", str(tmp_path / "run.yaml"), "--print_config"])
    assert result.exit_code == 0, result.output
    assert result.stdout == as_yaml(config)


def test_the_command_line_comes_before_the_file_and_the_file_before_the_defaults(
    tmp_path: Path,
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("native: true\ndownload: true\nlr: 1e-4\nbatch_size: 8\ncell: gru\n")
    given = ["--config", str(file), "--no-native", "--batch-size", "16", "--print-config"]
    options = yaml.safe_load(invoke(["train", "rows", *given]).stdout)
    named = {name: options[name] for name in ("native", "download", "lr", "batch_size", "cell")}
    assert named == {
        "native": False,
        "download": True,
        "lr": 1e-4,
        "batch_size": 16,
        "cell": "gru",
    }
    assert options["hidden_size"] == 128


def test_the_last_of_an_option_given_twice_counts() -> None:
    given = ["--seed", "1", "--native", "--seed", "2", "--no-native", "--print-config"]
    options = yaml.safe_load(invoke(["study", "lrn", *given]).stdout)
    assert (options["seed"], options["native"]) == (2, False)


@pytest.mark.parametrize(
    ("text", "code", "sentence"),
    [
        (None, 1, "there is no file of options at"),
        ("lr: [", 1, "is not YAML: while parsing"),
        ("3", 1, "holds no options, expected lines such as seed: 0"),
        ("", 1, "holds no options, expected lines such as seed: 0"),
        ("learning: 1", 2, r"\[learning\].* from .*run\.yaml"),
        ("cell: elman", 2, r'"elman" for \[cell\] from .*run\.yaml.*"lstm", "gru", "rnn"'),
        ("epochs: many", 2, '"many"'),
        ("epochs: 0", 1, "epochs is 0, expected at least 1"),
    ],
)
def test_files_that_cannot_be_used_get_a_sentence(
    tmp_path: Path, text: str | None, code: int, sentence: str
) -> None:
    file = tmp_path / "run.yaml"
    if text is not None:
        file.write_text(text)
    result = invoke(["train", "rows", "--config", str(file)])
    assert result.exit_code == code
    assert result.stderr.startswith("fastseq: ")
    assert len(result.stderr.splitlines()) == 1
    assert re.search(sentence, result.stderr)
