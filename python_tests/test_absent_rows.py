"""Rows that end early: nothing is read where they are absent, and zeros stand there."""

from typing import Any

import pytest
import torch
from recurrence_cases import KINDS, leaves, numbers, states
from torch import Tensor

import fastseq

T, B, I, H = 6, 5, 3, 7  # noqa: E741
LENGTHS = torch.tensor([3, 6, 0, 5, 1])
ABSENT = torch.arange(T)[:, None] >= LENGTHS  # (T, B)
FEATURES: list[dict[str, Any]] = [{}, {"layer_norm": True}, {"zoneout": 0.3}]
each_kind = pytest.mark.parametrize("kind", KINDS)
each_feature = pytest.mark.parametrize("features", FEATURES, ids=lambda f: "-".join(f) or "plain")


def spoil_memory() -> None:
    """Leave NaN in small blocks of every size, for the next tensors to be made of."""
    for size in range(16, 2048, 16):
        blocks = [torch.full((size,), torch.nan) for _ in range(9)]
        del blocks


@each_kind
@each_feature
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("train", [False, True])
def test_zeros_where_rows_are_absent(
    kind: str, features: dict[str, Any], bidirectional: bool, train: bool
) -> None:
    """In outputs and in the gradient of the input, whatever their memory held."""
    torch.manual_seed(0)  # of zoneout, which may keep all units of a row at a step
    module = getattr(fastseq, kind)(I, H, bidirectional=bidirectional, **features)
    x = numbers(T, B, I).requires_grad_(train)
    with torch.set_grad_enabled(train):
        spoil_memory()
        y, h_n = module(x, lengths=LENGTHS)
    assert y.isfinite().all()
    assert not y[ABSENT].any()
    assert all(t.isfinite().all() for t in leaves(h_n))
    if train:
        spoil_memory()
        y.sum().backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()
        assert not x.grad[ABSENT].any()
        assert x.grad[~ABSENT].all()


@each_kind
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("train", [False, True])
def test_a_row_of_no_steps_is_not_reset(kind: str, bidirectional: bool, train: bool) -> None:
    """A mark stands before a step; where there is none, the first state is the last."""
    module = getattr(fastseq, kind)(I, H, bidirectional=bidirectional)
    marks = torch.ones(T, B, dtype=torch.bool)
    hx, by = (
        [s.requires_grad_(train) for s in leaves(states(module, B, seed=seed))] for seed in (2, 5)
    )

    def wrapped(parts: list[Tensor]) -> Any:
        return tuple(parts) if kind == "LSTM" else parts[0]

    with torch.set_grad_enabled(train):
        _, h_n = module(
            numbers(T, B, I), wrapped(hx), lengths=LENGTHS, reset=marks, reset_state=wrapped(by)
        )
    none = LENGTHS == 0
    for last, first in zip(leaves(h_n), hx, strict=True):
        assert torch.equal(last[:, none], first[:, none])
    if train:
        finals = leaves(h_n)
        grads = [numbers(*f.shape, seed=30 + i) for i, f in enumerate(finals)]
        found = torch.autograd.grad(finals, [*hx, *by], grads)
        for i, grad in enumerate(grads):
            assert torch.equal(found[i][:, none], grad[:, none])
            assert not found[len(hx) + i][:, none].any()
