"""Regularisers by the numbers: how often, by which factor, and from which values they begin."""

from typing import Any

import pytest
import torch
from recurrence_cases import KINDS, numbers
from torch import Tensor
from torch.nn.functional import dropout

import fastseq

each_kind = pytest.mark.parametrize("kind", KINDS)


def share_kept(y: Tensor) -> float:
    """The share of units that are as they were a step before."""
    return (y[1:] == y[:-1]).double().mean().item()


@each_kind
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_zoneout_keeps_a_share_of_p(kind: str, p: float) -> None:
    """Of 1.3 million units, so that a hundredth too much is twenty deviations."""
    torch.manual_seed(0)
    steps, rows, hidden = 401, 100, 32
    module = getattr(fastseq, kind)(3, hidden, zoneout=p)
    with torch.no_grad():
        y = module(numbers(steps, rows, 3))[0]
    assert abs(share_kept(y) - p) < 0.0025
    if kind == "LSTM":
        module = fastseq.LSTM(3, hidden, zoneout=(0.0, p), return_cell_states=True)
        with torch.no_grad():
            assert abs(share_kept(module(numbers(steps, rows, 3))[2]) - p) < 0.0025


@each_kind
@pytest.mark.parametrize("p", [0.25, 0.6])
def test_weight_dropout_scales_what_is_left(kind: str, p: float) -> None:
    """Against torch.nn's module with the weight dropped by torch, from the same seed."""
    ours = getattr(fastseq, kind)(3, 7, weight_dropout=p, dtype=torch.float64)
    native = getattr(torch.nn, kind)(3, 7, dtype=torch.float64)
    native.load_state_dict(ours.state_dict())
    x = numbers(6, 5, 3, dtype=torch.float64)
    torch.manual_seed(4)
    y = ours(x)[0]
    torch.manual_seed(4)
    dropped = dropout(native.weight_hh_l0, p)
    expected = torch.func.functional_call(native, {"weight_hh_l0": dropped}, (x,))[0]
    torch.testing.assert_close(y, expected)
    (found,) = torch.autograd.grad(y.sum(), ours.weight_hh_l0)
    (wanted,) = torch.autograd.grad(expected.sum(), native.weight_hh_l0)
    torch.testing.assert_close(found, wanted)


@each_kind
def test_layer_norm_begins_as_the_norm_alone(kind: str) -> None:
    """Gains are one and biases zero, drawn again or not; its results are the same in evaluation."""
    module = getattr(fastseq, kind)(3, 7, num_layers=2, bidirectional=True, layer_norm=True)
    norms = {n: p for n, p in module.named_parameters() if n.startswith("norm")}
    assert len(norms) == 4 * (4 if kind == "LSTM" else 2)
    for again in (False, True):
        if again:
            with torch.no_grad():
                for p in norms.values():
                    p.fill_(7)
            module.reset_parameters()
        for name, p in norms.items():
            assert (p == (0 if "bias" in name else 1)).all(), name
    x = numbers(6, 5, 3)
    y = module(x)[0]
    assert torch.equal(y, module.eval()(x)[0])
    plain: Any = getattr(fastseq, kind)(3, 7, num_layers=2, bidirectional=True)
    plain.load_state_dict(module.state_dict(), strict=False)
    assert not torch.allclose(y, plain(x)[0])
    y.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_cell_states_of_both_directions() -> None:
    """The last state of each direction is its c_n, and where it began is the other end."""
    lstm = fastseq.LSTM(3, 7, bidirectional=True, return_cell_states=True)
    _, (_, c_n), cells = lstm(numbers(6, 5, 3))
    assert cells.shape == (6, 5, 14)
    torch.testing.assert_close(cells[-1, :, :7], c_n[0])
    torch.testing.assert_close(cells[0, :, 7:], c_n[1])
