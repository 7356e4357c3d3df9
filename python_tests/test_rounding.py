"""Where the 16-bit types are rounded, and how: to the nearest, ties to even, and not in between."""

import pytest
import torch
from recurrence_cases import numbers
from torch import Tensor
from torch.nn.functional import dropout

import fastseq
from fastseq import ops

each_dtype = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)


@each_dtype
@pytest.mark.parametrize("outputs", [1, 16])
def test_ties_go_to_even(dtype: torch.dtype, outputs: int) -> None:
    """Sums of a number and half of its last place, and of a little more and less."""
    half_of_one = torch.finfo(dtype).eps / 2
    a = (numbers(400, seed=3).abs() + 0.5).to(dtype) * torch.tensor([1, -1] * 200)
    half = torch.ldexp(torch.full((400,), half_of_one), torch.frexp(a.float()).exponent - 1)
    b = (half * torch.tensor([1.0, 1.0, 1.25, 0.75]).repeat(100)).to(dtype) * a.sign()
    exact = a.float() + b.float()
    expected = exact.to(dtype)
    assert (expected == a).float().mean() > 0.3  # rounded down
    assert (expected != a).float().mean() > 0.3
    y = ops.linear(torch.stack([a, b], 1).to(dtype), torch.ones(outputs, 2, dtype=dtype))
    assert torch.equal(y, expected[:, None].expand(-1, outputs))


@each_dtype
@pytest.mark.parametrize("steps", [1, 3])
def test_a_dropped_state_is_rounded(dtype: torch.dtype, steps: int) -> None:
    """What W_hh reads is a tensor of the type: forward, and in the gradient of W_hh.

    By a factor of 1/0.6: products with 0 and 2 are exact. Differences of neighbours show it.
    """
    rows, hidden = 6, 40
    module = fastseq.RNN(
        1, hidden, nonlinearity="relu", bias=False, recurrent_dropout=0.4, dtype=dtype
    )
    difference = torch.eye(hidden) - torch.eye(hidden).roll(1, 1)
    with torch.no_grad():
        module.weight_ih_l0.zero_()
        module.weight_hh_l0.copy_(difference)
    h = (1 + 0.1 * numbers(rows, hidden)).to(dtype)
    torch.manual_seed(4)
    y = module(torch.zeros(steps, rows, 1, dtype=dtype), h[None])[0]
    torch.manual_seed(4)
    mask = dropout(torch.ones(rows, hidden, dtype=dtype), 0.4)
    assert mask.unique().numel() == 2
    gradient = torch.zeros(hidden, hidden)
    for t in range(steps):
        read = h * mask
        assert read.dtype == dtype
        h = (read.float() @ difference.t()).relu().to(dtype)
        assert torch.equal(y[t], h)
        if t == steps - 1:
            gradient += (h > 0).float().t() @ read.float()
    if steps == 1:  # of the last step alone
        y[-1].sum().backward()
        assert torch.equal(module.weight_hh_l0.grad, gradient.to(dtype))


def summing_lstm(dtype: torch.dtype, step: float) -> fastseq.LSTM:
    """Adds ``step`` to c at every step: every gate is open."""
    lstm = fastseq.LSTM(1, 1, dtype=dtype, return_cell_states=True)
    with torch.no_grad():
        for p in lstm.parameters():
            p.zero_()
        lstm.bias_ih_l0.copy_(torch.tensor([20.0, 20.0, step, 20.0]))
    return lstm


@each_dtype
def test_cell_states_and_their_gradients_are_not(dtype: torch.dtype) -> None:
    """256 additions of an eighth of c's last place: lost one by one, an eighth of c in all."""
    steps, rows = 256, 3
    small = torch.finfo(dtype).eps / 8
    lstm = summing_lstm(dtype, small)
    one = torch.ones(1, rows, 1, dtype=dtype).requires_grad_()
    zero = torch.zeros_like(one)
    _, (_, c_n), c = lstm(torch.zeros(steps, rows, 1, dtype=dtype), (zero, one))
    close = {"rtol": 0.0, "atol": 4 * torch.finfo(dtype).eps}
    expected = torch.full((1, rows, 1), 1 + steps * small)
    torch.testing.assert_close(c_n.float(), expected, **close)
    grad: Tensor = torch.full_like(c, small)
    grad[-1] = 1
    (grad_c,) = torch.autograd.grad(c, one, grad)
    torch.testing.assert_close(grad_c.float(), expected, **close)
