"""Numbers in words and in digits: a small translation whose every answer is known."""

from __future__ import annotations

import random
from typing import NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from fastseq.recipes.shared.loading import training_loader

_ONES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
fifteen sixteen seventeen eighteen nineteen"""
ONES = _ONES.split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
TENS = _TENS.split()
LIMIT = 1_000_000
SIZES = {"train": 12_000, "validation": 1_000, "test": 2_000}
# The numbers are the same whatever the seed of the training, so that figures compare.
SPLIT_SEED = 0
EVALUATION_BATCH = 500

PADDING, BEGIN, END = 0, 1, 2
SPECIAL = ["<padding>", "<begin>", "<end>"]
SOURCE = [*SPECIAL, *ONES, *TENS, "hundred", "thousand", "and"]
TARGET = [*SPECIAL, *"0123456789"]


def spell(number: int, with_and: bool = False) -> list[str]:
    """Return the English words of a number below a million.

    Example:
        >>> " ".join(spell(342_007))
        'three hundred forty two thousand seven'
        >>> " ".join(spell(342_007, with_and=True))
        'three hundred and forty two thousand and seven'
    """
    if not 0 <= number < LIMIT:
        raise ValueError(f"number is {number}, expected 0 to {LIMIT - 1}")
    joint = ["and"] if with_and else []
    if number < 20:
        return [ONES[number]]
    if number < 100:
        tens, ones = divmod(number, 10)
        return [TENS[tens - 2], *([ONES[ones]] if ones else [])]
    size, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    many, rest = divmod(number, size)
    words = [*spell(many, with_and), name]
    if rest:
        # British English says "and" before the last two digits alone.
        words += [*(joint if rest < 100 else []), *spell(rest, with_and)]
    return words


def word_by_word(words: list[str]) -> str:
    """Write down the digits that each word names, and nothing for the rest: a baseline to beat.

    It is right wherever no digit is zero.

    Example:
        >>> word_by_word("three hundred forty two".split())
        '342'
        >>> word_by_word("three hundred two".split())
        '32'
    """
    digits = {word: str(number) for number, word in enumerate(ONES)}
    digits |= {word: str(number) for number, word in enumerate(TENS, start=2)}
    return "".join(digits.get(word, "") for word in words)


class Pair(NamedTuple):
    """A number in words, and its digits."""

    words: list[str]
    digits: str


class PairBatch(NamedTuple):
    """Pairs as numbers, padded at the end.

    Attributes:
        src: Words, ``(B, S)``.
        tgt: What the decoder reads: the beginning, then the digits; ``(B, T)``.
        wanted: What it should write: the digits, then the end; ``(B, T)``.
    """

    src: Tensor
    tgt: Tensor
    wanted: Tensor


class PairParts(NamedTuple):
    """The pairs of each part; no number is in two of them."""

    train: list[Pair]
    validation: list[Pair]
    test: list[Pair]


def number_pairs() -> PairParts:
    """Return different numbers below a million, half of them spelled with "and".

    Their sizes are spread evenly over the number of digits, else nearly all would have six.
    """
    random_ = random.Random(SPLIT_SEED)
    numbers: dict[int, Pair] = {}
    while len(numbers) < sum(SIZES.values()):
        number = int(10 ** random_.uniform(0.0, 6.0)) - 1
        pair = Pair(spell(number, with_and=random_.random() < 0.5), str(number))
        numbers.setdefault(number, pair)
    pairs = list(numbers.values())
    # Small numbers run out and were drawn first: shuffled, every part has its share.
    random_.shuffle(pairs)
    one, two = SIZES["train"], SIZES["train"] + SIZES["validation"]
    return PairParts(pairs[:one], pairs[one:two], pairs[two:])


def encode_words(words: list[str]) -> Tensor:
    """Return the numbers of words, ``(S,)``."""
    return torch.tensor([SOURCE.index(word) for word in words])


def decode_digits(tokens: Tensor) -> str:
    """Return the digits that the tokens stand for."""
    return "".join(TARGET[token] for token in tokens.tolist())


class NumberWords(LightningDataModule):
    """Numbers in words and in digits, in padded batches.

    Args:
        batch_size: Pairs in a training batch, on each process.
        seed: Seed of the order.
        parts: The pairs; ``None`` takes those of `number_pairs`.
    """

    def __init__(self, batch_size: int = 64, seed: int = 0, parts: PairParts | None = None) -> None:
        super().__init__()
        self.batch_size, self.seed = batch_size, seed
        self.pairs = parts or number_pairs()

    def train_dataloader(self) -> DataLoader[PairBatch]:
        """Shuffled batches."""
        data = _Pairs(self.pairs.train)
        return training_loader(data, self.batch_size, self.seed, self.trainer, collate)

    def val_dataloader(self) -> DataLoader[PairBatch]:
        """The validation part, in order and whole on every process."""
        return _in_order(self.pairs.validation)

    def test_dataloader(self) -> DataLoader[PairBatch]:
        """The test part, in order and whole on every process."""
        return _in_order(self.pairs.test)


class _Pairs(Dataset[Pair]):
    def __init__(self, pairs: list[Pair]) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        return self.pairs[index]


def collate(pairs: list[Pair]) -> PairBatch:
    """Encode pairs and pad them to the longest."""
    digits = [torch.tensor([TARGET.index(digit) for digit in pair.digits]) for pair in pairs]
    begin, end = torch.tensor([BEGIN]), torch.tensor([END])
    return PairBatch(
        *(
            pad_sequence(sequences, batch_first=True, padding_value=PADDING)
            for sequences in (
                [encode_words(pair.words) for pair in pairs],
                [torch.cat([begin, number]) for number in digits],
                [torch.cat([number, end]) for number in digits],
            )
        )
    )


def _in_order(pairs: list[Pair]) -> DataLoader[PairBatch]:
    return DataLoader(_Pairs(pairs), EVALUATION_BATCH, collate_fn=collate)  # type: ignore[arg-type]
