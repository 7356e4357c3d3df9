"""CoNLL files, entities, the embedded corpus, words as numbers, and the baseline."""

import doctest
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning", reason="the train extra is not installed")

from fastseq.recipes.tags import data as tagging_module
from fastseq.recipes.tags import news as news_module
from fastseq.recipes.tags.conll import (
    Entity,
    Sentence,
    entities,
    parse_conll,
    read_conll,
    write_conll,
)
from fastseq.recipes.tags.data import (
    IGNORED,
    TaggedSentences,
    TagParts,
    WordVocabulary,
    collate,
    most_frequent_tags,
    read_parts,
)
from fastseq.recipes.tags.metrics import EntityF1
from fastseq.recipes.tags.news import SIZES, TEMPLATES, news

CONLL = """-DOCSTART- -X- O O

EU NNP B-NP B-ORG
rejects VBZ B-VP O

Peter NNP B-NP B-PER
Blackburn NNP I-NP I-PER
"""


def sentence(text: str) -> Sentence:
    """Ada/B-PER sleeps -> a sentence."""
    pairs = [word.partition("/") for word in text.split()]
    return Sentence(tuple(word for word, _, _ in pairs), tuple(tag or "O" for _, _, tag in pairs))


def test_conll_takes_the_first_and_the_last_column() -> None:
    assert parse_conll(CONLL, "x") == [
        sentence("EU/B-ORG rejects"),
        sentence("Peter/B-PER Blackburn/I-PER"),
    ]
    # Neither a missing end of line, nor Windows' line ends, nor empty lines make a difference.
    assert parse_conll(CONLL.rstrip("\n"), "x") == parse_conll(CONLL, "x")
    assert parse_conll(CONLL.replace("\n", "\r\n"), "x") == parse_conll(CONLL, "x")
    assert parse_conll("\n\n" + CONLL + "\n\n", "x") == parse_conll(CONLL, "x")


def test_conll_returns_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "news.conll"
    path.write_text(write_conll(news("test")))
    assert read_conll(path) == news("test")


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("Ada B-PER\nsleeps\n", "line 2", "'sleeps' has no tag; expected a token, a space"),
        ("a O\n\nb O\nAda X-PER\n", "line 4", "tag 'X-PER' is not O, B-KIND or I-KIND"),
        ("Ada B-\n", "line 1", "tag 'B-' is not O"),
        ("Ada PER\n", "line 1", "tag 'PER' is not O"),
    ],
)
def test_broken_lines_are_named(tmp_path: Path, text: str, place: str, words: str) -> None:
    path = tmp_path / "broken.conll"
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        read_conll(path)
    assert str(error.value).startswith(f"{path}, {place}: ")
    assert words in str(error.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no CoNLL file at"):
        read_conll(tmp_path / "none.conll")
    empty = tmp_path / "empty.conll"
    empty.write_text("\n\n")
    with pytest.raises(ValueError, match=r"empty.conll holds no sentence"):
        read_conll(empty)
    empty.write_bytes(b"caf\xe9 O\n")
    with pytest.raises(ValueError, match=r"empty.conll is not UTF-8 \(byte 3"):
        read_conll(empty)


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("O O", set()),
        ("B-PER I-PER O B-LOC", {Entity("PER", 0, 2), Entity("LOC", 3, 4)}),
        ("B-PER B-PER", {Entity("PER", 0, 1), Entity("PER", 1, 2)}),
        ("I-PER I-PER O I-LOC", {Entity("PER", 0, 2), Entity("LOC", 3, 4)}),
        ("B-PER I-LOC I-LOC", {Entity("PER", 0, 1), Entity("LOC", 1, 3)}),
        ("O B-ORG I-ORG", {Entity("ORG", 1, 3)}),
    ],
)
def test_entities(tags: str, found: set[Entity]) -> None:
    assert entities(tags.split()) == found


