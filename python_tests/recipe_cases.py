"""The recipes at their smallest, for tests in this process and in others."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch

import fastseq
from fastseq.recipes.tags.conll import write_conll
from fastseq.recipes.tags.news import news

TEXT = "the cat sat on the mat and the rat ate the hat. " * 60
NEWS = news("train")[:160], news("validation")[:40], news("test")[:40]
# So many numbers in words for each part.
NUMBERS = {"train": 64, "validation": 8, "test": 8}
PNG = b"\x89PNG\r\n\x1a\n"


def chars(folder: Path) -> list[str]:
    """A text of some 80 windows."""
    (folder / "text.txt").write_text(TEXT)
    sizes = ["--window", "32", "--hidden-size", "16", "--sample", "40", "--batch-size", "8"]
    return [*sizes, "--text", str(folder / "text.txt")]


def tags(folder: Path) -> list[str]:
    """Three CoNLL files."""
    files = []
    for name, sentences in zip(("train", "val", "test"), NEWS, strict=True):
        (folder / f"{name}.conll").write_text(write_conll(sentences))
        files += [f"--{name}", str(folder / f"{name}.conll")]
    return ["--hidden-size", "8", "--embedding-size", "8", *files]


def translate(folder: Path) -> list[str]:
    """Call `shrink` first: there are thousands of numbers else."""
    return ["--hidden-size", "8", "--embedding-size", "8", "--batch-size", "8"]


def rows(folder: Path) -> list[str]:
    """scikit-learn's digits."""
    return ["--hidden-size", "16", "--num-layers", "1", "--batch-size", "128"]


def scenes(folder: Path) -> list[str]:
    """Four batches of digit scenes."""
    return ["--scenes", "16", "--size", "32", "--width", "4", "--batch-size", "4"]


def transfer(folder: Path) -> list[str]:
    """The smallest network, one label of each new class."""
    small = ["--width", "2", "--labels", "1", "--target-epochs", "1", "--batch-size", "128"]
    return small


# Writes small data into a folder and returns the options of a small run on them.
SMALL: dict[str, Callable[[Path], list[str]]] = {
    "rows": rows,
    "scenes": scenes,
    "transfer": transfer,
    "chars": chars,
    "tags": tags,
    "translate": translate,
}


def shrink() -> None:
    """Leave few numbers in words, for the rest of this process."""
    from fastseq.recipes.translate import data

    data.SIZES = NUMBERS


def command(recipe: str, folder: Path, *options: str) -> list[str]:
    """The command line of a small run; data and runs are in the folder."""
    small = SMALL[recipe](folder)
    where = ["--out", str(folder / "out"), "--accelerator", "cpu"]
    return ["train", recipe, *small, *where, *options]


def weights(run_dir: Path, name: str = "last") -> dict[str, torch.Tensor]:
    """The parameters in a checkpoint of a run."""
    saved = torch.load(run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return saved["state_dict"]


def environment() -> dict[str, str]:
    """Of a child process: the same fastseq, installed or not, and one thread."""
    path = os.pathsep.join([str(Path(fastseq.__file__).parents[1]), *sys.path])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
