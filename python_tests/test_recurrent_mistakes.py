"""Mistakes with what torch.nn has not: each is a sentence, whatever value it has."""

import pytest
import torch
from recurrence_cases import KINDS, numbers

import fastseq


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.bfloat16, torch.complex64])
def test_lengths_are_numbers(kind: str, dtype: torch.dtype) -> None:
    """A mask in the place of lengths would be lengths of 0 and 1."""
    module = getattr(fastseq, kind)(3, 7)
    with pytest.raises(TypeError, match=f"integers, got {dtype}"):
        module(numbers(6, 5, 3), lengths=torch.ones(5).to(dtype))
