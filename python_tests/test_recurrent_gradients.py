"""Derivatives: first to third, against finite differences; in-place changes; repeatability."""

from typing import Any

import pytest
import torch
from recurrence_cases import (
    CELLS,
    KINDS,
    assert_equal,
    call,
    leaves,
    numbers,
    packed,
    states,
    twins,
)
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

import fastseq

pytestmark = pytest.mark.usefixtures("one_thread")
MODULES: dict[str, tuple[str, dict[str, Any]]] = {
    "LSTM": ("LSTM", {}),
    "LSTM projected": ("LSTM", {"proj_size": 2}),
    "LSTM 2 layers, both directions": ("LSTM", {"num_layers": 2, "bidirectional": True}),
    "GRU": ("GRU", {}),
    "GRU no bias": ("GRU", {"bias": False}),
    "GRU 2 layers, both directions": ("GRU", {"num_layers": 2, "bidirectional": True}),
    "RNN tanh": ("RNN", {}),
    "RNN relu": ("RNN", {"nonlinearity": "relu"}),
    "RNN both directions": ("RNN", {"bidirectional": True}),
}
each_module = pytest.mark.parametrize("name", MODULES)


def function_of_all(module: nn.Module, x: Any, hx: Any) -> tuple[Any, list[Tensor]]:
    """A function of every tensor that reaches the module, and those tensors."""
    parameters = dict(module.named_parameters())
    first = leaves(hx)

    def f(data: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        hidden, weights = rest[: len(first)], rest[len(first) :]
        given = x if isinstance(x, Tensor) else x._replace(data=data)
        args = (
            data if isinstance(x, Tensor) else given,
            tuple(hidden) if isinstance(hx, tuple) else hidden[0],
        )
        named = dict(zip(parameters, weights, strict=True))
        return tuple(leaves(torch.func.functional_call(module, named, args)))

    tensors = [*leaves(x), *first, *parameters.values()]
    return f, [t.detach().clone().requires_grad_() for t in tensors]


def made(name: str, training: bool = True) -> nn.Module:
    kind, options = MODULES[name]
    torch.manual_seed(4)
    return getattr(fastseq, kind)(2, 3, dtype=torch.float64, **options).train(training)


@each_module
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("ragged", [False, True], ids=["padded", "packed"])
def test_gradcheck(name: str, training: bool, ragged: bool) -> None:
    module = made(name, training)
    x = packed([3, 1, 2], 2, torch.float64) if ragged else numbers(3, 2, 2, dtype=torch.float64)
    f, tensors = function_of_all(module, x, states(module, 3 if ragged else 2))
    assert gradcheck(f, tensors)


@each_module
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("ragged", [False, True], ids=["padded", "packed"])
def test_gradgradcheck(name: str, training: bool, ragged: bool) -> None:
    module = made(name, training)
    x = packed([2, 1], 2, torch.float64) if ragged else numbers(2, 1, 2, dtype=torch.float64)
    f, tensors = function_of_all(module, x, states(module, 2 if ragged else 1))
    assert gradgradcheck(f, tensors, fast_mode=True)


@pytest.mark.parametrize("name", ["LSTM projected", "GRU", "RNN tanh"])
def test_gradgradcheck_entry_by_entry(name: str) -> None:
    module = made(name)
    f, tensors = function_of_all(module, numbers(2, 2, 2, dtype=torch.float64), states(module, 2))
    assert gradgradcheck(f, tensors)


@pytest.mark.parametrize("kind", CELLS)
def test_cells(kind: str) -> None:
    torch.manual_seed(5)
    cell = getattr(fastseq, kind)(2, 3, dtype=torch.float64)
    state = numbers(2, 3, dtype=torch.float64)
    hx = (state, state.flip(0)) if kind == "LSTMCell" else state
    f, tensors = function_of_all(cell, numbers(2, 2, dtype=torch.float64), hx)
    assert gradcheck(f, tensors)
    assert gradgradcheck(f, tensors)


@pytest.mark.parametrize("kind", KINDS)
def test_third_derivative(kind: str) -> None:
    module = getattr(fastseq, kind)(1, 2, dtype=torch.float64)
    f, tensors = function_of_all(module, numbers(2, 1, 1, dtype=torch.float64), states(module, 1))

    def slope(*values: Tensor) -> tuple[Tensor, ...]:
        out = f(*values)[0].sin().sum()
        grads = torch.autograd.grad(out, values, create_graph=True)
        return tuple(g for g in grads if g.requires_grad)

    assert gradgradcheck(slope, tensors, fast_mode=True)


@pytest.mark.parametrize("kind", KINDS)
def test_second_derivative_is_torch_nns(kind: str) -> None:
    results = []
    for module in twins(kind, 3, 5, num_layers=2, bidirectional=True, dtype=torch.float64):
        x = numbers(4, 2, 3, dtype=torch.float64).requires_grad_()
        (slope,) = torch.autograd.grad(module(x)[0].sin().sum(), x, create_graph=True)
        slope.square().sum().backward()
        results.append([x.grad, *(p.grad for p in module.parameters())])
    torch.testing.assert_close(*results)


def test_ops_keep_activations_where_a_gradient_is_asked_for() -> None:
    """Whatever ``save`` says; and not under no_grad, though a weight would have a gradient."""
    x, h, w = numbers(4, 2, 3), numbers(2, 5), nn.Parameter(numbers(15, 3))
    args = (x, h, None, w, numbers(15, 5), *[None] * 4, 1, False, False)
    y, *_, gates, _ = torch.ops.fastseq.layer(*args)
    assert y.requires_grad
    assert gates.shape == (4, 2, 20)
    with torch.no_grad():
        y, *_, gates, _ = torch.ops.fastseq.layer(*args)
    assert not y.requires_grad
    assert gates.numel() == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("changed", ["hx", "weight_hh_l0", "weight_ih_l0"])
@pytest.mark.parametrize("ragged", [False, True], ids=["padded", "packed"])
def test_input_changed_in_place_raises(kind: str, changed: str, ragged: bool) -> None:
    module = getattr(fastseq, kind)(3, 4)
    hx = states(module, 2)
    x: Any = packed([4, 2], 3) if ragged else numbers(4, 2, 3)
    leaves(x)[0].requires_grad_()
    output = leaves(module(x, hx))[0]
    with torch.no_grad():
        (leaves(hx)[0] if changed == "hx" else getattr(module, changed)).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


@pytest.mark.parametrize("kind", KINDS)
def test_retained_graph(kind: str) -> None:
    module = getattr(fastseq, kind)(3, 4, num_layers=2)
    loss = module(numbers(4, 2, 3))[0].square().sum()
    loss.backward(retain_graph=True)
    once = [p.grad.clone() for p in module.parameters()]
    loss.backward()
    for p, g in zip(module.parameters(), once, strict=True):
        assert torch.equal(p.grad, 2 * g)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("dtype", "threads"), [(torch.float32, 1), (torch.bfloat16, 1), (torch.float32, 2)], ids=str
)
@pytest.mark.parametrize("ragged", [False, True], ids=["padded", "packed"])
def test_repeatable_bit_by_bit(kind: str, dtype: torch.dtype, threads: int, ragged: bool) -> None:
    torch.set_num_threads(threads)
    module = getattr(fastseq, kind)(9, 33, bidirectional=True, dtype=dtype)
    x: Any = packed([9, 9, 7, 5, 3, 2, 2, 1], 9, dtype) if ragged else numbers(9, 8, 9, dtype=dtype)
    first = call(module, x, states(module, 8))
    for _ in range(20):
        assert_equal(call(module, x, states(module, 8)), first)


