"""Sequences from a decoder: the likeliest token at every step, or a beam of beginnings."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fastseq.models.recurrences import State, map_state

# Reads one token of each row, (N, 1), from a state: log-probabilities (N, V) and the next state.
Step = Callable[[Tensor, State], tuple[Tensor, State]]


def greedy(step: Step, state: State, first: Tensor, end: int, max_length: int) -> list[Tensor]:
    """Write the likeliest token at every step.

    Args:
        step: The decoder.
        state: Where it begins.
        first: The token it reads first, ``(N, 1)``.
        end: Token that ends a sequence.
        max_length: Tokens to write at most, ``end`` among them.

    Returns:
        N sequences, without ``end``.
    """
    token, written = first, []
    ended = torch.zeros_like(first, dtype=torch.bool)  # (N, 1)
    for _ in range(max_length):
        scores, state = step(token, state)  # (N, V)
        token = scores.argmax(dim=1, keepdim=True).masked_fill(ended, end)  # (N, 1)
        written.append(token)
        ended = ended | (token == end)
        if bool(ended.all()):
            break
    return _until(torch.cat(written, dim=1), end)


def beam(
    step: Step,
    state: State,
    first: Tensor,
    end: int,
    max_length: int,
    beams: int,
    length_penalty: float = 0.0,
) -> list[Tensor]:
    """Keep the likeliest beginnings at every step, and return the likeliest sequence.

    Args:
        step: The decoder; its rows are ``beams`` beginnings of each sequence, next to each other.
        state: Where it begins, for B * ``beams`` rows.
        first: The token it reads first, ``(B * beams, 1)``.
        end: Token that ends a sequence.
        max_length: Tokens to write at most, ``end`` among them.
        beams: K, beginnings to keep.
        length_penalty: Log-probabilities are divided by the length to this power at last.

    Returns:
        B sequences, without ``end``.
    """
    batch, device = len(first) // beams, first.device
    token, written = first, torch.empty(batch, beams, 0, dtype=first.dtype, device=device)
    # All beginnings are the same at first: only one of them may count.
    total = torch.full((batch, beams), -math.inf, device=device)
    total[:, 0] = 0.0
    ended = torch.zeros(batch, beams, dtype=torch.bool, device=device)
    lengths = torch.zeros(batch, beams, device=device)
    offsets = beams * torch.arange(batch, device=device).unsqueeze(1)  # (B, 1)
    for _ in range(max_length):
        scores, state = step(token, state)  # (B * K, V)
        vocab = scores.size(1)
        scores = scores.view(batch, beams, vocab)
        # What has ended goes on at no cost, in one way only.
        idle = torch.full((vocab,), -math.inf, device=device)
        idle[end] = 0.0
        scores = torch.where(ended.unsqueeze(2), idle, scores)
        total, best = (total.unsqueeze(2) + scores).flatten(1).topk(beams, dim=1)  # (B, K)
        parent, chosen = best // vocab, best % vocab  # (B, K)
        rows = (offsets + parent).flatten()  # (B * K,)
        state = map_state(state, _taking(rows))
        ended, lengths = ended.gather(1, parent), lengths.gather(1, parent)
        lengths = lengths + (~ended).float()
        written = written.flatten(0, 1)[rows].view(batch, beams, -1)  # (B, K, t)
        written = torch.cat([written, chosen.unsqueeze(2)], dim=2)
        ended = ended | (chosen == end)
        token = chosen.view(-1, 1)
        if bool(ended.all()):
            break
    winner = (total / lengths**length_penalty).argmax(dim=1)  # (B,)
    return _until(written[torch.arange(batch, device=device), winner], end)


def _taking(rows: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda part: part.index_select(1, rows)


def _until(written: Tensor, end: int) -> list[Tensor]:
    lengths = (written != end).int().cummin(dim=1).values.sum(dim=1)  # (N,)
    return [row[: int(length)] for row, length in zip(written, lengths, strict=True)]
