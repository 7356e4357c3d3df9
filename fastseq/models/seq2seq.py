"""Seq2Seq: one recurrent network reads a sequence, another writes one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastseq.models.attention import Attention
from fastseq.models.decoding import Step, beam, greedy
from fastseq.models.recurrences import (
    State,
    check_cell,
    check_tokens,
    map_state,
    recurrence,
    run_ragged,
)
from fastseq.models.shared import check_dropout, check_sizes, evaluating


class Seq2Seq(nn.Module):
    """Encoder and decoder, with attention where asked for.

    The encoder-decoder of SRM 18AIC301J unit 4 and of I. Sutskever, O. Vinyals and Q. V. Le,
    "Sequence to Sequence Learning with Neural Networks" (2014): the decoder starts from the
    encoder's last state. Attention is Luong's "general" (see `Attention`); it lies above the
    decoder's layers, so that teacher forcing runs all steps in one call of the fused layer.

    Args:
        src_vocab: Tokens of the sequences read; number ``padding`` is none of them.
        tgt_vocab: V, tokens of the sequences written.
        cell: The recurrence of both, ``"lstm"`` or ``"gru"``.
        embedding_size: E, features of an embedded token.
        hidden_size: H, units of each recurrent layer.
        num_layers: Recurrent layers of each side, stacked.
        attention: Let every step of the decoder look at all steps of the encoder.
        dropout: Probability of zeroing an embedding, or a unit between stacked layers.
        padding: Token that fills the short sequences of a batch, at their ends.
        native: Build the recurrences from ``torch.nn`` instead of ``fastseq.nn``. Parameter names
            and initial values are the same, so a ``state_dict`` loads either way.

    Shape:
        - src: ``(B, S)``, padded at the end; no sequence may be padding alone.
        - tgt: ``(B, T)``, what the decoder reads: a beginning token, then the target so far.
        - Output: ``(B, T, V)``, logits of the token after each of ``tgt``.

    Raises:
        ValueError: If an argument is out of range, or the batch is not as above.

    Example:
        >>> import torch
        >>> from fastseq.models import Seq2Seq
        >>> model = Seq2Seq(src_vocab=30, tgt_vocab=13, hidden_size=32, attention=True)
        >>> src, tgt = torch.randint(1, 30, (4, 9)), torch.randint(1, 13, (4, 6))
        >>> model(src, tgt).shape
        torch.Size([4, 6, 13])
        >>> len(model.beam_decode(src, begin=1, end=2, max_length=5, beams=3))
        4
    """

    def __init__(
        self,
        src_vocab: int,
        tgt_vocab: int,
        cell: str = "lstm",
        embedding_size: int = 64,
        hidden_size: int = 128,
        num_layers: int = 1,
        attention: bool = False,
        dropout: float = 0.0,
        padding: int = 0,
        native: bool = False,
    ) -> None:
        super().__init__()
        check_cell(cell, ("lstm", "gru"))
        check_sizes(
            src_vocab=src_vocab,
            tgt_vocab=tgt_vocab,
            embedding_size=embedding_size,
            hidden_size=hidden_size,
            num_layers=num_layers,
        )
        check_dropout(dropout)
        if not 0 <= padding < min(src_vocab, tgt_vocab):
            raise ValueError(
                f"padding is {padding}, expected a token of both vocabularies, 0 to "
                f"{min(src_vocab, tgt_vocab) - 1}"
            )
        self.src_vocab, self.tgt_vocab, self.padding = src_vocab, tgt_vocab, padding
        self.src_embedding = nn.Embedding(src_vocab, embedding_size, padding_idx=padding)
        self.tgt_embedding = nn.Embedding(tgt_vocab, embedding_size, padding_idx=padding)
        sizes = (cell, embedding_size, hidden_size, num_layers, dropout, native)
        self.encoder = recurrence(*sizes)
        self.decoder = recurrence(*sizes)
        self.dropout = nn.Dropout(dropout)
        self.attention = Attention(hidden_size) if attention else None
        self.head = nn.Linear(hidden_size, tgt_vocab)

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        """Return logits ``(B, T, V)`` by teacher forcing: the decoder reads the true target."""
        return self.attend(src, tgt)[0]

    def attend(self, src: Tensor, tgt: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the logits ``(B, T, V)`` and the attention weights ``(B, T, S)``, if any."""
        memory, state = self.encode(src)
        logits, _, weights = self.decode(tgt, state, memory, src == self.padding)
        return logits, weights

    def encode(self, src: Tensor) -> tuple[Tensor, State]:
        """Read sequences: return the outputs ``(B, S, H)`` and the state after each one's end."""
        check_tokens(src, self.src_vocab, "src")
        real = src != self.padding  # (B, S)
        lengths = real.sum(dim=1)  # (B,)
        # As many tokens before the first padding as there are in all: none follows it.
        if bool((real.int().cummin(dim=1).values.sum(dim=1) != lengths).any()):
            raise ValueError(f"src has padding ({self.padding}) before a token; pad at the end")
        if bool((lengths == 0).any()):
            raise ValueError(f"src has a sequence of padding ({self.padding}) alone; leave it out")
        embedded = self.dropout(self.src_embedding(src))  # (B, S, E)
        return run_ragged(self.encoder, embedded, lengths)  # (B, S, H)

    def decode(
        self, tgt: Tensor, state: State, memory: Tensor, padded: Tensor
    ) -> tuple[Tensor, State, Tensor | None]:
        """Write on from a state.

        Args:
            tgt: Tokens that the decoder reads, ``(B, T)``.
            state: The encoder's, or that of the call before.
            memory: The encoder's outputs, ``(B, S, H)``.
            padded: True where the memory is padding, ``(B, S)``.

        Returns:
            Logits ``(B, T, V)``, the state after the last token, and the attention weights
            ``(B, T, S)`` or ``None``.
        """
        check_tokens(tgt, self.tgt_vocab, "tgt")
        embedded = self.dropout(self.tgt_embedding(tgt))  # (B, T, E)
        outputs, state = self.decoder(embedded, state)  # (B, T, H)
        weights = None
        if self.attention is not None:
            outputs, weights = self.attention(outputs, memory, padded)  # (B, T, H)
        return self.head(outputs), state, weights  # (B, T, V)

    @torch.no_grad()
    def greedy_decode(self, src: Tensor, begin: int, end: int, max_length: int) -> list[Tensor]:
        """Write the likeliest token at every step.

        Args:
            src: ``(B, S)``.
            begin: Token that the decoder reads first.
            end: Token that ends a sequence.
            max_length: Tokens to write at most, ``end`` among them.

        Returns:
            What was written for each of ``src``, without ``begin`` and ``end``.
        """
        with evaluating(self):
            memory, state = self._start(src, begin, end, max_length)
            first = src.new_full((len(src), 1), begin, dtype=torch.long)
            step = self._step(memory, src == self.padding)
            return greedy(step, state, first, end, max_length)

    @torch.no_grad()
    def beam_decode(
        self,
        src: Tensor,
        begin: int,
        end: int,
        max_length: int,
        beams: int = 4,
        length_penalty: float = 0.0,
    ) -> list[Tensor]:
        """Keep several beginnings at every step, and return the likeliest whole sequence.

        Args:
            src: ``(B, S)``.
            begin: Token that the decoder reads first.
            end: Token that ends a sequence.
            max_length: Tokens to write at most, ``end`` among them.
            beams: Beginnings to keep.
            length_penalty: Log-probabilities are divided by the length to this power before
                sequences are compared; 0 compares probabilities as they are.

        Returns:
            What was written for each of ``src``, without ``begin`` and ``end``.
        """
        check_sizes(beams=beams)
        with evaluating(self):
            memory, state = self._start(src, begin, end, max_length)
            # Each sequence's beginnings lie next to each other.
            memory, padded = (
                part.repeat_interleave(beams, dim=0) for part in (memory, src == self.padding)
            )
            state = map_state(state, lambda part: part.repeat_interleave(beams, dim=1))
            first = src.new_full((len(memory), 1), begin, dtype=torch.long)
            step = self._step(memory, padded)
            return beam(step, state, first, end, max_length, beams, length_penalty)

    def _start(self, src: Tensor, begin: int, end: int, length: int) -> tuple[Tensor, State]:
        check_sizes(max_length=length)
        for name, token in (("begin", begin), ("end", end)):
            if not 0 <= token < self.tgt_vocab:
                raise ValueError(f"{name} is {token}, expected a token, 0 to {self.tgt_vocab - 1}")
        return self.encode(src)

    def _step(self, memory: Tensor, padded: Tensor) -> Step:
        def step(token: Tensor, state: State) -> tuple[Tensor, State]:
            logits, state, _ = self.decode(token, state, memory, padded)  # (N, 1, V)
            return logits[:, 0].log_softmax(dim=1), state

        return step
