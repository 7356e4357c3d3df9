"""The recipe `fastseq train tags`: named entities."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastseq.recipes.shared.figures import Measure, learning_curves
from fastseq.recipes.shared.run import Outcome, Run, RunResult
from fastseq.recipes.tags.config import TagsConfig
from fastseq.recipes.tags.conll import entities
from fastseq.recipes.tags.data import TaggedSentences, most_frequent_tags, read_parts
from fastseq.recipes.tags.figures import entity_bars
from fastseq.recipes.tags.metrics import MICRO, EntityF1, Score
from fastseq.recipes.tags.task import EntityTagger

F1 = Measure("val_f1", "entity F1 (%)", scale=100.0, unit=" %")


@dataclass(frozen=True, kw_only=True)
class TagsResult(RunResult):
    """What `train_tags` leaves behind.

    Attributes:
        scores: Of each kind of entity in the test sentences, and of ``"all"`` together, with the
            best checkpoint.
        baseline: The same for the most frequent tag of each word.
    """

    scores: dict[str, Score]
    baseline: dict[str, Score]


class TagsRun(Run[TagsConfig, TaggedSentences, EntityTagger, TagsResult]):
    """The recipe, built and checked before the first step."""

    layers = ("embedding_size", "hidden_size", "num_layers")
    measures = ("train_loss", "val_loss", "val_f1")
    monitor, mode = "val_f1", "max"

    def build_data(self) -> TaggedSentences:
        """Return the sentences in padded batches."""
        config = self.config
        parts = read_parts(config.train, config.val, config.test)
        return TaggedSentences(parts, config.batch_size, config.word_dropout, config.seed)

    def hyper_parameters(self) -> dict[str, Any]:
        """Return the layers' options, and which corpus it is."""
        return {**super().hyper_parameters(), "corpus": self.data.fingerprint}

    def build_task(self) -> EntityTagger:
        """Return the SequenceTagger with its loss and optimizer."""
        config = self.config
        return EntityTagger(
            len(self.data.vocabulary),
            self.data.tags,
            config.embedding_size,
            config.hidden_size,
            config.num_layers,
            config.dropout,
            config.native,
            config.lr,
            config.weight_decay,
            self.data.fingerprint,
        )

    def headline(self) -> str:
        """Say in a line what is trained, and on what."""
        config, data = self.config, self.data
        sizes = " + ".join(f"{len(part):,}" for part in data.sentences)
        source = "the embedded news" if config.train is None else str(config.train.parent)
        return (
            f"{self.library} BiLSTM, {config.num_layers} x 2 x {config.hidden_size} units, "
            f"{self.weights:,} parameters; {source}: {sizes} sentences "
            f"(train + validation + test), {len(data.tags)} tags\n"
            f"{self._unknown():.0f} % of the test's names hold a word that training never saw"
        )

    def _unknown(self) -> float:
        seen = {word for sentence in self.data.sentences.train for word in sentence.tokens}
        named = [
            any(word not in seen for word in sentence.tokens[entity.start : entity.end])
            for sentence in self.data.sentences.test
            for entity in entities(sentence.tags)
        ]
        return 100.0 * sum(named) / max(len(named), 1)

    def result(self, outcome: Outcome) -> TagsResult:
        """Return the scores beside the baseline's."""
        return TagsResult(
            scores=self.task.scores,
            baseline=self.baseline("test"),
            run_dir=outcome.run_dir,
            checkpoint=outcome.checkpoint,
        )

    def baseline(self, part: str) -> dict[str, Score]:
        """Return the scores of the most frequent tag of each word."""
        train, sentences = self.data.sentences.train, getattr(self.data.sentences, part)
        metric = EntityF1(self.data.tags)
        tagged = most_frequent_tags(train, sentences)
        metric.update(tagged, [sentence.tags for sentence in sentences])
        return metric.scores()

    def figures(self, outcome: Outcome) -> list[Path]:
        """Draw the learning curves, and F1 by kind of entity."""
        folder, title = outcome.run_dir, f"{self.library} BiLSTM finding names"
        baseline = {"most frequent tag": self.baseline("validation")[MICRO].f1}
        curves = learning_curves(
            outcome.epochs, folder / "learning_curves.png", title, F1, baseline
        )
        scores = {"BiLSTM": self.task.scores, "most frequent tag": self.baseline("test")}
        return [curves, entity_bars(scores, folder / "entities.png")]

    def last_words(self, result: TagsResult) -> str:
        """Print the scores by kind, then the F1 beside the baseline's."""
        lines = ["kind      count  precision   recall       F1  baseline F1"]
        for kind, score in result.scores.items():
            base = result.baseline[kind].f1
            precision, recall, f1, base = (100.0 * share for share in (*score[:3], base))
            lines.append(
                f"{kind:<8}{score.true:>7}{precision:>11.2f}{recall:>9.2f}{f1:>9.2f}{base:>13.2f}"
            )
        ours, theirs = (100.0 * table[MICRO].f1 for table in (result.scores, result.baseline))
        lines.append(f"test F1 {ours:.2f} % (most frequent tag of each word: {theirs:.2f} %)")
        return "\n".join(lines)


def train_tags(config: TagsConfig | None = None) -> TagsResult:
    """Train a SequenceTagger on named entities; the last line printed is the test F1.

    Args:
        config: The options; ``None`` takes the defaults.

    Returns:
        Scores by kind, those of the baseline, run folder and best checkpoint.

    Example:
        >>> from fastseq.recipes.tags.config import TagsConfig
        >>> from fastseq.recipes.tags.run import train_tags
        >>> result = train_tags(TagsConfig(hidden_size=32, epochs=2))  # doctest: +SKIP
    """
    return TagsRun(config or TagsConfig()).run()
