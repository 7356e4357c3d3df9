"""The road through torch's call on a GPU, with the CPU as one: results, derivatives, weights."""

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from cuda_stand_in import Calls, gpu
from recurrence_cases import (
    KINDS,
    assert_close,
    call,
    fresh,
    leaves,
    numbers,
    packed,
    states,
    twins,
)
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils.flop_counter import FlopCounterMode

import fastseq
from fastseq import functional
from fastseq.functional import cuda_stack
from fastseq.functional.cuda_route import CUDNN, STEP

each_kind = pytest.mark.parametrize("kind", KINDS)
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("error")]


@pytest.fixture
def cudnn() -> Iterator[Calls]:
    with gpu() as calls, fastseq.cuda_rnn(CUDNN):  # few units go another way by themselves
        yield calls


CASES: list[tuple[str, dict[str, Any]]] = [
    *((kind, {}) for kind in KINDS),
    *((kind, {"num_layers": 2, "bidirectional": True, "bias": False}) for kind in KINDS),
    ("LSTM", {"proj_size": 3, "num_layers": 2, "bidirectional": True}),
    ("RNN", {"nonlinearity": "relu"}),
    ("GRU", {"num_layers": 2, "dropout": 0.5}),
]


@pytest.mark.parametrize(("kind", "options"), CASES, ids=str)
@pytest.mark.parametrize("layout", ["padded", "batch_first", "packed", "unbatched", "hx"])
@pytest.mark.parametrize("route", [CUDNN, STEP])
def test_parity(kind: str, options: dict[str, Any], layout: str, route: str, cudnn: Calls) -> None:
    ours, theirs = twins(
        kind, 5, 7, dtype=torch.float64, batch_first=layout == "batch_first", **options
    )
    x: Any = numbers(6, 4, 5, dtype=torch.float64)
    if layout == "packed":
        x = packed([6, 3, 3, 1], 5, torch.float64)
    if layout == "unbatched":
        x = x[:, 0]
    args = (x, states(ours, 4)) if layout == "hx" else (x,)
    expected = call(theirs, *args)
    with fastseq.cuda_rnn(route):
        found = call(ours, *args)
    assert len(cudnn) == (route == CUDNN)
    assert_close(found, expected, 1e-12)


@each_kind
def test_second_derivative_goes_by_our_kernels(kind: str, cudnn: Calls) -> None:
    module = getattr(fastseq, kind)(1, 2, dtype=torch.float64)
    x = numbers(2, 1, 1, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda *_: module(x)[0], [x, module.weight_hh_l0])
    assert len(cudnn) > 1


@pytest.mark.parametrize(("kind", "options"), CASES[3:-1], ids=str)
def test_second_derivatives_of_stacks(kind: str, options: dict[str, Any], cudnn: Calls) -> None:
    """All of them, those that come in by the final states, too."""
    module = getattr(fastseq, kind)(3, 4, dtype=torch.float64, **options)
    found = []
    for route in (CUDNN, STEP):
        leaves_in = fresh((numbers(5, 2, 3, dtype=torch.float64), states(module, 2)))
        wanted = [*leaves(leaves_in), *module.parameters()]
        with fastseq.cuda_rnn(route):
            made = sum(t.square().sum() for t in leaves(module(*leaves_in)))
        grads = torch.autograd.grad(made, wanted, create_graph=True)
        twice = torch.autograd.grad(sum(g.square().sum() for g in grads), wanted)
        found.append([*grads, *twice])
    assert len(cudnn) == 1
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected)


def test_third_derivative(cudnn: Calls) -> None:
    module = fastseq.LSTM(2, 2, dtype=torch.float64)
    x = numbers(3, 1, 2, dtype=torch.float64)

    def third(route: str) -> Tensor:
        leaf = x.clone().requires_grad_()
        with fastseq.cuda_rnn(route):
            made = module(leaf)[0].square().sum()
        for _ in range(3):
            (grad,) = torch.autograd.grad(made, leaf, create_graph=True)
            made = grad.square().sum()
        return made.detach()

    torch.testing.assert_close(third(CUDNN), third(STEP))
    assert len(cudnn) == 1


