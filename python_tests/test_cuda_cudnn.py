"""On a GPU: the route by cuDNN is torch.nn's call, without its warnings and its gaps."""

import copy
import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from recurrence_cases import KINDS, numbers, packed, twins
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import fastseq
from fastseq import functional
from fastseq.autograd.cudnn import gathered
from fastseq.functional import cuda_stack

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
each_kind = pytest.mark.parametrize("kind", KINDS)
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
OPTIONS: list[dict[str, Any]] = [{}, {"num_layers": 2, "bidirectional": True, "dropout": 0.4}]


@pytest.fixture(autouse=True)
def this_route_without_warnings() -> Iterator[None]:
    """Few units would go another way by themselves."""
    with warnings.catch_warnings(), fastseq.cuda_rnn("cudnn"):
        warnings.simplefilter("error")
        yield


def gradients(module: nn.Module, x: Any, seed: int = 3) -> list[Tensor]:
    """Output and gradients of the parameters; x may be packed."""
    torch.manual_seed(seed)
    y = module(x)[0]
    y = y if isinstance(y, Tensor) else y.data
    loss = (y.float() * torch.linspace(-1, 1, y.numel(), device="cuda").view(y.shape)).sum()
    return [y.detach(), *torch.autograd.grad(loss, list(module.parameters()))]


@each_kind
@each_dtype
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("layout", ["padded", "batch_first", "packed"])
def test_results_are_torch_nns(
    kind: str, dtype: torch.dtype, options: dict[str, Any], layout: str
) -> None:
    """The same call of the same library, dropout of the same seed included."""
    options = {**options, "batch_first": layout == "batch_first"}
    ours, theirs = (m.cuda().to(dtype) for m in twins(kind, 24, 40, **options))
    x: Any = numbers(12, 8, 24, dtype=dtype).cuda()
    if layout == "packed":
        x = packed([12, 9, 9, 4, 1], 24, dtype).to("cuda")
    found = gradients(ours, x)
    for one, other in zip(found, gradients(theirs, x), strict=True):
        torch.testing.assert_close(one, other)


@each_kind
@fastseq.cuda_rnn("auto")
def test_the_rules_take_this_route(kind: str) -> None:
    module = getattr(fastseq, kind)(24, 200).cuda()
    x = numbers(12, 8, 24).cuda()
    assert "cuDNN, the whole stack in one call" in fastseq.explain(module, x)
    with torch.profiler.profile() as seen:
        module(x)
    assert any("_cudnn_rnn" in event.key for event in seen.key_averages())
    with torch.backends.cudnn.flags(enabled=False):
        assert "CUDA step kernels" in fastseq.explain(module, x)


@each_kind
@each_dtype
def test_routes_agree(kind: str, dtype: torch.dtype) -> None:
    module = getattr(fastseq, kind)(24, 40, num_layers=2, dtype=dtype).cuda().eval()
    x = numbers(12, 8, 24, dtype=dtype).cuda()
    found = []
    for route in ("cudnn", "step"):
        with fastseq.cuda_rnn(route):
            found.append(gradients(module, x))  # in evaluation mode, where cuDNN alone has none
    allowed = {torch.float64: 1e-10, torch.float32: 5e-3, torch.float16: 1e-2}.get(dtype, 5e-2)
    for one, other in zip(*found, strict=True):
        assert (one - other).double().norm() <= allowed * other.double().norm()


def laid_out(module: nn.RNNBase) -> bool:
    return gathered(cuda_stack.module_shape(module), list(module.parameters()))


@each_kind
def test_weights_lie_as_cudnn_wants_them(kind: str) -> None:
    module = getattr(fastseq, kind)(24, 40, num_layers=2, bidirectional=True).cuda()
    assert laid_out(module)
    assert laid_out(copy.deepcopy(module))
    assert laid_out(pickle.loads(pickle.dumps(module)))
    module.load_state_dict(module.state_dict())
    assert laid_out(module)
    assert laid_out(module.half())
    assert laid_out(getattr(fastseq, kind)(24, 40, device="cuda"))


@each_kind
@pytest.mark.parametrize("layers", [1, 2])
def test_weights_that_lie_elsewhere_raise_no_warning(kind: str, layers: int) -> None:
    ours, theirs = (m.cuda() for m in twins(kind, 24, 40, num_layers=layers))
    x = numbers(12, 8, 24).cuda()
    expected = theirs(x)[0]
    parametrizations.weight_norm(ours, "weight_hh_l0")
    torch.testing.assert_close(ours(x)[0], expected)
    ours(x)[0].sum().backward()
    with torch.autocast("cuda", torch.float16):
        ours(x)[0].sum().backward()
    if kind == "GRU":
        weights = [p.detach().clone() for p in theirs.parameters()]
        h = torch.zeros(layers, 8, 40, device="cuda")
        y, _ = functional.gru(x, h, weights, True, layers, 0.0, True, False)
        torch.testing.assert_close(y, expected)


@each_kind
def test_second_derivative_is_that_of_the_step_kernels(kind: str) -> None:
    module = getattr(fastseq, kind)(5, 7, num_layers=2, dtype=torch.float64).cuda()
    found = []
    for route in ("cudnn", "step"):
        x = numbers(6, 3, 5, dtype=torch.float64).cuda().requires_grad_()
        with fastseq.cuda_rnn(route):
            (grad,) = torch.autograd.grad(module(x)[0].square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(grad.square().sum(), [x, *module.parameters()]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_second_derivative_under_dropout_is_refused_in_torchs_words() -> None:
    module = fastseq.LSTM(5, 7, num_layers=2, dropout=0.5).cuda()
    x = numbers(6, 3, 5).cuda().requires_grad_()
    (grad,) = torch.autograd.grad(module(x)[0].square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="disable the CuDNN backend"):
        grad.sum().backward()
    with torch.backends.cudnn.flags(enabled=False):
        (grad,) = torch.autograd.grad(module(x)[0].square().sum(), x, create_graph=True)
    grad.sum().backward()


def test_batched_gradients() -> None:
    module = fastseq.LSTM(2, 3, dtype=torch.float64).cuda()
    x = numbers(3, 2, 2, dtype=torch.float64).cuda()
    jacobian = torch.autograd.functional.jacobian
    expected = jacobian(lambda t: module(t)[0], x)
    found = jacobian(lambda t: module(t)[0], x, vectorize=True)
    torch.testing.assert_close(found, expected)


@each_kind
def test_step_kernels_obey_torchs_precision(kind: str) -> None:
    """TF32 by default, as cuDNN; IEEE where RNNs are told so; products' own switch is nothing."""
    module = getattr(fastseq, kind)(256, 256).cuda()
    x = numbers(12, 64, 256).cuda()
    exact = copy.deepcopy(module).double()(x.double())[0]
    rnn = torch.backends.cudnn.rnn
    before, off = rnn.fp32_precision, {}
    for precision in ("tf32", "ieee"):
        rnn.fp32_precision = precision
        try:
            with fastseq.cuda_rnn("step"):
                y = module(x)[0]
        finally:
            rnn.fp32_precision = before
        off[precision] = float((y - exact).norm() / exact.norm())
    assert off["ieee"] < 1e-6
    assert off["ieee"] < 0.1 * off["tf32"]
    assert off["tf32"] < 5e-3