def test_chain_rule_of_the_lecture() -> None:
    """dh_3/dx_1 = s'(z_3) W s'(z_2) W s'(z_1) V for h_t = s(W h_{t-1} + V x_t + b), s = tanh."""
    rnn = fastseq.RNN(2, 3, dtype=torch.float64)
    x = numbers(3, 1, 2, dtype=torch.float64)
    v, w = rnn.weight_ih_l0.detach(), rnn.weight_hh_l0.detach()
    b = (rnn.bias_ih_l0 + rnn.bias_hh_l0).detach()
    h = torch.zeros(3, dtype=torch.float64)
    slopes = []  # s'(z_t) as a diagonal matrix
    for t in range(3):
        h = torch.tanh(w @ h + v @ x[t, 0] + b)
        slopes.append(torch.diag(1 - h * h))
    expected = slopes[2] @ w @ slopes[1] @ w @ slopes[0] @ v
    jacobian = torch.autograd.functional.jacobian(lambda x: rnn(x)[0][2, 0], x)  # (3, T, B, I)
    torch.testing.assert_close(jacobian[:, 0, 0], expected)
    torch.testing.assert_close(rnn(x)[0][2, 0].detach(), h)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_second_derivative_in_16_bits(kind: str, dtype: torch.dtype) -> None:
    """An LSTM's c is float32 there, and W_hh is not."""
    found = []
    for own in (dtype, torch.float64):
        module = getattr(fastseq, kind)(3, 4, dtype=own)
        module.load_state_dict({n: numbers(*p.shape) / 4 for n, p in module.named_parameters()})
        x = numbers(5, 2, 3, dtype=own).requires_grad_()
        (grad,) = torch.autograd.grad(module(x)[0].sum(), x, create_graph=True)
        found.append(torch.autograd.grad(grad.square().sum(), module.weight_hh_l0)[0])
    assert found[0].dtype == dtype
    torch.testing.assert_close(found[0].double(), found[1], atol=5e-2, rtol=5e-2)
