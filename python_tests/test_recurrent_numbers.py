"""The functions that cells are made of, number by number, and the product beside them."""

import pytest
import torch
from recurrence_cases import call, numbers, twins
from torch import Tensor

import fastseq
from fastseq import ops

each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def last_places(found: Tensor, exact: Tensor) -> Tensor:
    """How far from the exact values, in units of their last place in the dtype."""
    near = exact.to(found.dtype).abs()
    place = near - torch.nextafter(near, torch.zeros_like(near))
    return (found.double() - exact).abs() / place.double()


@each_dtype
def test_gates_are_exact(dtype: torch.dtype) -> None:
    """tanh by an RNN, sigmoid by an LSTM whose output gate alone moves."""
    x = torch.cat([torch.linspace(-20, 20, 4001), torch.logspace(-9, 1, 999)]).to(dtype)
    rows = x[None, :, None]
    rnn = fastseq.RNN(1, 1, bias=False, dtype=dtype)
    lstm = fastseq.LSTM(1, 1, dtype=dtype)
    with torch.no_grad():
        for p in (*rnn.parameters(), *lstm.parameters()):
            p.zero_()
        rnn.weight_ih_l0.fill_(1)
        lstm.weight_ih_l0[3] = 1
        lstm.bias_ih_l0[:2] = torch.tensor([-200.0, 200.0])  # c stays as it is, at tanh(c) = 1
        c = torch.full((1, len(x), 1), 30.0, dtype=dtype)
        tanh, sigmoid = rnn(rows)[0], lstm(rows, (torch.zeros_like(c), c))[0]
    exact = x.double()
    assert last_places(tanh.flatten(), exact.tanh()).max() <= 3
    assert last_places(sigmoid.flatten(), exact.sigmoid()).max() <= 3


@each_dtype
def test_relu_has_no_slope_at_zero(dtype: torch.dtype) -> None:
    """Units whose sum is exactly zero, beside others."""
    ours, native = twins("RNN", 3, 9, nonlinearity="relu", dtype=dtype)
    for module in (ours, native):
        with torch.no_grad():
            module.bias_ih_l0.zero_()
            module.bias_hh_l0.zero_()
    x = numbers(4, 6, 3, dtype=dtype)
    x[:, ::2] = 0
    found, expected = call(ours, x), call(native, x)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5)


@each_dtype
@pytest.mark.parametrize("turned", [False, True])
def test_linear_by_sizes(dtype: torch.dtype, turned: bool) -> None:
    """Around the sizes of vectors, tiles and blocks of 48 rows."""
    for rows, inner, outputs in [(1, 1, 1), (48, 7, 33), (49, 17, 16), (101, 515, 5), (7, 3, 130)]:
        x = numbers(rows, inner, dtype=dtype)
        weight = numbers(outputs, inner, seed=2, dtype=dtype)
        y = ops.linear(x, weight.t().contiguous() if turned else weight, turned)
        exact = x.double() @ weight.double().t()
        bound = 4 * torch.finfo(dtype).eps * (x.double().abs() @ weight.double().abs().t())
        assert ((y.double() - exact).abs() <= bound).all(), (rows, inner, outputs)
