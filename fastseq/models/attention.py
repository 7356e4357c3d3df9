"""Attention: a weighted look back at a sequence."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """Luong's attention with the "general" score.

    M.-T. Luong, H. Pham and C. D. Manning, "Effective Approaches to Attention-based Neural
    Machine Translation" (2015), equations 5 to 8: weights are the softmax over s of
    ``h_t W_a m_s``, and the output is ``tanh(W_c [context; h_t])``.

    Args:
        hidden_size: H, features of queries and of memory.

    Shape:
        - queries: ``(B, T, H)``, the decoder's hidden states h_t.
        - memory: ``(B, S, H)``, the encoder's hidden states m_s.
        - padded: ``(B, S)``, True where the memory is padding; each row has a False.
        - Output: ``(B, T, H)``, and the weights ``(B, T, S)``, whose rows sum to 1.

    Example:
        >>> import torch
        >>> from fastseq.models.attention import Attention
        >>> attention = Attention(8)
        >>> padded = torch.tensor([[False, False, True]])
        >>> output, weights = attention(torch.randn(1, 2, 8), torch.randn(1, 3, 8), padded)
        >>> weights[0, :, 2].tolist()
        [0.0, 0.0]
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.score = nn.Linear(hidden_size, hidden_size, bias=False)
        self.combine = nn.Linear(2 * hidden_size, hidden_size, bias=False)

    def forward(self, queries: Tensor, memory: Tensor, padded: Tensor) -> tuple[Tensor, Tensor]:
        """Return what each query saw, and where it looked."""
        scores = self.score(queries) @ memory.transpose(1, 2)  # (B, T, S)
        weights = scores.masked_fill(padded.unsqueeze(1), -math.inf).softmax(dim=2)
        context = weights @ memory  # (B, T, H)
        return torch.tanh(self.combine(torch.cat([context, queries], dim=2))), weights
