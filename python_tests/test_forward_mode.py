"""Forward mode: tangents reach every op, frozen or not, and run over reverse mode and under it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from image_cases import images
from recurrence_cases import CELLS, KINDS, numbers
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, linearize, vmap
from torch.nn.utils.rnn import PackedSequence

import fastseq
from fastseq import functional

T, B, I, H = 4, 3, 2, 3  # noqa: E741
F64 = torch.float64
Case = tuple[Callable[[Tensor], Tensor], Tensor]
LENGTHS = torch.tensor([4, 0, 2])
RESET = torch.tensor([[0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 1, 0]], dtype=torch.bool)


def recurrent(kind: str, call: dict[str, Any] | None = None, **options: Any) -> Case:
    torch.manual_seed(0)
    module = getattr(fastseq, kind)(I, H, dtype=F64, **options).requires_grad_(False)
    return lambda x: torch.cat([t.flatten() for t in flat(module(x, **(call or {})))]), numbers(
        T, B, I, dtype=F64
    )


def flat(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [t for v in value for t in flat(v)]


def cell(kind: str) -> Case:
    torch.manual_seed(0)
    module = getattr(fastseq, kind)(I, H, dtype=F64).requires_grad_(False)
    return lambda x: torch.cat(flat(module(x))), numbers(B, I, dtype=F64)


def packed(kind: str) -> Case:
    """Of rows, since torch's pack_padded_sequence has no forward mode."""
    torch.manual_seed(0)
    module = getattr(fastseq, kind)(I, H, bidirectional=True, dtype=F64).requires_grad_(False)
    sizes = torch.tensor([3, 2, 2, 1])
    return lambda x: module(PackedSequence(x, sizes))[0].data, numbers(8, I, dtype=F64)


def image(call: Callable[..., Tensor], *shape: int, form: str = "NCHW") -> Case:
    return call, images(*(shape or (2, 4, 5, 6)), dtype=F64, form=form)


CASES: dict[str, Callable[[], Case]] = {
    **{kind: lambda kind=kind: recurrent(kind) for kind in KINDS},
    **{
        f"{kind}, layers, directions": lambda kind=kind: recurrent(
            kind, num_layers=2, bidirectional=True, batch_first=True
        )
        for kind in KINDS
    },
    "RNN, relu": lambda: recurrent("RNN", nonlinearity="relu"),
    "projection": lambda: recurrent("LSTM", proj_size=2),
    **{f"{kind}, layer norm": lambda kind=kind: recurrent(kind, layer_norm=True) for kind in KINDS},
    "cell states": lambda: recurrent("LSTM", return_cell_states=True),
    "recompute": lambda: recurrent("LSTM", recompute=True),
    "lengths": lambda: recurrent("LSTM", {"lengths": LENGTHS}, bidirectional=True),
    "reset": lambda: recurrent("GRU", {"reset": RESET}, bidirectional=True),
    "packed": lambda: packed("GRU"),
    **{kind: lambda kind=kind: cell(kind) for kind in CELLS},
    "LRN": lambda: image(lambda x: functional.local_response_norm(x, 3, 0.5)),
    "LRN, NHWC": lambda: image(
        lambda x: functional.local_response_norm(x, 4, 0.5, 1.1), form="NHWC"
    ),
    "LRN, 3-D": lambda: image(lambda x: functional.local_response_norm(x, 2, 0.5, 0.5), 2, 3, 7),
    "LRN within": lambda: image(
        lambda x: functional.local_response_norm(x, 3, 0.5, within_channel=True)
    ),
    "pool": lambda: image(lambda x: functional.max_pool2d(x, 3, 2, 1)),  # type: ignore[return-value]
    "pool, NHWC": lambda: image(fastseq.MaxPool2d(2, 1, ceil_mode=True), form="NHWC"),
    "trio": lambda: image(fastseq.ReLULRNMaxPool2d(3, 0.5)),
}
each_case = pytest.mark.parametrize("case", CASES)


def tangent(x: Tensor) -> Tensor:
    return numbers(*x.shape, seed=7, dtype=F64)


