"""The recipe `fastseq train chars`: a language model of characters."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastseq.recipes.chars.config import CharsConfig
from fastseq.recipes.chars.data import Characters, ngram_perplexity, python_documentation, read_text
from fastseq.recipes.chars.task import CharacterModel
from fastseq.recipes.shared.figures import Measure, learning_curves
from fastseq.recipes.shared.run import Outcome, Run, RunResult

PERPLEXITY = Measure("val_perplexity", "perplexity per character", best=min, logarithmic=True)
BASELINES = {1: "unigram", 2: "bigram"}


@dataclass(frozen=True, kw_only=True)
class CharsResult(RunResult):
    """What `train_chars` leaves behind.

    Attributes:
        perplexity: Of the test text, per character, with the best checkpoint.
        baselines: The same of character counts, by name.
        sample: What the model wrote.
    """

    perplexity: float
    baselines: dict[str, float]
    sample: str


class CharsRun(Run[CharsConfig, Characters, CharacterModel, CharsResult]):
    """The recipe, built and checked before the first step."""

    layers = ("cell", "embedding_size", "hidden_size", "num_layers", "text")
    measures = ("train_loss", "val_loss", "val_perplexity")

    def build_data(self) -> Characters:
        """Return the text in windows."""
        config = self.config
        text = python_documentation() if config.text is None else read_text(config.text)
        return Characters(text, config.batch_size, config.window, config.seed)

    def hyper_parameters(self) -> dict[str, Any]:
        """Return the layers' options, and which text it is."""
        return {**super().hyper_parameters(), "text": self.data.fingerprint}

    def build_task(self) -> CharacterModel:
        """Return the CharRNN with its loss and optimizer."""
        config = self.config
        return CharacterModel(
            len(self.data.vocabulary),
            config.cell,
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
        config, parts = self.config, self.data.parts
        source = str(config.text or f"the documentation of Python {platform.python_version()}")
        sizes = " + ".join(f"{len(part):,}" for part in parts)
        return (
            f"{self.library} {config.cell.upper()}, {config.num_layers} x {config.hidden_size} "
            f"units, {self.weights:,} parameters; {source}: {sizes} characters "
            f"(train + validation + test), {len(self.data.vocabulary)} different"
        )

    def result(self, outcome: Outcome) -> CharsResult:
        """Return perplexity, baselines and a sample."""
        return CharsResult(
            perplexity=outcome.metrics["test_perplexity"],
            baselines=self.baselines("test"),
            sample=self.write(),
            run_dir=outcome.run_dir,
            checkpoint=outcome.checkpoint,
        )

    def baselines(self, part: str) -> dict[str, float]:
        """Return the perplexity of a part of the text under character counts."""
        train, tokens = self.data.parts.train, getattr(self.data.parts, part)
        size = len(self.data.vocabulary)
        return {
            name: ngram_perplexity(train, tokens, size, order) for order, name in BASELINES.items()
        }

    def write(self) -> str:
        """Let the model go on after the prompt."""
        config, vocabulary = self.config, self.data.vocabulary
        prompt = vocabulary.encode(config.prompt).unsqueeze(0).to(self.task.device)
        written = self.task.model.generate(
            prompt, config.sample, config.temperature, seed=config.seed
        )
        return config.prompt + vocabulary.decode(written[0, prompt.size(1) :].tolist())

    def figures(self, outcome: Outcome) -> list[Path]:
        """Draw the learning curves, with the baselines beside the perplexity."""
        title = f"{self.library} {self.config.cell.upper()}: next character"
        path = outcome.run_dir / "learning_curves.png"
        lines = self.baselines("validation")
        return [learning_curves(outcome.epochs, path, title, PERPLEXITY, lines)]

    def last_words(self, result: CharsResult) -> str:
        """Print a sample, then the perplexity beside what counts alone reach."""
        indented = "\n".join(f"    {line}" for line in result.sample.splitlines())
        counts = ", ".join(f"{name} {value:.2f}" for name, value in result.baselines.items())
        return (
            f"sample at temperature {self.config.temperature:g}:\n{indented}\n"
            f"test perplexity {result.perplexity:.2f} per character (counts: {counts})"
        )


def train_chars(config: CharsConfig | None = None) -> CharsResult:
    """Train a CharRNN on a text; the last line printed is the test perplexity.

    Args:
        config: The options; ``None`` takes the defaults.

    Returns:
        Test perplexity, baselines, a sample, run folder and best checkpoint.

    Example:
        >>> from fastseq.recipes.chars.config import CharsConfig
        >>> from fastseq.recipes.chars.run import train_chars
        >>> result = train_chars(CharsConfig(cell="gru", epochs=2))  # doctest: +SKIP
    """
    return CharsRun(config or CharsConfig()).run()
