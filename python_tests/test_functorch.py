"""vmap, per-sample gradients, ensembles, Jacobians and second derivatives of recurrent modules."""

import copy
from typing import Any

import pytest
import torch
from extended_cases import extended
from recurrence_cases import CELLS, KINDS, numbers
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, jacrev, stack_module_state, vmap

import fastseq
from fastseq.autograd import ExtendedLayer, Linear
from fastseq.ops import Cell

V, T, B, I, H = 3, 5, 4, 2, 3  # noqa: E741
OPTIONS: list[dict[str, Any]] = [
    {}, {"num_layers": 2, "bidirectional": True, "bias": False}, {"layer_norm": True},
]  # fmt: skip
MODULES = [(kind, options) for kind in KINDS for options in OPTIONS] + [("LSTM", {"proj_size": 2})]
each_module = pytest.mark.parametrize(
    ("kind", "options"), MODULES, ids=lambda v: v if isinstance(v, str) else "-".join(v) or "plain"
)
LENGTHS = torch.tensor([[5, 2, 0, 4], [1, 5, 3, 3], [5, 5, 5, 5]])


def made(kind: str, options: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    return getattr(fastseq, kind)(I, H, dtype=torch.float64, **options)


def inputs() -> Tensor:
    return numbers(V, T, B, I, dtype=torch.float64)


def close(actual: Any, expected: list[Any]) -> None:
    torch.testing.assert_close(actual, torch.stack(expected))


@each_module
@pytest.mark.parametrize("dim", [0, 2])
def test_vmap_over_inputs(kind: str, options: dict[str, Any], dim: int) -> None:
    module, x = made(kind, options), inputs()
    actual = vmap(lambda x: module(x)[0], in_dims=dim)(x.movedim(0, dim))
    close(actual, [module(each)[0] for each in x])


@each_module
def test_ensemble(kind: str, options: dict[str, Any]) -> None:
    """Over the weights of several modules, and an input of each or one for all."""
    modules = [made(kind, options) for _ in range(V)]
    for i, module in enumerate(modules):
        for p in module.parameters():
            p.data += 0.1 * i
    params, buffers = stack_module_state(modules)
    base, x = copy.deepcopy(modules[0]).to("meta"), inputs()

    def run(p: Any, b: Any, x: Tensor) -> Tensor:
        y: Tensor = functional_call(base, (p, b), (x,))[0]
        return y

    close(vmap(run)(params, buffers, x), [m(e)[0] for m, e in zip(modules, x, strict=True)])
    close(vmap(run, (0, 0, None))(params, buffers, x[0]), [m(x[0])[0] for m in modules])


@each_module
@pytest.mark.parametrize("ragged", [False, True])
def test_per_sample_gradients(kind: str, options: dict[str, Any], ragged: bool) -> None:
    module, x = made(kind, options), inputs()
    params = {n: p.detach() for n, p in module.named_parameters()}

    def loss(p: Any, x: Tensor, lengths: Tensor) -> Tensor:
        y: Tensor = functional_call(module, p, (x,), {"lengths": lengths} if ragged else {})[0]
        return y.square().sum()

    actual = vmap(grad(loss), (None, 0, 0))(params, x, LENGTHS)
    for name in params:
        close(actual[name], [grad(loss)(params, x[i], LENGTHS[i])[name] for i in range(V)])


@pytest.mark.parametrize("kind", KINDS)
def test_recompute_is_without_effect_within_a_transform(kind: str) -> None:
    """The transforms cannot run a checkpoint."""
    found = []
    for recompute in (False, True):
        module = made(kind, {"recompute": recompute})

        def loss(p: dict[str, Tensor], x: Tensor, module: Any = module) -> Tensor:
            return functional_call(module, p, (x,))[0].square().sum()

        params = {name: p.detach() for name, p in module.named_parameters()}
        found.append(vmap(grad(loss), in_dims=(None, 0))(params, inputs()))
    torch.testing.assert_close(*found, rtol=0, atol=0)


@each_module
def test_jacobian_and_hessian(kind: str, options: dict[str, Any]) -> None:
    module, x = made(kind, options), inputs()[0, :2, :1]

    def mean(x: Tensor) -> Tensor:
        y: Tensor = module(x)[0].sum(0)
        return y

    def energy(x: Tensor) -> Tensor:
        return mean(x).square().sum()

    functional = torch.autograd.functional
    torch.testing.assert_close(jacrev(mean)(x), functional.jacobian(mean, x))
    torch.testing.assert_close(jacrev(jacrev(energy))(x), functional.hessian(energy, x))


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("enabled", [True, False])
def test_cells(kind: str, enabled: bool) -> None:
    cell, x = made(kind, {}), inputs()[:, 0]
    with torch.set_grad_enabled(enabled):
        actual = vmap(lambda x: cell(x)[0] if kind == "LSTMCell" else cell(x))(x)
        close(actual, [cell(e)[0] if kind == "LSTMCell" else cell(e) for e in x])


@pytest.mark.parametrize("cell", [Cell.LSTM, Cell.GRU, Cell.RNN_TANH])
@pytest.mark.parametrize(
    "features", ["lengths reset reset_state", "norm zone drop", "project norm lengths"]
)
def test_second_derivatives_of_the_extended_layer(cell: Cell, features: str) -> None:
    args = extended(cell, features, steps=3, batch=2, hidden=2, width=2)
    masks = {13, 14, 15}
    places = [i for i, t in enumerate(args)
              if isinstance(t, Tensor) and t.is_floating_point() and i not in masks]  # fmt: skip

    def layer(*values: Tensor) -> tuple[Tensor, ...]:
        every = list(args)
        for i, value in zip(places, values, strict=True):
            every[i] = value
        y, h_n, c_n, _, cells, _ = ExtendedLayer.apply(*every, True)
        return tuple(t for t in (y, h_n, c_n, cells) if t.numel())

    assert gradgradcheck(layer, [args[i].clone().requires_grad_() for i in places], fast_mode=True)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_penalty_is_torch_nns(kind: str) -> None:
    """A WGAN's penalty on the slope at the input, through the weights."""
    results = []
    for library in (fastseq, torch.nn):
        torch.manual_seed(0)
        module = getattr(library, kind)(I, H, num_layers=2, dtype=torch.float64).eval()
        x = numbers(T, B, I, dtype=torch.float64).requires_grad_()
        (slope,) = torch.autograd.grad(module(x)[0].sum(), x, create_graph=True)
        (slope.norm(dim=-1) - 1).square().mean().backward()
        results.append([x.grad, *(p.grad for p in module.parameters())])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("turned", [False, True])
def test_gradients_of_linear(turned: bool) -> None:
    """Of both factors, once and twice, over any number of leading dimensions."""
    weight = numbers(4, 3, dtype=torch.float64).requires_grad_()
    for lead in ((5,), (2, 5)):
        x = numbers(*lead, 4 if turned else 3, seed=2, dtype=torch.float64).requires_grad_()
        assert gradcheck(lambda x, w: Linear.apply(x, w, turned), (x, weight))
        assert gradgradcheck(lambda x, w: Linear.apply(x, w, turned), (x, weight))