def test_f1_counts_whole_entities_by_kind() -> None:
    metric = EntityF1(["O", "B-PER", "I-PER", "B-LOC", "B-ORG"])
    truth = ["B-PER I-PER O B-LOC", "B-LOC O"]
    given = ["B-PER O O B-LOC", "B-PER B-LOC"]
    metric.update([row.split() for row in given], [row.split() for row in truth])
    scores = metric.scores()
    assert scores["PER"] == (0.0, 0.0, 0.0, 1)  # the end is wrong, and one too many
    assert scores["LOC"] == (0.5, 0.5, 0.5, 2)
    assert scores["ORG"] == (0.0, 0.0, 0.0, 0)
    assert scores["all"] == (pytest.approx(1 / 4), pytest.approx(1 / 3), pytest.approx(2 / 7), 3)
    assert float(metric.compute()) == pytest.approx(2 / 7)


def test_news_is_the_same_every_time_and_its_parts_share_no_template() -> None:
    parts = {name: news(name) for name in SIZES}
    assert {name: len(part) for name, part in parts.items()} == SIZES
    assert parts == {name: news(name) for name in SIZES}
    for part in parts.values():
        kinds = {tag for given in part for tag in given.tags}
        assert {"O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-MISC"} == kinds
    lists = [set(news_module._share(TEMPLATES.split("\n"), name)) for name in SIZES]
    assert sum(map(len, lists)) == len(set.union(*lists)) == len(TEMPLATES.split("\n"))
    seen = {word for given in parts["train"] for word in given.tokens}
    names = [
        given.tokens[entity.start : entity.end]
        for given in parts["test"]
        for entity in entities(given.tags)
    ]
    unseen = sum(any(word not in seen for word in name) for name in names) / len(names)
    assert 0.3 < unseen < 0.7
    with pytest.raises(ValueError, match="part is 'dev', expected one of 'train'"):
        news("dev")


def test_examples_run() -> None:
    for module, examples in ((news_module, 3), (tagging_module, 2)):
        result = doctest.testmod(module)
        assert result.attempted == examples
        assert result.failed == 0


def test_vocabulary_knows_words_seen_twice_and_the_shapes_of_others() -> None:
    vocabulary = WordVocabulary([sentence("the cat"), sentence("The cat"), sentence("the Dane")])
    words, shapes = vocabulary.encode(["the", "cat", "dog", "Ada", "The"])
    names = [vocabulary.words[number] for number in words.tolist()]
    assert names == ["the", "cat", "<a>", "<Aa>", "<Aa>"]
    assert [vocabulary.words[n] for n in shapes.tolist()] == ["<a>", "<a>", "<a>", "<Aa>", "<Aa>"]


def test_batches_are_padded_and_words_hidden_in_training_alone() -> None:
    parts = TagParts([sentence("Ada/B-PER slept"), sentence("a b c")] * 2, *([[]] * 2))
    data = TaggedSentences(parts, batch_size=4, word_dropout=1.0)
    batch = collate(list(data._encoded(parts.train[:2])))
    assert batch.lengths.tolist() == [2, 3]
    assert batch.words[0, 2] == batch.signatures[0, 2] == 0
    assert batch.tags.tolist() == [[1, 0, IGNORED], [0, 0, 0]]
    # Without a trainer that trains, nothing is hidden.
    assert torch.equal(data.on_after_batch_transfer(batch, 0).words, batch.words)

    class Training:
        training, global_step, world_size, global_rank = True, 3, 2, 1

    data.trainer = Training()
    hidden = data.on_after_batch_transfer(batch, 0).words
    assert torch.equal(hidden, batch.signatures)
    data.word_dropout = 0.5
    one, two = (data.on_after_batch_transfer(batch, 0).words for _ in range(2))
    assert torch.equal(one, two)


def test_baseline_is_the_most_frequent_tag() -> None:
    train = [sentence("Paris/B-LOC Paris/B-PER Paris/B-LOC in Rome/B-LOC Bonn/B-LOC , ,")]
    tagged = most_frequent_tags(train, [sentence("Paris Oslo in of , -- 7")])
    assert tagged == [("B-LOC", "B-LOC", "O", "O", "O", "O", "O")]


def test_some_files_of_three_are_refused() -> None:
    with pytest.raises(ValueError, match="--val and --test missing"):
        read_parts(Path("a"), None, None)
    assert [len(part) for part in read_parts(None, None, None)] == list(SIZES.values())
