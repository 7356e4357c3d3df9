"""Options from a YAML file, and their order in the help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from cyclopts import App, ArgumentCollection
from cyclopts.config import Dict
from cyclopts.help import DefaultFormatter, HelpPanel

from fastseq.recipes.shared.config import RunConfig

FILE, PRINT = "--config", "--print-config"
SHARED = {f"--{name.replace('_', '-')}" for name in RunConfig.__dataclass_fields__}


def from_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Fill in what the command line leaves out from the file that --config names.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no YAML.
    """
    for argument in arguments:
        if argument.name == FILE and argument.tokens:
            path = Path(argument.tokens[-1].value)
            options = Dict(read_options(path), source=str(path), use_commands_as_keys=False)
            options(app, commands, arguments)


def read_options(path: Path) -> dict[str, Any]:
    """Return what stands in a YAML file of options; null is as good as not there."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of options at {path}")
    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(options, dict):
        raise ValueError(f"{path} holds no options, expected lines such as seed: 0")
    return {name: value for name, value in options.items() if value is not None}


def own_options_first(console: Any, options: Any, panel: HelpPanel) -> None:
    """Print a panel of the help: options of the recipe, those of every run, the file."""
    ranks = dict.fromkeys(SHARED, 1) | dict.fromkeys((FILE, PRINT), 2)
    panel.entries.sort(key=lambda entry: ranks.get(entry.positive_names[0], 0))
    DefaultFormatter()(console, options, panel)
