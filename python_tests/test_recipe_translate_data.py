"""Numbers in words: spelling, parts, batches, and what words alone reach."""

import doctest

import pytest
import torch

pytest.importorskip("lightning", reason="the train extra is not installed")

from fastseq.recipes.translate import data as numbers
from fastseq.recipes.translate.data import (
    BEGIN,
    END,
    PADDING,
    SIZES,
    SOURCE,
    collate,
    decode_digits,
    number_pairs,
    spell,
    word_by_word,
)


@pytest.mark.parametrize(
    ("number", "plain", "british"),
    [
        (0, "zero", "zero"),
        (13, "thirteen", "thirteen"),
        (40, "forty", "forty"),
        (99, "ninety nine", "ninety nine"),
        (100, "one hundred", "one hundred"),
        (105, "one hundred five", "one hundred and five"),
        (1_000, "one thousand", "one thousand"),
        (1_100, "one thousand one hundred", "one thousand one hundred"),
        (20_016, "twenty thousand sixteen", "twenty thousand and sixteen"),
        (
            999_999,
            "nine hundred ninety nine thousand nine hundred ninety nine",
            "nine hundred and ninety nine thousand nine hundred and ninety nine",
        ),
    ],
)
def test_spelling(number: int, plain: str, british: str) -> None:
    assert " ".join(spell(number)) == plain
    assert " ".join(spell(number, with_and=True)) == british


def test_no_two_numbers_are_spelled_alike() -> None:
    some = [*range(3_000), *range(3_000, 1_000_000, 997)]
    assert len({" ".join(spell(number)) for number in some}) == len(some)
    with pytest.raises(ValueError, match="number is 1000000, expected 0 to 999999"):
        spell(1_000_000)


def test_examples_run() -> None:
    result = doctest.testmod(numbers)
    assert result.attempted == 4
    assert result.failed == 0


def test_parts_share_no_number_and_are_the_same_every_time() -> None:
    parts = number_pairs()
    assert [len(part) for part in parts] == list(SIZES.values())
    every = [pair.digits for part in parts for pair in part]
    assert len(set(every)) == len(every)
    assert parts == number_pairs()
    assert all(word in SOURCE for part in parts for pair in part for word in pair.words)


def test_words_alone_are_right_but_for_zeros() -> None:
    for number in (7, 19, 21, 345, 21_345, 987_613):
        assert word_by_word(spell(number, with_and=True)) == str(number)
    for number in (20, 305, 1_000, 12_034):
        assert word_by_word(spell(number)) != str(number)


def test_batches_are_one_token_apart_and_padded() -> None:
    pairs = [numbers.Pair(spell(number), str(number)) for number in (305, 7)]
    batch = collate(pairs)
    assert batch.src.shape == (2, 3)
    assert batch.src[1].tolist() == [SOURCE.index("seven"), PADDING, PADDING]
    assert batch.tgt[:, 0].tolist() == [BEGIN, BEGIN]
    assert decode_digits(batch.tgt[0, 1:]) == decode_digits(batch.wanted[0, :3]) == "305"
    assert batch.wanted[1, 1:].tolist() == [END, PADDING, PADDING]
    assert torch.equal(batch.tgt[1, 1:2], batch.wanted[1, :1])
