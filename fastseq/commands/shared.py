"""What the commands share: options that every recipe has, and errors as sentences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer


class Cell(str, Enum):
    """Recurrences."""

    lstm = "lstm"
    gru = "gru"
    rnn = "rnn"


# Options that several recipes have, with the names of their configs' fields.
Native = Annotated[bool, typer.Option("--native", help="Use torch.nn's layers, to compare.")]
Epochs = Annotated[int, typer.Option(help="Passes over the training data, at most.")]
Patience = Annotated[int, typer.Option(help="Epochs without progress before stopping.")]
BatchSize = Annotated[int, typer.Option(help="Samples in a batch, on each device.")]
AnyCell = Annotated[Cell, typer.Option(help="Recurrence.")]
EmbeddingSize = Annotated[int, typer.Option(help="Features of an embedded token.")]
HiddenSize = Annotated[int, typer.Option(help="Units of each recurrent layer.")]
NumLayers = Annotated[int, typer.Option(help="Recurrent layers.")]
Dropout = Annotated[float, typer.Option(help="Probability of zeroing a unit.")]
LearningRate = Annotated[float, typer.Option(help="Peak learning rate.")]
WeightDecay = Annotated[float, typer.Option(help="AdamW's weight decay.")]
Clip = Annotated[float, typer.Option(help="Norm to which gradients are clipped; 0: not.")]
Seed = Annotated[int, typer.Option(help="Seed of all that is random: parameters, order, ...")]
Accelerator = Annotated[str, typer.Option(help="Lightning's: cpu, gpu, auto.")]
Devices = Annotated[str, typer.Option(help="Lightning's: a number, or a list like 0,1.")]
Strategy = Annotated[str, typer.Option(help="Lightning's: auto, ddp, ...")]
Precision = Annotated[str, typer.Option(help="32-true, bf16-mixed, ...")]
Resume = Annotated[Path | None, typer.Option(help="Run folder or checkpoint to go on from.")]
Out = Annotated[Path, typer.Option(help="Folder of the runs.")]


def options(given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a command as the fields of a config: choices become strings."""
    return {
        name: value.value if isinstance(value, Enum) else value for name, value in given.items()
    }


@contextmanager
def refusing(command: str, extra: str = "train") -> Iterator[None]:
    """Make what goes wrong while a run is imported and built a sentence, and exit code 1.

    Only the building belongs inside: an error in the middle of training deserves its traceback.

    Args:
        command: Said where a package is missing, for instance ``"fastseq train"``.
        extra: The extra of this package that brings what the command needs.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        # A part of fastseq itself that is missing is no matter of extras.
        if (error.name or "").partition(".")[0] == "fastseq":
            raise
        needed = error.name or "a package that is not installed"
        refuse(f"{command} needs {needed}: pip install 'fastseq[{extra}]'")
    except (ValueError, OSError) as error:
        refuse(str(error))


def refuse(sentence: str) -> NoReturn:
    """Say on stderr what is wrong, and leave with exit code 1."""
    typer.echo(f"fastseq: {sentence}", err=True)
    raise typer.Exit(1)
