"""Tensors of more than 2^31 elements: indices must not wrap."""

from __future__ import annotations

import os

import pytest
import torch

from fastseq import ops

STEPS, BATCH, HIDDEN = 1040, 32768, 64  # 2.18e9 elements; 4.4 GB in bfloat16
MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


@pytest.mark.skipif(MEMORY < 14e9, reason="needs 14 GB of free memory")
def test_more_than_two_to_the_31_elements() -> None:
    """The last steps of a huge call equal a small call that starts where they start."""
    assert STEPS * BATCH * HIDDEN > 2**31
    torch.manual_seed(0)
    pre = torch.full((STEPS, BATCH, HIDDEN), 0.25, dtype=torch.bfloat16)
    pre[-4:].normal_()
    weight = (torch.randn(HIDDEN, HIDDEN) / 16).bfloat16()
    h0 = torch.zeros(BATCH, HIDDEN, dtype=torch.bfloat16)

    def run(rows: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        return ops.recurrence(
            rows, start, None, weight, None, None, None, ops.Cell.RNN_TANH, False, False
        ).y

    y = run(pre, h0)
    tail = run(pre[-4:], y[-5])
    assert torch.equal(y[-4:], tail)
    assert not torch.equal(y[-1], y[-2])