def truth(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The derivative along the tangent, by reverse mode alone."""
    return torch.autograd.functional.jvp(f, x, tangent(x))[1]


@each_case
def test_tangents(case: str) -> None:
    f, x = CASES[case]()
    expected, value = truth(f, x), f(x)
    assert expected.norm() > 1e-3  # zeros would be right otherwise
    primal, found = jvp(f, (x,), (tangent(x),))
    torch.testing.assert_close(primal, value)
    torch.testing.assert_close(found, expected)
    columns = jacfwd(f)(x).flatten(-x.dim())
    torch.testing.assert_close(columns @ tangent(x).flatten(), expected)
    if case != "packed":  # linearize traces, and batch_sizes are numbers
        torch.testing.assert_close(linearize(f, x)[1](tangent(x)), expected)


@each_case
@pytest.mark.parametrize("graph", [True, False], ids=["gradients on", "no_grad"])
@pytest.mark.parametrize("leaf", [True, False], ids=["leaf", "frozen"])
def test_dual_numbers(case: str, graph: bool, leaf: bool) -> None:
    f, x = CASES[case]()
    expected = truth(f, x)
    with torch.set_grad_enabled(graph), forward_ad.dual_level():
        y = f(forward_ad.make_dual(x.clone().requires_grad_(leaf), tangent(x)))
        torch.testing.assert_close(forward_ad.unpack_dual(y).tangent, expected)
        assert y.requires_grad == (graph and leaf)


@each_case
def test_gradcheck(case: str) -> None:
    """PyTorch's own check: forward, reverse, batched, and forward over reverse."""
    f, x = CASES[case]()
    leaf = x.clone().requires_grad_()
    assert gradcheck(
        f, leaf, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True,
        fast_mode=True,
    )  # fmt: skip
    assert gradgradcheck(f, leaf, check_fwd_over_rev=True, fast_mode=True)


@each_case
def test_hessian(case: str) -> None:
    f, x = CASES[case]()
    x = x[:1] if x.dim() == 4 else x

    def energy(x: Tensor) -> Tensor:
        return f(x).square().sum()

    expected = torch.autograd.functional.hessian(energy, x)
    torch.testing.assert_close(hessian(energy)(x), expected)  # forward over reverse
    torch.testing.assert_close(jacrev(jacfwd(energy))(x), expected)  # reverse over forward
    torch.testing.assert_close(jacrev(jacrev(energy))(x), expected)


@each_case
def test_forward_over_backward_of_the_engine(case: str) -> None:
    """A tangent carried through ``torch.autograd.grad``, as Hessian-vector products are made."""
    f, x = CASES[case]()
    expected = torch.autograd.functional.vhp(lambda x: f(x).square().sum(), x, tangent(x))[1]
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x.clone().requires_grad_(), tangent(x))
        (g,) = torch.autograd.grad(f(dual).square().sum(), dual)
        torch.testing.assert_close(forward_ad.unpack_dual(g).tangent, expected)


@pytest.mark.parametrize("kind", [*KINDS, *CELLS])
@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "trained"])
def test_tangents_of_parameters(kind: str, frozen: bool) -> None:
    torch.manual_seed(0)
    module = getattr(fastseq, kind)(I, H, dtype=F64).requires_grad_(not frozen)
    native = getattr(torch.nn, kind)(I, H, dtype=F64)
    x = numbers(T, B, I, dtype=F64)
    x = x[0] if kind in CELLS else x
    params = {name: p.detach() for name, p in module.named_parameters()}
    along = {n: numbers(*p.shape, seed=3, dtype=F64) for n, p in params.items()}

    def result(module: Any) -> Callable[[dict[str, Tensor]], Tensor]:
        return lambda p: torch.cat([t.flatten() for t in flat(functional_call(module, p, (x,)))])

    value, found = jvp(result(module), (params,), (along,))
    # torch.nn's own layers in forward mode where they have it, which is not in nn.LSTM's oneDNN.
    with torch.backends.mkldnn.flags(enabled=False):
        expected = jvp(result(native), (params,), (along,))
    torch.testing.assert_close((value, found), expected)


