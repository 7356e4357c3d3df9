"""SequenceTagger: a BiLSTM that gives every token of a sentence a tag."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastseq.models.recurrences import check_lengths, check_tokens, recurrence, run_ragged
from fastseq.models.shared import check_dropout, check_sizes, evaluating


class SequenceTagger(nn.Module):
    """Tag every token of a sentence, for instance with the kind of name that it is part of.

    The aligned many-to-many network of SRM 18AIC301J unit 4 ("LSTM for named-entity
    recognition"), in the two directions of Z. Huang, W. Xu and K. Yu, "Bidirectional LSTM-CRF
    Models for Sequence Tagging" (2015), without their CRF: the word after a name tells as much as
    the word before.

    Args:
        vocab_size: Tokens known; number 0 is the padding.
        num_tags: Logits for each token.
        embedding_size: E, features of an embedded token.
        hidden_size: H, units of each direction of each layer.
        num_layers: Bidirectional layers, stacked.
        dropout: Probability of zeroing an embedding, a unit between layers, and a unit below the
            last layer, in ``[0, 1)``.
        native: Build the LSTM from ``torch.nn`` instead of ``fastseq.nn``. Parameter names and
            initial values are the same, so a ``state_dict`` loads either way.

    Shape:
        - tokens: ``(B, T)``, integers from 0 to ``vocab_size - 1``.
        - lengths: ``(B,)``, 1 to T, or ``None`` where every sentence has T tokens.
        - Output: ``(B, T, num_tags)``. What lies beyond a length changes no logits before it.

    Raises:
        ValueError: If an argument is out of range, or the batch is not as above.

    Example:
        >>> import torch
        >>> from fastseq.models import SequenceTagger
        >>> model = SequenceTagger(vocab_size=100, num_tags=9, hidden_size=32)
        >>> model(torch.randint(1, 100, (4, 12)), torch.tensor([12, 3, 7, 1])).shape
        torch.Size([4, 12, 9])
    """

    def __init__(
        self,
        vocab_size: int,
        num_tags: int,
        embedding_size: int = 64,
        hidden_size: int = 64,
        num_layers: int = 1,
        dropout: float = 0.0,
        native: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(
            vocab_size=vocab_size,
            num_tags=num_tags,
            embedding_size=embedding_size,
            hidden_size=hidden_size,
            num_layers=num_layers,
        )
        check_dropout(dropout)
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(vocab_size, embedding_size, padding_idx=0)
        self.rnn = recurrence(
            "lstm", embedding_size, hidden_size, num_layers, dropout, native, bidirectional=True
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * hidden_size, num_tags)

    def forward(self, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the logits of each token's tag."""
        check_tokens(tokens, self.vocab_size)
        embedded = self.dropout(self.embedding(tokens))  # (B, T, E)
        if lengths is None:
            hidden, _ = self.rnn(embedded)  # (B, T, 2 H)
        else:
            check_lengths(lengths, tokens)
            hidden, _ = run_ragged(self.rnn, embedded, lengths)
        logits: Tensor = self.head(self.dropout(hidden))  # (B, T, num_tags)
        return logits

    @torch.no_grad()
    def tag(self, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the likeliest tag of each token, ``(B, T)``; dropout is off meanwhile."""
        with evaluating(self):
            logits: Tensor = self(tokens, lengths)
            return logits.argmax(dim=2)
