"""The recipe `fastseq train translate`: number words to digits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from fastseq.recipes.shared.figures import Measure, learning_curves
from fastseq.recipes.shared.run import Outcome, Run, RunResult
from fastseq.recipes.translate.config import TranslateConfig
from fastseq.recipes.translate.data import (
    NumberWords,
    Pair,
    PairParts,
    collate,
    decode_digits,
    word_by_word,
)
from fastseq.recipes.translate.figures import attention_map
from fastseq.recipes.translate.task import Translator

EXACT = Measure("val_exact", "numbers all right (%)", scale=100.0, unit=" %")


@dataclass(frozen=True, kw_only=True)
class TranslateResult(RunResult):
    """What `train_translate` leaves behind.

    Attributes:
        greedy: Share of the test numbers right in every digit, 0 to 1, with the best checkpoint.
        beam: The same by beam search.
        baseline: The same of writing down each word by itself.
    """

    greedy: float
    beam: float
    baseline: float


class TranslateRun(Run[TranslateConfig, NumberWords, Translator, TranslateResult]):
    """The recipe, built and checked before the first step."""

    layers = ("cell", "embedding_size", "hidden_size", "num_layers", "attention")
    measures = ("train_loss", "val_loss", "val_exact")

    def __init__(self, config: TranslateConfig, parts: PairParts | None = None) -> None:
        self.parts = parts
        super().__init__(config)

    def build_data(self) -> NumberWords:
        """Return numbers in padded batches."""
        return NumberWords(self.config.batch_size, self.config.seed, self.parts)

    def build_task(self) -> Translator:
        """Return the Seq2Seq with its loss and optimizer."""
        config = self.config
        return Translator(
            config.cell,
            config.embedding_size,
            config.hidden_size,
            config.num_layers,
            config.attention,
            config.dropout,
            config.native,
            config.lr,
            config.weight_decay,
            config.beams,
        )

    def headline(self) -> str:
        """Say in a line what is trained, and on what."""
        config = self.config
        sizes = " + ".join(f"{len(part):,}" for part in self.data.pairs)
        attention = "with attention" if config.attention else "without attention"
        return (
            f"{self.library} {config.cell.upper()} encoder and decoder {attention}, "
            f"{config.num_layers} x {config.hidden_size} units each, {self.weights:,} parameters; "
            f"{sizes} different numbers (train + validation + test)"
        )

    def baseline(self, part: str) -> float:
        """Return the share of numbers right when each word is written down by itself."""
        pairs: list[Pair] = getattr(self.data.pairs, part)
        return sum(word_by_word(pair.words) == pair.digits for pair in pairs) / len(pairs)

    def result(self, outcome: Outcome) -> TranslateResult:
        """Return the shares of numbers right."""
        return TranslateResult(
            greedy=outcome.metrics["test_greedy"],
            beam=outcome.metrics["test_beam"],
            baseline=self.baseline("test"),
            run_dir=outcome.run_dir,
            checkpoint=outcome.checkpoint,
        )

    def figures(self, outcome: Outcome) -> list[Path]:
        """Draw the learning curves, and where the decoder looked."""
        folder = outcome.run_dir
        title = f"{self.library} {self.config.cell.upper()}: number words to digits"
        lines = {"word by word": self.baseline("validation")}
        curves = learning_curves(
            outcome.epochs, folder / "learning_curves.png", title, EXACT, lines
        )
        return [curves, *self._attention(folder)]

    def _attention(self, folder: Path) -> list[Path]:
        if not self.config.attention:
            return []
        # The longest has most to show.
        pair = max(self.data.pairs.validation, key=lambda pair: len(pair.words))
        batch = collate([pair])
        task = self.task.eval()
        with torch.no_grad():
            src = batch.src.to(task.device)
            (written,) = task.greedy(src)
            tgt = torch.cat([batch.tgt[0, :1].to(written), written]).unsqueeze(0)
            _, weights = task.model.attend(src, tgt)
        assert weights is not None
        digits = decode_digits(written)
        title = f"{pair.digits} in words, read as {digits}"
        path = folder / "attention.png"
        return [attention_map(weights[0].cpu(), pair.words, [*digits, "end"], path, title)]

    def last_words(self, result: TranslateResult) -> str:
        """Say the share of numbers right, beside the baseline's."""
        return (
            f"test exact match {100.0 * result.greedy:.2f} % greedy, {100.0 * result.beam:.2f} % "
            f"with {self.config.beams} beams (word by word: {100.0 * result.baseline:.2f} %)"
        )


def train_translate(
    config: TranslateConfig | None = None, parts: PairParts | None = None
) -> TranslateResult:
    """Train a Seq2Seq on number words; the last line printed is the test exact match.

    Args:
        config: The options; ``None`` takes the defaults.
        parts: Pairs to learn from; ``None`` takes those of `number_pairs`.

    Returns:
        Shares of the numbers right, run folder and best checkpoint.

    Example:
        >>> from fastseq.recipes.translate.config import TranslateConfig
        >>> from fastseq.recipes.translate.run import train_translate
        >>> result = train_translate(TranslateConfig(cell="gru", epochs=2))  # doctest: +SKIP
    """
    return TranslateRun(config or TranslateConfig(), parts).run()
