"""Tagged sentences in padded batches, with a stand-in for every word that may be unknown."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from fastseq.recipes.shared.loading import training_loader
from fastseq.recipes.tags.conll import OUTSIDE, Sentence, read_conll, write_conll
from fastseq.recipes.tags.news import SIZES, news

PADDING, IGNORED = 0, -100
# Words seen fewer times stand for the unknown ones, and so do endings.
RARE, COMMON = 2, 20
EVALUATION_BATCH = 128


class TagBatch(NamedTuple):
    """Sentences as numbers.

    Attributes:
        words: Each word's number, or that of its signature; ``(B, T)``, 0 beyond the end.
        signatures: The numbers of the signatures, ``(B, T)``.
        lengths: ``(B,)``.
        tags: ``(B, T)``, -100 beyond the end.
    """

    words: Tensor
    signatures: Tensor
    lengths: Tensor
    tags: Tensor


def signature(word: str, ending: bool = False) -> str:
    """Return what can be said of a word never seen: its shape, and how it ends.

    Example:
        >>> [signature(word) for word in ("Ada", "NATO", "of", "F.", "1,200", "--", "McBride")]
        ['<Aa>', '<A>', '<a>', '<A.>', '<0>', '<.>', '<AaA>']
        >>> signature("Danish", ending=True)
        '<Aa>sh'
    """
    return _shape(word) + (word[-2:].lower() if ending and len(word) > 4 else "")


def _shape(word: str) -> str:
    if any(letter.isdigit() for letter in word):
        return "<0>"
    letters = [letter for letter in word if letter.isalpha()]
    if not letters:
        return "<.>"
    if all(letter.isupper() for letter in letters):
        return "<A.>" if len(letters) < len(word) else "<A>"
    if letters[0].isupper():
        return "<AaA>" if any(letter.isupper() for letter in letters[1:]) else "<Aa>"
    return "<a>"


# What `signature` gives without the ending.
SHAPES = ("<Aa>", "<AaA>", "<A>", "<A.>", "<a>", "<0>", "<.>")


class WordVocabulary:
    """Words and signatures with their numbers; 0 is the padding.

    Args:
        sentences: A word is known when they hold it at least twice.
    """

    def __init__(self, sentences: Sequence[Sentence]) -> None:
        counts = Counter(word for sentence in sentences for word in sentence.tokens)
        known = sorted(word for word, count in counts.items() if count >= RARE)
        endings = Counter(
            signature(word, ending=True) for sentence in sentences for word in sentence.tokens
        )
        shapes = {*SHAPES, *(ending for ending, count in endings.items() if count >= COMMON)}
        self.words = ["<padding>", *sorted(shapes), *known]
        self._numbers = {word: i for i, word in enumerate(self.words) if i}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, tokens: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the numbers of words, or else of their signatures, and those of all signatures."""
        shapes = [self._shape(token) for token in tokens]
        pairs = zip(tokens, shapes, strict=True)
        words = [self._numbers.get(token, shape) for token, shape in pairs]
        return torch.tensor(words), torch.tensor(shapes)

    def _shape(self, token: str) -> int:
        fallback = self._numbers[signature(token)]
        return self._numbers.get(signature(token, ending=True), fallback)


class TagParts(NamedTuple):
    """The sentences of each part."""

    train: list[Sentence]
    validation: list[Sentence]
    test: list[Sentence]


def read_parts(train: Path | None, validation: Path | None, test: Path | None) -> TagParts:
    """Return the sentences of three CoNLL files, or the embedded ones where none is given.

    Raises:
        FileNotFoundError: If a file is not there.
        ValueError: If a line is broken, or only some of the files are given.
    """
    paths = {"--train": train, "--val": validation, "--test": test}
    missing = [name for name, path in paths.items() if path is None]
    if len(missing) == len(paths):
        return TagParts(*(news(part) for part in SIZES))
    if missing:
        raise ValueError(
            f"{' and '.join(missing)} missing: pass a CoNLL file to each of --train, --val and "
            f"--test, or to none for the embedded corpus"
        )
    return TagParts(*(read_conll(path) for path in paths.values() if path is not None))


