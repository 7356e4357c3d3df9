"""Tensors of more than 2^31 elements: indices must not wrap."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from fastseq import ops

STEPS, BATCH, HIDDEN = 4160, 32768, 16  # 2.18e9 elements; 4.4 GB in bfloat16


def available() -> float:
    """Bytes that can be had: files that the system keeps in memory give way, and are no reason."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        sizes = dict(line.split(":") for line in meminfo.read_text().splitlines())
        return 1024 * float(sizes["MemAvailable"].split()[0])
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES"))


MEMORY = available()


@pytest.mark.skipif(MEMORY < 14e9, reason="needs 14 GB of free memory")
def test_more_than_two_to_the_31_elements() -> None:
    """The last steps of a huge call equal a small call that starts where they start."""
    assert STEPS * BATCH * HIDDEN > 2**31
    torch.manual_seed(0)
    pre = torch.zeros(STEPS, BATCH, HIDDEN, dtype=torch.bfloat16)  # pages that nobody has written
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


@pytest.mark.skipif(MEMORY < 14e9, reason="needs 14 GB of free memory")
def test_images_of_more_than_two_to_the_31_elements() -> None:
    """The last rows of a huge image equal those rows alone."""
    height, width = 32_767, 16_400
    x = torch.zeros(1, 4, height, width, dtype=torch.bfloat16)
    assert x.numel() > 2**31
    torch.manual_seed(0)
    x[:, :, -3:].normal_()
    tail = x[:, :, -3:].clone()
    norm = (5, 1.0, 0.75, 1.0)

    assert torch.equal(
        ops.local_response_norm(x, *norm, False)[:, :, -3:],
        ops.local_response_norm(tail, *norm, False),
    )
    window = ops.Window((3, 3), (2, 2), (0, 0), (1, 1))
    pooled, alone = (ops.max_pool2d(t, window, False, True) for t in (x, tail))
    assert torch.equal(pooled.y[:, :, -1:], alone.y)
    assert torch.equal(pooled.offsets[:, :, -1:], alone.offsets)
    both = [ops.relu_lrn_max_pool2d(t, *norm, window, False, False).y for t in (x, tail)]
    assert torch.equal(both[0][:, :, -1:], both[1])
    del x, both
    grad = torch.zeros_like(pooled.y)
    grad[:, :, -1:].normal_()
    whole = ops.max_pool2d_backward(grad, pooled.offsets, height, width, False, window)
    part = ops.max_pool2d_backward(grad[:, :, -1:], alone.offsets, 3, width, False, window)
    assert torch.equal(whole[:, :, -3:], part)
    assert not whole[:, :, :-3].any()
