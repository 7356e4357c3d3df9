"""Whole models for `fastseq bench models`: a training step by torch.nn, and after ``swap``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fastseq.models import AlexNet, CharRNN, GoogLeNet, RowRNN, Seq2Seq, SequenceTagger

VOCABULARY, TAGS, CLASSES = 100, 9, 10


@dataclass(frozen=True)
class Model:
    """One model.

    Attributes:
        native: builds it of torch.nn's modules, without dropout, always with the same weights.
        inputs: a batch of what it reads, and last what it should say.
        batch: the size of a batch, if nothing else is asked.
        tolerance: how far the loss and the gradients of two providers may be apart.
    """

    native: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[Tensor, ...]]
    batch: int
    tolerance: float = 1e-2

    def step(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> Sequence[Tensor]:
        """The loss of a batch, after the gradients of all parameters have been computed."""
        *read, wanted = inputs
        output: Any = module(*read)
        logits = output if isinstance(output, Tensor) else output[0]
        loss = cross_entropy(logits.flatten(0, -2).float(), wanted.flatten())
        wanting = [p for p in module.parameters() if p.requires_grad]
        grads = torch.autograd.grad(loss, wanting, allow_unused=True)
        return (loss.detach(), *(g for g in grads if g is not None))


def _seeded(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    def made() -> nn.Module:
        torch.manual_seed(0)
        return build()

    return made


def _words(batch: int, steps: int, *limits: int) -> tuple[Tensor, ...]:
    """Random words and the like, (B, T) each, below the limits; 0 is padding."""
    return tuple(torch.randint(1, limit, (batch, steps)) for limit in limits)


def _images(batch: int, *shape: int) -> tuple[Tensor, ...]:
    return torch.randn(batch, *shape), torch.randint(CLASSES, (batch,))


MODELS: dict[str, Model] = {
    "RowRNN": Model(_seeded(lambda: RowRNN(native=True)), lambda n: _images(n, 28, 28), 64),
    "CharRNN": Model(
        _seeded(lambda: CharRNN(VOCABULARY, native=True)),
        lambda n: _words(n, 64, VOCABULARY, VOCABULARY),
        32,
    ),
    "Seq2Seq": Model(
        _seeded(lambda: Seq2Seq(VOCABULARY, VOCABULARY, native=True)),
        lambda n: _words(n, 20, VOCABULARY, VOCABULARY, VOCABULARY),
        32,
    ),
    "BiLSTM tagger": Model(
        _seeded(lambda: SequenceTagger(VOCABULARY, TAGS, hidden_size=128, native=True)),
        lambda n: _words(n, 40, VOCABULARY, TAGS),
        32,
    ),
    "AlexNet": Model(
        _seeded(lambda: AlexNet(CLASSES, dropout=0.0, native=True)),
        lambda n: _images(n, 3, 224, 224),
        8,
        5e-2,  # equal maxima may be taken from either of two places
    ),
    "GoogLeNet": Model(
        _seeded(lambda: GoogLeNet(CLASSES, aux_logits=False, dropout=0.0, native=True)),
        lambda n: _images(n, 3, 224, 224),
        4,
        5e-2,
    ),
}
