"""The parts of CUDA's layer that are Python's, on the CPU."""

import pytest
import torch

from fastseq.ops.layer_cuda import _previous_rows
from fastseq.reference.recurrence import previous_states

RAGGED = [
    [3],
    [1, 1, 1],
    [5, 5, 3, 3, 3, 1],
    [4, 3, 2, 1],
    [6, 6, 6],
    [2] * 100 + [1] * 100,
]


@pytest.mark.parametrize("sizes", RAGGED, ids=lambda sizes: str(sizes[:6]))
@pytest.mark.parametrize("reverse", [False, True])
def test_states_before_the_rows_of_a_packed_batch(sizes: list[int], reverse: bool) -> None:
    """The reference's, from a few pieces for each length, however many steps there are."""
    y, h0 = torch.randn(sum(sizes), 2), torch.randn(sizes[0], 2)
    pieces = _previous_rows(y, h0, sizes, reverse)
    batch_sizes = torch.tensor(sizes)
    expected = previous_states(y, h0, batch_sizes, reverse)
    assert torch.equal(torch.cat(pieces), expected)
    assert len(pieces) <= 2 * len(set(sizes)) + 1