def test_a_tangent_in_batches_and_in_two_places() -> None:
    """vmap outside and inside, and tangents of input and state at once."""
    torch.manual_seed(0)
    gru = fastseq.GRU(I, H, dtype=F64)
    x, h = numbers(5, T, B, I, dtype=F64), numbers(1, B, H, dtype=F64)
    call = lambda x, h: gru(x, h)[0]  # noqa: E731
    along = (numbers(T, B, I, seed=8, dtype=F64), numbers(1, B, H, seed=9, dtype=F64))
    found = vmap(lambda x: jvp(call, (x, h), along)[1])(x)
    for each, one in zip(found, x, strict=True):
        expected = torch.autograd.functional.jvp(call, (one, h), along)[1]
        torch.testing.assert_close(each, expected)


def test_per_sample_gradients_have_tangents() -> None:
    torch.manual_seed(0)
    lstm = fastseq.LSTM(I, H, dtype=F64)
    params = {name: p.detach() for name, p in lstm.named_parameters()}

    def loss(p: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(lstm, p, (x.unsqueeze(1),))[0].square().sum()

    x = numbers(B, T, I, dtype=F64)
    each = vmap(grad(loss), in_dims=(None, 0))
    _, found = jvp(lambda x: each(params, x), (x,), (tangent(x),))
    step = 1e-6
    up, down = each(params, x + step * tangent(x)), each(params, x - step * tangent(x))
    for name, value in found.items():
        slope = (up[name] - down[name]) / (2 * step)
        torch.testing.assert_close(value, slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["layer", "recurrence", "step", "linear", "local_response_norm"])
def test_raw_ops_have_tangents(name: str) -> None:
    w, u = numbers(H, I, dtype=F64), numbers(H, H, seed=2, dtype=F64)
    x, h = numbers(T, B, I, dtype=F64), numbers(B, H, seed=3, dtype=F64)
    raw = torch.ops.fastseq
    calls: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
        "layer": (lambda x: raw.layer(x, h, None, w, u, *[None] * 4, 2, False, False)[0], x),
        "recurrence": (
            lambda p: raw.recurrence(p, h, None, u, *[None] * 3, 2, True, True)[0], x @ w.t(),
        ),
        "step": (lambda x: raw.step(x, h, None, w, u, None, None, 2)[0], x[0]),
        "linear": (lambda x: raw.linear(x, w, False), x),
        "local_response_norm": (lambda x: raw.local_response_norm(x, 2, 0.5, 0.75, 1.0, False), x),
    }  # fmt: skip
    f, x = calls[name]
    torch.testing.assert_close(jvp(f, (x,), (tangent(x),))[1], truth(f, x))
    leaf = x.clone().requires_grad_()
    assert gradcheck(f, leaf, check_forward_ad=True)
    assert gradgradcheck(f, leaf, check_fwd_over_rev=True)


@pytest.mark.parametrize("kind", KINDS)
def test_streams_carry_tangents(kind: str) -> None:
    """Also without gradients, where a step overwrites its state."""
    torch.manual_seed(0)
    module = getattr(fastseq, kind)(I, H, dtype=F64).requires_grad_(False)
    x = numbers(T, B, I, dtype=F64)
    expected = truth(lambda x: module(x)[0], x)
    state = None
    with torch.no_grad(), forward_ad.dual_level():
        for x_t, slope in zip(forward_ad.make_dual(x, tangent(x)), expected, strict=True):
            y, state = module.step(x_t, state)
            torch.testing.assert_close(forward_ad.unpack_dual(y).tangent, slope)


def test_what_overwrites_its_arguments_has_no_derivative() -> None:
    x, h, w = numbers(B, I), numbers(B, H), (numbers(H, I), numbers(H, H), None, None, 2)
    step_ = torch.ops.fastseq.step_
    with pytest.raises(RuntimeError, match=r"step_ overwrites its arguments and has no deriv"):
        step_(x.clone().requires_grad_(), h, None, *w)
    with pytest.raises(RuntimeError, match="has no derivatives"):
        jvp(lambda x: step_(x, h.clone(), None, *w), (x,), (x,))
    before = h._version
    step_(x, h, None, *w)
    assert h._version > before
