"""What `fastseq study gradients` measures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Reach:
    """How far the gradients of one layer reach.

    Attributes:
        cell: ``"rnn"``, ``"gru"`` or ``"lstm"``.
        open_bias: Added to the gate that keeps the state.
        gain: What the recurrent weights were multiplied by.
        norms: Of dh_T/dx_t for t = 1 ... T.
    """

    cell: str
    open_bias: float
    gain: float
    norms: list[float]

    @property
    def factor(self) -> float:
        """By what the norm changes with each step back, a mean over all steps."""
        return float((self.norms[0] / self.norms[-1]) ** (1.0 / (len(self.norms) - 1)))


@dataclass(frozen=True)
class Training:
    """A training of the exploding RNN.

    Attributes:
        clip: Norm to which gradients were clipped; ``None`` for not at all.
        losses: Before each update.
        norms: Of each gradient, before it was clipped.
        applied: Of each gradient, as it was used.
    """

    clip: float | None
    losses: list[float]
    norms: list[float]
    applied: list[float]


@dataclass(frozen=True)
class GradientsResult:
    """What was measured.

    Attributes:
        plain: Reaches at nn.RNN's own initialisation, gates opened, and half closed.
        exploding: Reaches with large recurrent weights.
        trainings: Of the exploding RNN, without clipping and with.
        figure: Path of the plot.
    """

    plain: list[Reach]
    exploding: list[Reach]
    trainings: list[Training]
    figure: Path