def test_a_weight_that_the_input_is_made_of(cudnn: Calls) -> None:
    """Its gradient is not counted twice when the derivative is made once more."""
    module = fastseq.GRU(3, 3, dtype=torch.float64)
    x = numbers(4, 3, dtype=torch.float64)
    found = []
    for route in (CUDNN, STEP):
        with fastseq.cuda_rnn(route):
            y, _ = module((x @ module.weight_hh_l0[:3]).unsqueeze(1))
        grads = torch.autograd.grad(y.sum(), list(module.parameters()), create_graph=True)
        twice = torch.autograd.grad(sum(g.square().sum() for g in grads), module.weight_hh_l0)
        found.append([*grads, *twice])
    assert len(cudnn) == 1
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected)


@each_kind
def test_batched_gradients(kind: str, cudnn: Calls) -> None:
    """By ``is_grads_batched``, and by vmap over a gradient."""
    module = getattr(fastseq, kind)(2, 3, dtype=torch.float64)
    x = numbers(3, 2, 2, dtype=torch.float64).requires_grad_()
    y = module(x)[0]
    many = numbers(4, *y.shape, dtype=torch.float64)

    def pulled(grad: Tensor) -> Tensor:
        return torch.autograd.grad(y, x, grad, retain_graph=True)[0]

    expected = torch.stack([pulled(grad) for grad in many])
    torch.testing.assert_close(torch.func.vmap(pulled)(many), expected)
    torch.testing.assert_close(torch.autograd.grad(y, x, many, is_grads_batched=True)[0], expected)
    assert len(cudnn) == 1


def test_the_graph_is_freed_or_kept_as_asked(cudnn: Calls) -> None:
    module = fastseq.GRU(3, 4)
    y, _ = module(numbers(5, 2, 3))
    first = torch.autograd.grad(y.sum(), module.weight_hh_l0, retain_graph=True)
    assert torch.equal(torch.autograd.grad(y.sum(), module.weight_hh_l0)[0], first[0])
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(y.sum(), module.weight_hh_l0)


def test_writing_to_the_output_is_noticed(cudnn: Calls) -> None:
    """As by torch.nn on a GPU: cuDNN's backward reads it."""
    y, _ = fastseq.LSTM(3, 4)(numbers(5, 2, 3))
    y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@each_kind
def test_states_may_lie_anyhow(kind: str, cudnn: Calls) -> None:
    """cuDNN wants them contiguous; torch.nn on a GPU raises, and on the CPU does not."""
    module = getattr(fastseq, kind)(3, 4, num_layers=2)
    hx = states(module, 2)
    turned = tuple(t.transpose(0, 1).contiguous().transpose(0, 1) for t in leaves(hx))
    x = numbers(5, 2, 3)
    found = call(module, x, turned if kind == "LSTM" else turned[0])
    assert_close(found, call(module, x, hx), 1e-6)
    assert len(cudnn) == 2


@each_kind
def test_gradients_in_evaluation_mode(kind: str, cudnn: Calls) -> None:
    """cuDNN has none there: it is called in training mode, without dropout."""
    module = getattr(fastseq, kind)(3, 4, num_layers=2, dropout=0.9).eval()
    x = numbers(5, 2, 3)
    found = call(module, x)
    with fastseq.cuda_rnn(STEP):
        assert_close(found, call(module, x), 1e-5)
    assert [(c["train"], c["dropout"]) for c in cudnn] == [(True, 0.0)]


