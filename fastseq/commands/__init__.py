"""The command line, `fastseq info | check | bench | train | tune | study`; --help is quick."""

from __future__ import annotations

from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter

from fastseq.commands.bench import bench_app
from fastseq.commands.check import check
from fastseq.commands.info import info
from fastseq.commands.options import from_file, own_options_first
from fastseq.commands.recipes import recipe_command
from fastseq.commands.refuse import refuse
from fastseq.recipes import commands

GROUPS = {
    "train": "Train a recipe.",
    "tune": "Search the hyper-parameters of a recipe.",
    "study": "Measure what the lectures claim, and draw it.",
}


def build_app() -> App:
    """Return the app with all commands."""
    app = App(
        name="fastseq",
        help="Drop-in LSTM, GRU and RNN for PyTorch on fused C++/CUDA kernels.",
        version_flags=[],
        config=from_file,
        # Of an option given twice the last counts, as shells and their aliases have it.
        default_parameter=Parameter(allow_repeating=True),
        help_formatter=own_options_first,
    )
    # Flags of these are either given or not; a recipe's may be turned off again: --no-native.
    plain = Parameter(negative=())
    app.command(info, default_parameter=plain)
    app.command(check, default_parameter=plain)
    app.command(bench_app())
    groups = {name: App(name=name, help=help) for name, help in GROUPS.items()}
    for group in groups.values():
        app.command(group)
    for words, folder in commands().items():
        first, second = words.split()
        groups[first].command(recipe_command(words, folder), name=second)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command.

    Only what is wrong with the command line is said in a sentence: an error in the middle of
    training deserves its traceback.

    Args:
        arguments: Words and options; ``None`` takes those of the process.
    """
    try:
        command, bound, _ = build_app().parse_args(
            arguments, exit_on_error=False, print_error=False
        )
    except CycloptsError as error:
        refuse(str(error), code=2)
    except (ValueError, OSError) as error:
        refuse(str(error))
    command(*bound.args, **bound.kwargs)
