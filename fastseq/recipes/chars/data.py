"""Texts for character models: Python's own documentation, or any file; and batches of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from fastseq.recipes.shared.loading import training_loader

# Parts of the text, from its beginning; the rest is for the test.
TRAIN_SHARE, VALIDATION_SHARE = 0.90, 0.05
# Validation and test texts are read in this many lanes side by side.
LANES, LANE_STEPS = 8, 256
UNKNOWN = "\N{REPLACEMENT CHARACTER}"
# The character (B, T) and the one after each, (B, T).
Windows = tuple[Tensor, Tensor]


def python_documentation() -> str:
    """Return the language reference that comes with Python, each paragraph once.

    Source: ``pydoc_data.topics``, which `help()` reads. The text differs a little between
    versions of Python. Topics quote each other at length, so repeated paragraphs are dropped:
    otherwise the test text would stand in the training text.

    Raises:
        FileNotFoundError: If this Python comes without its documentation.
    """
    try:
        from pydoc_data.topics import topics
    # Some distributions leave it out; a later Python may lay it out differently.
    except ImportError as error:
        raise FileNotFoundError(
            "this Python comes without its documentation (pydoc_data.topics); pass a text of "
            "your own with --text"
        ) from error
    seen: set[str] = set()
    kept = []
    for name in sorted(topics):
        for paragraph in topics[name].replace("\r\n", "\n").split("\n\n"):
            if paragraph.strip() and paragraph not in seen:
                seen.add(paragraph)
                kept.append(paragraph.strip("\n"))
    return "\n\n".join(kept) + "\n"


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not UTF-8.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no text file at {path}; pass --text another")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 (byte {error.start}: {error.reason}); convert it, "
            f"for instance with iconv -t UTF-8"
        ) from error


class Vocabulary:
    """Characters and their numbers; number 0 stands for any character unknown.

    Args:
        text: The characters known are those that occur in it.

    Example:
        >>> vocabulary = Vocabulary("abba")
        >>> vocabulary.encode("abc").tolist()
        [1, 2, 0]
        >>> vocabulary.decode([2, 1])
        'ba'
    """

    def __init__(self, text: str) -> None:
        self.characters = [UNKNOWN, *sorted(set(text) - {UNKNOWN})]
        self._numbers = {character: i for i, character in enumerate(self.characters)}

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> Tensor:
        """Return the numbers of a text's characters."""
        return torch.tensor([self._numbers.get(character, 0) for character in text])

    def decode(self, numbers: list[int]) -> str:
        """Return the text that the numbers stand for."""
        return "".join(self.characters[number] for number in numbers)


class TextParts(NamedTuple):
    """Numbers of the characters of each part."""

    train: Tensor
    validation: Tensor
    test: Tensor


class Lanes(IterableDataset[Windows]):
    """A text read in lanes side by side, in order, so that a state can be carried over.

    Args:
        tokens: The text, ``(N,)``. Characters that fill no whole lane are left out.
        lanes: B.
        steps: T of each batch; the last one may be shorter.
    """

    def __init__(self, tokens: Tensor, lanes: int = LANES, steps: int = LANE_STEPS) -> None:
        super().__init__()
        length = (len(tokens) - 1) // lanes
        self.steps = steps
        self.inputs = tokens[: lanes * length].view(lanes, length)
        self.targets = tokens[1 : lanes * length + 1].view(lanes, length)

    def __iter__(self) -> Iterator[Windows]:
        yield from zip(
            self.inputs.split(self.steps, 1), self.targets.split(self.steps, 1), strict=True
        )


class Characters(LightningDataModule):
    """A text in windows of characters ``(B, T)``, each with the characters one place further on.

    The first 90 % train, the next 5 % validate, the last 5 % test. Training windows do not
    overlap and come in an order that is a function of seed and epoch; the other two parts are
    read in order, in lanes.

    Args:
        text: The text.
        batch_size: Windows in a training batch, on each process.
        window: T of training windows.
        seed: Seed of the order.

    Raises:
        ValueError: If the text is too short, or a size too small.
    """

    def __init__(self, text: str, batch_size: int = 32, window: int = 128, seed: int = 0) -> None:
        super().__init__()
        if window < 1:
            raise ValueError(f"window is {window}, expected at least 1")
        train, validation = (round(len(text) * share) for share in (TRAIN_SHARE, VALIDATION_SHARE))
        shortest = min(train - window, validation - LANES, len(text) - train - validation - LANES)
        if shortest < 1:
            raise ValueError(
                f"the text has {len(text)} characters, too few for windows of {window} and "
                f"{LANES} lanes of validation; pass a longer text, or a smaller window"
            )
        self.batch_size, self.window, self.seed = batch_size, window, seed
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()[:12]
        self.vocabulary = Vocabulary(text[:train])
        self.parts = TextParts(
            *self.vocabulary.encode(text).tensor_split([train, train + validation])
        )

    def train_dataloader(self) -> DataLoader[Windows]:
        """Shuffled windows."""
        tokens, window = self.parts.train, self.window
        inputs = tokens[: (len(tokens) - 1) // window * window]
        targets = tokens[1 : len(inputs) + 1]
        data: Dataset[tuple[Tensor, ...]] = TensorDataset(
            inputs.view(-1, window), targets.view(-1, window)
        )
        return training_loader(data, self.batch_size, self.seed, self.trainer)

    def val_dataloader(self) -> DataLoader[Windows]:
        """The validation text, in order and whole on every process."""
        return DataLoader(Lanes(self.parts.validation), batch_size=None)

    def test_dataloader(self) -> DataLoader[Windows]:
        """The test text, in order and whole on every process."""
        return DataLoader(Lanes(self.parts.test), batch_size=None)


def ngram_perplexity(train: Tensor, test: Tensor, vocab_size: int, order: int) -> float:
    """Return the perplexity of a text under counts of another: a baseline to beat.

    Args:
        train: Text that is counted, ``(N,)``.
        test: Text that is predicted, ``(M,)``.
        vocab_size: V.
        order: 1 for a character's frequency, 2 for its frequency after the one before.
    """
    if order not in (1, 2):
        raise ValueError(f"order is {order}, expected 1 or 2")
    single = torch.bincount(train, minlength=vocab_size).double() + 1.0  # no count is zero
    unigram = single / single.sum()  # (V,)
    if order == 1:
        return float((-unigram.log()[test[1:]].mean()).exp())
    pairs = torch.bincount(train[:-1] * vocab_size + train[1:], minlength=vocab_size**2)
    counts = pairs.view(vocab_size, vocab_size).double()  # (V, V)
    # Pairs never seen are as likely as one sighting of the unigram makes them.
    bigram = (counts + unigram) / (counts.sum(dim=1, keepdim=True) + 1.0)
    return float((-bigram.log()[test[:-1], test[1:]].mean()).exp())
