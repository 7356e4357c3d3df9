"""The command of a recipe, made from the fields of its config."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from fastseq.commands.refuse import refusing
from fastseq.recipes.shared.config import as_yaml


def recipe_command(words: str, folder: str) -> Callable[..., None]:
    """Return the command that runs a recipe, as cyclopts takes it.

    Args:
        words: Of the command: ``"train rows"``.
        folder: Of the recipe in `fastseq.recipes`: it holds ``config.RowsConfig``, the options, and
            ``run.RowsRun``; its docstring is the command's help.
    """
    title = "".join(word.capitalize() for word in folder.split("_"))
    room = import_module(f"fastseq.recipes.{folder}")
    options_type = getattr(import_module(f"fastseq.recipes.{folder}.config"), f"{title}Config")
    group = words.split()[0]

    def command(options: Any, *, config: Path | None = None, print_config: bool = False) -> None:
        if print_config:
            print(as_yaml(options), end="")
            return
        with refusing(f"fastseq {group}", "tune" if group == "tune" else "train"):
            run = getattr(import_module(f"fastseq.recipes.{folder}.run"), f"{title}Run")(options)
        run.run()

    command.__doc__ = room.__doc__
    command.__defaults__ = (options_type(),)
    command.__annotations__ = {
        "options": Annotated[options_type, Parameter(name="*")],
        "config": Annotated[
            Path | None,
            Parameter(help="YAML file of options; those on the command line come before it."),
        ],
        "print_config": Annotated[
            bool,
            Parameter(help="Print the options as such a file, and leave.", negative=()),
        ],
        "return": None,
    }
    return command
