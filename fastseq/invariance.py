"""Batch invariance: a row's result that does not depend on the rows beside it, to the last bit."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Local(threading.local):
    on = False


_local = _Local()


def on() -> bool:
    """Whether this thread is inside ``batch_invariant``."""
    return _local.on


@contextmanager
def batch_invariant() -> Iterator[None]:
    """Make outputs, final states and input gradients of a row bitwise independent of its batch.

    Layers are so by themselves: every sum is taken in the order of its terms, whatever the tile,
    the batch or the number of threads. Inside this context single cells and ``step`` give up their
    quicker way for few rows, which adds in another order. Gradients of weights are sums over the
    batch and depend on it by their nature. For this thread and the CPU; on CUDA the input product
    is a BLAS library's and this promises nothing.

    Example:
        >>> with fastseq.batch_invariant():
        ...     alone = lstm(x[:, :1])[0]
        ...     assert torch.equal(alone, lstm(x)[0][:, :1])
    """
    before, _local.on = _local.on, True
    try:
        yield
    finally:
        _local.on = before