class _Encoded(Dataset[tuple[Tensor, Tensor, Tensor]]):
    def __init__(
        self, sentences: Sequence[Sentence], vocabulary: WordVocabulary, tags: Sequence[str]
    ) -> None:
        numbers = {tag: i for i, tag in enumerate(tags)}
        self.items = [
            (*vocabulary.encode(tokens), torch.tensor([numbers[tag] for tag in given]))
            for tokens, given in sentences
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        return self.items[index]


def collate(samples: list[tuple[Tensor, Tensor, Tensor]]) -> TagBatch:
    """Pad sentences to the longest."""
    words, signatures, tags = map(list, zip(*samples, strict=True))
    return TagBatch(
        pad_sequence(words, batch_first=True, padding_value=PADDING),
        pad_sequence(signatures, batch_first=True, padding_value=PADDING),
        torch.tensor([len(sentence) for sentence in words]),
        pad_sequence(tags, batch_first=True, padding_value=IGNORED),
    )


class TaggedSentences(LightningDataModule):
    """Tagged sentences in padded batches.

    In training some words are hidden behind their signatures, so that the network learns what to
    make of a word that it does not know; which ones is a function of the seed and the step alone.

    Args:
        parts: Sentences to train, validate and test.
        batch_size: Sentences in a training batch, on each process.
        word_dropout: Share of the words to hide, 0 to 1.
        seed: Seed of the order and of the words hidden.
    """

    def __init__(
        self, parts: TagParts, batch_size: int = 32, word_dropout: float = 0.3, seed: int = 0
    ) -> None:
        super().__init__()
        if not 0.0 <= word_dropout <= 1.0:
            raise ValueError(f"word_dropout is {word_dropout}, expected 0 to 1")
        self.sentences = parts
        self.batch_size, self.word_dropout, self.seed = batch_size, word_dropout, seed
        self.vocabulary = WordVocabulary(parts.train)
        # Of all parts: a tag that only the test has is one that nobody gets right.
        found = {tag for part in parts for sentence in part for tag in sentence.tags}
        self.tags = [OUTSIDE, *sorted(found - {OUTSIDE})]
        corpus = "\n".join(write_conll(part) for part in parts)
        self.fingerprint = hashlib.sha256(corpus.encode()).hexdigest()[:12]

    def train_dataloader(self) -> DataLoader[TagBatch]:
        """Shuffled batches."""
        data = self._encoded(self.sentences.train)
        return training_loader(data, self.batch_size, self.seed, self.trainer, collate)

    def val_dataloader(self) -> DataLoader[TagBatch]:
        """The validation part, in order and whole on every process."""
        return self._in_order(self.sentences.validation)

    def test_dataloader(self) -> DataLoader[TagBatch]:
        """The test part, in order and whole on every process."""
        return self._in_order(self.sentences.test)

    def on_after_batch_transfer(self, batch: TagBatch, dataloader_idx: int) -> TagBatch:
        """Hide some of the training words."""
        trainer = self.trainer
        if trainer is None or not trainer.training or self.word_dropout == 0.0:
            return batch
        step = trainer.global_step * trainer.world_size + trainer.global_rank
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        hidden = torch.rand(batch.words.shape, generator=generator) < self.word_dropout  # (B, T)
        words = torch.where(hidden.to(batch.words.device), batch.signatures, batch.words)
        return batch._replace(words=words)

    def _encoded(self, sentences: Sequence[Sentence]) -> _Encoded:
        return _Encoded(sentences, self.vocabulary, self.tags)

    def _in_order(self, sentences: Sequence[Sentence]) -> DataLoader[TagBatch]:
        return DataLoader(self._encoded(sentences), EVALUATION_BATCH, collate_fn=collate)  # type: ignore[arg-type]


def most_frequent_tags(
    train: Sequence[Sentence], sentences: Sequence[Sentence]
) -> list[tuple[str, ...]]:
    """Tag every word as it is most often tagged: a baseline to beat.

    Args:
        train: Sentences that are counted.
        sentences: Sentences that are tagged; an unknown word gets the most frequent tag of the
            words of its signature.
    """
    counts: dict[str, Counter[str]] = {}
    for sentence in train:
        for word, tag in zip(*sentence, strict=True):
            for key in (word, signature(word)):
                counts.setdefault(key, Counter())[tag] += 1
    likeliest = {key: counter.most_common(1)[0][0] for key, counter in counts.items()}
    return [
        tuple(likeliest.get(w, likeliest.get(signature(w), OUTSIDE)) for w in sentence.tokens)
        for sentence in sentences
    ]
