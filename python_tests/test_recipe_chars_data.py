"""Texts in windows and lanes, and what counting characters reaches."""

import doctest
import math
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning", reason="the train extra is not installed")

from fastseq.recipes.chars import data as module
from fastseq.recipes.chars.data import (
    UNKNOWN,
    Characters,
    Lanes,
    Vocabulary,
    ngram_perplexity,
    python_documentation,
    read_text,
)

TEXT = "".join(chr(97 + (i * i + i // 7) % 26) for i in range(2000))


def test_documentation_is_long_and_repeats_no_paragraph() -> None:
    text = python_documentation()
    assert len(text) > 200_000
    # A paragraph with an empty first line loses it, and may then equal another.
    paragraphs = Counter(text.rstrip("\n").split("\n\n"))
    assert sum(paragraphs.values()) - len(paragraphs) <= len(paragraphs) // 100
    assert "assert" in text


def test_missing_documentation_gets_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(FileNotFoundError, match=r"comes without its documentation .*--text"):
        python_documentation()


def test_examples_run() -> None:
    result = doctest.testmod(module)
    assert result.attempted == 3
    assert result.failed == 0


def test_vocabulary_returns_what_it_was_given_but_for_the_unknown() -> None:
    vocabulary = Vocabulary(f"hello\n{UNKNOWN}")
    assert len(vocabulary) == 6
    assert vocabulary.decode(vocabulary.encode("hole\n").tolist()) == "hole\n"
    assert vocabulary.decode(vocabulary.encode("hälla").tolist()) == f"h{UNKNOWN}ll{UNKNOWN}"


def test_parts_cover_the_text_and_windows_are_one_character_apart() -> None:
    data = Characters(TEXT, batch_size=4, window=30)
    decoded = data.vocabulary.decode(torch.cat(list(data.parts)).tolist())
    assert decoded == TEXT
    windows = [pair for batch in data.train_dataloader() for pair in zip(*batch, strict=True)]
    assert len(windows) == (1800 - 1) // 30
    for inputs, targets in windows:
        read = data.vocabulary.decode(inputs.tolist())
        assert len(read) == 30
        assert data.vocabulary.decode(targets.tolist())[:-1] == read[1:]
    # No window twice, though shuffled.
    read = {data.vocabulary.decode(inputs.tolist()) for inputs, _ in windows}
    assert read == {TEXT[i : i + 30] for i in range(0, 30 * len(windows), 30)}


def test_lanes_read_the_text_in_order_to_its_end() -> None:
    tokens = torch.arange(43)
    batches = list(Lanes(tokens, lanes=4, steps=3))
    inputs, targets = (torch.cat(part, dim=1) for part in zip(*batches, strict=True))
    assert torch.equal(inputs, tokens[:40].view(4, 10))
    assert torch.equal(targets, tokens[1:41].view(4, 10))
    assert [batch[0].size(1) for batch in batches] == [3, 3, 3, 1]


def test_ngram_perplexities_by_hand() -> None:
    train, test = torch.tensor([0, 1, 0, 1, 0]), torch.tensor([1, 0, 0])
    unigram = [4 / 8, 3 / 8, 1 / 8]  # one is added to each count: 3, 2 and 0
    expected = math.exp(-(math.log(unigram[0]) + math.log(unigram[0])) / 2)
    assert ngram_perplexity(train, test, 3, order=1) == pytest.approx(expected)
    # 1 is followed by 0 twice of twice, 0 by 0 never of twice.
    pairs = [(2 + unigram[0]) / 3, (0 + unigram[0]) / 3]
    expected = math.exp(-sum(map(math.log, pairs)) / 2)
    assert ngram_perplexity(train, test, 3, order=2) == pytest.approx(expected)
    with pytest.raises(ValueError, match="order is 3"):
        ngram_perplexity(train, test, 3, order=3)


def test_bad_texts_get_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no text file at"):
        read_text(tmp_path / "none.txt")
    latin = tmp_path / "latin.txt"
    latin.write_bytes("caf\xe9 au lait".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin.txt is not UTF-8 \(byte 3"):
        read_text(latin)
    with pytest.raises(ValueError, match="the text has 100 characters, too few"):
        Characters("x" * 100)
    with pytest.raises(ValueError, match="window is 0, expected at least 1"):
        Characters(TEXT, window=0)
    with pytest.raises(ValueError, match="too few for windows of 1800"):
        Characters(TEXT, window=1800)
