"""What the rounds of a benchmark say of a median: an interval by order statistics.

A round times every provider once, so the ratio of two within a round is free of what the machine
does from round to round. Of n such numbers the k-th smallest and the k-th largest enclose the true
median with probability 1 - 2 P(X < k), X binomial (n, 1/2), whatever their distribution is.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from statistics import median

CONFIDENCE = 0.95
ROUNDS = 11  # at least; with fewer than 6 no interval has that confidence


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The median, and the ends of its 95 % interval; all there is, of fewer than 6 values.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no rounds were measured")
    ordered, count = sorted(values), len(values)
    below, k = 1 / 2**count, 0  # P(X <= k)
    while 1 - 2 * below >= CONFIDENCE and k + 1 < (count + 1) // 2:
        k += 1
        below += comb(count, k) / 2**count
    if 1 - 2 * below < CONFIDENCE and k > 0:
        k -= 1
    return median(ordered), ordered[k], ordered[count - 1 - k]


def ratio_interval(values: Sequence[float], others: Sequence[float]) -> tuple[float, float, float]:
    """The median ratio of two providers over the rounds that both had, and its interval."""
    return median_interval([a / b for a, b in zip(values, others, strict=True)])