def test_training_mode_is_asked_for_where_it_is_needed(cudnn: Calls) -> None:
    """Without gradients and dropout, nothing is to be kept for a backward."""
    x = numbers(5, 2, 3)
    with torch.no_grad():
        fastseq.LSTM(3, 4, bidirectional=True)(x)
        fastseq.LSTM(3, 4, num_layers=2, dropout=0.5)(x)
        fastseq.LSTM(3, 4, num_layers=2, dropout=0.5).eval()(x)
    assert [(c["train"], c["dropout"]) for c in cudnn] == [(False, 0.0), (True, 0.5), (False, 0.0)]


def test_second_derivative_under_dropout_is_refused_by_torch(cudnn: Calls) -> None:
    """Nobody can draw cuDNN's mask again; the gradient itself may keep its graph."""
    module = fastseq.LSTM(3, 4, num_layers=2, dropout=0.5)
    x = numbers(5, 2, 3).requires_grad_()
    (grad,) = torch.autograd.grad(module(x)[0].square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        grad.sum().backward()
    with fastseq.cuda_rnn(STEP):
        (grad,) = torch.autograd.grad(module(x)[0].square().sum(), x, create_graph=True)
    grad.sum().backward()
    assert x.grad is not None


def test_what_others_follow_goes_by_our_ops(cudnn: Calls) -> None:
    module = fastseq.GRU(3, 4)
    x = numbers(5, 2, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.jit, which torch.func loads, too
        torch.func.grad(lambda t: module(t)[0].sum())(x)
        torch.func.jvp(lambda t: module(t)[0], (x,), (x,))
        torch.jit.trace(module, x, check_trace=False)
        torch.compile(module, backend="eager", fullgraph=True)(x)
    with FlopCounterMode(display=False) as flops:
        module(x)
    assert flops.get_total_flops() > 0
    module(x, lengths=torch.tensor([5, 3]))
    fastseq.GRU(3, 4, layer_norm=True)(x)
    with torch.no_grad():
        module(x.as_subclass(type("Own", (Tensor,), {})))
    assert not cudnn


@each_kind
def test_autocast_is_torchs(kind: str, cudnn: Calls) -> None:
    """cuDNN's call casts by itself, weights and all; our kernels, later, do as it did."""
    module = getattr(fastseq, kind)(3, 4)
    x = numbers(5, 2, 3).requires_grad_()
    found = []
    for route in (CUDNN, STEP):
        with fastseq.cuda_rnn(route), torch.autocast("cpu", torch.bfloat16):
            y = module(x)[0]
        assert y.dtype == torch.bfloat16
        (grad,) = torch.autograd.grad(y.float().sum(), x, create_graph=True)
        found.append([y, grad, *torch.autograd.grad(grad.square().sum(), module.weight_hh_l0)])
    assert [c["dtype"] for c in cudnn] == [torch.float32]
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, atol=3e-2, rtol=0)


@each_kind
def test_mistakes_get_our_words(kind: str, cudnn: Calls) -> None:
    module = getattr(fastseq, kind)(3, 4)
    with pytest.raises(RuntimeError, match="not the same dtype"):
        module(numbers(5, 2, 3), moved(states(module, 2), torch.float64))
    with pytest.raises(RuntimeError, match="Expected hidden"):
        module(numbers(5, 2, 3), states(module, 7))
    with pytest.raises(RuntimeError):
        functional.gru(
            numbers(5, 2, 3), numbers(1, 9, 4), list(fastseq.GRU(3, 4).parameters()),
            True, 1, 0.0, True, False,
        )  # fmt: skip
    with pytest.raises(RuntimeError):
        functional.gru(
            numbers(5, 2, 3), numbers(1, 2, 4), list(fastseq.GRU(4, 3).parameters()),
            True, 1, 0.0, True, False,
        )  # fmt: skip
    assert not cudnn


@pytest.mark.parametrize("sizes", [[3, 3], [1, 2, 2], [3, 1, 1, 1], []], ids=str)
def test_rows_that_are_no_packed_batch(sizes: list[int], cudnn: Calls) -> None:
    """cuDNN would read beyond the end; our op says what is wrong."""
    weights = list(fastseq.GRU(3, 4).parameters())
    numbers_of = (weights, True, 1, 0.0, True, False)
    hx = numbers(1, max(sizes, default=0), 4)
    with pytest.raises(RuntimeError):
        functional.gru(numbers(5, 3), hx, *numbers_of, batch_sizes=torch.tensor(sizes).long())
    assert not cudnn


def moved(value: Any, dtype: torch.dtype) -> Any:
    return tuple(v.to(dtype) for v in value) if isinstance(value, tuple) else value.to(dtype)


# The weights


def together(module: nn.Module) -> bool:
    return len({p.untyped_storage().data_ptr() for p in module.parameters()}) == 1


@pytest.mark.parametrize(("kind", "options"), CASES, ids=str)
def test_weights_lie_together_and_stay_what_they_are(
    kind: str, options: dict[str, Any], cudnn: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = getattr(fastseq, kind)(5, 7, **options).to(torch.float64)  # moved: laid out
    before = {name: p.clone() for name, p in module.named_parameters()}
    assert together(module)
    twin = copy.deepcopy(module)
    assert together(twin)
    monkeypatch.setattr(torch, "_cudnn_rnn_flatten_weight", None)  # nobody copies from here on
    for each in (module, twin):
        each(numbers(6, 4, 5, dtype=torch.float64))
        for name, p in each.named_parameters():
            assert torch.equal(p, before[name])
    assert module.weight_hh_l0.data_ptr() != twin.weight_hh_l0.data_ptr()


def test_computed_weights_are_gathered(cudnn: Calls) -> None:
    ours, theirs = twins("LSTM", 5, 7, num_layers=2, dtype=torch.float64)
    for module in (ours, theirs):
        parametrizations.weight_norm(module, "weight_hh_l1")
    x = numbers(6, 4, 5, dtype=torch.float64)
    places = [p.data_ptr() for p in ours.parameters()]
    assert_close(call(ours, x), call(theirs, x), 1e-12)
    assert [p.data_ptr() for p in ours.parameters()] == places  # a call moves nothing
    assert len(cudnn) == 1
    for module in (ours, theirs):
        parametrize.remove_parametrizations(module, "weight_hh_l1")
    assert_close(call(ours, x), call(theirs, x), 1e-12)


def test_shared_and_turned_weights(cudnn: Calls) -> None:
    ours, theirs = twins("RNN", 4, 4, dtype=torch.float64)
    for module in (ours, theirs):
        module.weight_hh_l0 = module.weight_ih_l0
        module.bias_hh_l0 = nn.Parameter(module.bias_hh_l0.detach().repeat(2)[::2])
    ours.flatten_parameters()
    assert ours.weight_hh_l0 is ours.weight_ih_l0
    x = numbers(6, 3, 4, dtype=torch.float64)
    assert_close(call(ours, x), call(theirs, x), 1e-12)


def test_layout_of_another_stack_is_not_taken_for_ours(cudnn: Calls) -> None:
    """Weights in one buffer, in another order: as of a flat parameter of FSDP."""
    module = fastseq.LSTM(3, 4, num_layers=2)
    x = numbers(5, 2, 3)
    expected = module(x)[0].detach()
    flat = torch.cat([*(p.detach().reshape(-1) for p in module.parameters()), torch.zeros(9)])
    *parts, _ = flat.split([*(p.numel() for p in module.parameters()), 9])
    for p, part in zip(module.parameters(), parts, strict=True):
        p.data = part.view(p.shape)
    shape = cuda_stack.module_shape(module)
    assert together(module)
    assert not fastseq.autograd.cudnn.gathered(shape, list(module.parameters()))
    torch.testing.assert_close(module(x)[0], expected)
    module.flatten_parameters()
    assert fastseq.autograd.cudnn.gathered(shape, list(module.parameters()))
