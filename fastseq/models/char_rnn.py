"""CharRNN: a recurrent network that writes a text, one character after the other."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fastseq.models.recurrences import State, check_cell, check_tokens, recurrence
from fastseq.models.shared import check_dropout, check_sizes, evaluating


class CharRNN(nn.Module):
    """Predict the next character of a text from all that came before.

    The character-level language model of SRM 18AIC301J unit 4 and of A. Karpathy, "The
    Unreasonable Effectiveness of Recurrent Neural Networks" (2015): an embedding, stacked
    recurrent layers, and a linear layer that gives logits of the next character at every step.

    Args:
        vocab_size: V, characters that the text is made of.
        cell: The recurrence, ``"lstm"``, ``"gru"`` or ``"rnn"`` (tanh).
        embedding_size: E, features of an embedded character.
        hidden_size: H, units of each recurrent layer.
        num_layers: Recurrent layers, stacked.
        dropout: Probability of zeroing a unit between stacked layers, in ``[0, 1)``.
        native: Build the recurrence from ``torch.nn`` instead of ``fastseq.nn``. Parameter names
            and initial values are the same, so a ``state_dict`` loads either way.

    Shape:
        - Input: ``(B, T)``, integers from 0 to V - 1.
        - Output: ``(B, T, V)``, logits of the character after each.

    Raises:
        ValueError: If an argument is out of range, or tokens are not such a batch.

    Example:
        >>> import torch
        >>> from fastseq.models import CharRNN
        >>> model = CharRNN(vocab_size=65, hidden_size=32)
        >>> model(torch.randint(65, (8, 20))).shape
        torch.Size([8, 20, 65])
        >>> model.generate(torch.tensor([[1, 2, 3]]), length=10, top_k=5, seed=0).shape
        torch.Size([1, 13])
    """

    def __init__(
        self,
        vocab_size: int,
        cell: str = "lstm",
        embedding_size: int = 64,
        hidden_size: int = 256,
        num_layers: int = 2,
        dropout: float = 0.0,
        native: bool = False,
    ) -> None:
        super().__init__()
        check_cell(cell)
        check_sizes(
            vocab_size=vocab_size,
            embedding_size=embedding_size,
            hidden_size=hidden_size,
            num_layers=num_layers,
        )
        check_dropout(dropout)
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(vocab_size, embedding_size)
        self.rnn = recurrence(cell, embedding_size, hidden_size, num_layers, dropout, native)
        self.head = nn.Linear(hidden_size, vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of the character after each of ``tokens``."""
        return self.read(tokens)[0]

    def read(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Read on from a state: return logits ``(B, T, V)`` and the state after the last token.

        Args:
            tokens: ``(B, T)``.
            state: As returned by the call that read what came before; ``None`` at a beginning.
        """
        check_tokens(tokens, self.vocab_size)
        embedded = self.embedding(tokens)  # (B, T, E)
        hidden, state = self.rnn(embedded, state)  # (B, T, H)
        return self.head(hidden), state  # (B, T, V)

    @torch.no_grad()
    def generate(
        self,
        prompt: Tensor,
        length: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: int | torch.Generator | None = None,
        stop: int | None = None,
    ) -> Tensor:
        """Go on writing after a prompt.

        The prompt is read once; every further character costs one step, as the state is carried.
        Dropout is off meanwhile.

        Args:
            prompt: ``(B, T)``, at least one token.
            length: Tokens to write.
            temperature: Divides the logits: below 1 safer, above 1 bolder, 0 always the likeliest.
            top_k: Choose among this many likeliest only.
            seed: Of the choices: a number, or a generator on the model's device; ``None`` takes
                torch's own.
            stop: Token at which a sequence ends; the rest of its row repeats it, and writing ends
                when every sequence has.

        Returns:
            Prompt and what was written, ``(B, T + n)``; n is ``length``, or less after a stop.
        """
        if length < 0:
            raise ValueError(f"length is {length}, expected 0 or more tokens to write")
        if not (temperature >= 0.0 and math.isfinite(temperature)):
            raise ValueError(f"temperature is {temperature}, expected a number, 0 or more")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k is {top_k}, expected at least 1; pass None for all")
        if stop is not None and not 0 <= stop < self.vocab_size:
            raise ValueError(f"stop is {stop}, expected a token, 0 to {self.vocab_size - 1}")
        check_tokens(prompt, self.vocab_size, "prompt")
        generator = (
            torch.Generator(prompt.device).manual_seed(seed) if isinstance(seed, int) else seed
        )
        with evaluating(self):
            return self._write(prompt, length, temperature, top_k, generator, stop)

    def _write(
        self,
        prompt: Tensor,
        length: int,
        temperature: float,
        top_k: int | None,
        generator: torch.Generator | None,
        stop: int | None,
    ) -> Tensor:
        read, written = prompt, [prompt]
        state: State | None = None
        ended = torch.zeros(len(prompt), 1, dtype=torch.bool, device=prompt.device)  # (B, 1)
        for _ in range(length):
            logits, state = self.read(read, state)
            read = choose(logits[:, -1], temperature, top_k, generator)  # (B, 1)
            if stop is not None:
                read = read.masked_fill(ended, stop)
                ended = ended | (read == stop)
            written.append(read)
            if stop is not None and bool(ended.all()):
                break
        return torch.cat(written, dim=1)


def choose(
    logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator | None
) -> Tensor:
    """Draw a token from each row of logits ``(B, V)``, as ``CharRNN.generate`` does: ``(B, 1)``."""
    if temperature == 0.0:
        return logits.argmax(dim=1, keepdim=True)
    likeliest = min(top_k or logits.size(1), logits.size(1))
    logits, tokens = logits.topk(likeliest, dim=1)  # (B, k)
    # Shifted first: divided by a small temperature, large logits would overflow.
    scaled = (logits - logits[:, :1]) / temperature
    drawn = torch.multinomial(scaled.softmax(dim=1), 1, generator=generator)  # (B, 1)
    return tokens.gather(1, drawn)
