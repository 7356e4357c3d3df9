"""LRN, pooling, trio: dtypes under autocast, numbers that learn, numpy numbers, fakes' strides."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from image_cases import DTYPES, assert_near, gradient, images
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.nn import functional as native

import fastseq
from fastseq import functional, ops
from fastseq.functional.lrn import widened

pytestmark = pytest.mark.usefixtures("one_thread")
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
RAW = torch.ops.fastseq


def in_a_row(library: Any, x: Tensor) -> Tensor:
    y: Tensor = library.max_pool2d(library.local_response_norm(x.relu(), 3, 0.3), 3, 2)
    return y


CALLS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "lrn": (
        lambda x: functional.local_response_norm(x, 3, 0.3),
        lambda x: native.local_response_norm(x, 3, 0.3),
    ),
    "pool": (lambda x: functional.max_pool2d(x, 3, 2), lambda x: native.max_pool2d(x, 3, 2)),
    "trio": (
        lambda x: functional.relu_lrn_max_pool2d(x, 3, 0.3),
        lambda x: in_a_row(native, x),
    ),
}
SHAPES = [(6, 9, 8), (2, 6, 9, 8), (2, 3, 4, 5, 2)]


@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@each_dtype
@pytest.mark.parametrize("name", CALLS)
def test_dtypes_under_autocast_are_torch_nns(
    name: str, dtype: torch.dtype, shape: tuple[int, ...], autocast: torch.dtype
) -> None:
    if len(shape) != 4 and (name == "trio" or (name == "pool" and len(shape) == 5)):
        pytest.skip("not a shape of this op")
    ours, theirs = CALLS[name]
    x = images(*shape, dtype=dtype)
    with torch.autocast("cpu", autocast):
        y, grad, grad_x = gradient(ours, x)
        expected, _, expected_grad = gradient(theirs, x)
        wide, _, _ = gradient(ours, x.double())
    assert (y.dtype, grad_x.dtype) == (expected.dtype, expected_grad.dtype)
    assert wide.dtype == torch.float64
    assert_near(y, wide, y.dtype if y.dtype == dtype else torch.float32)
    assert grad.dtype == y.dtype


def test_autocast_in_a_model_before_and_after_swap() -> None:
    layers = (nn.Conv2d(3, 6, 3), nn.ReLU(), nn.LocalResponseNorm(3), nn.MaxPool2d(2))
    for fuse in (True, False):
        model = nn.Sequential(*layers)
        x = images(2, 3, 9, 8)
        with torch.autocast("cpu", torch.bfloat16):
            expected = model(x)
            fastseq.swap(model, fuse=fuse)
            got = model(x)
        assert got.dtype == expected.dtype == torch.float32
        torch.testing.assert_close(got, expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("dim", [3, 4, 5])
def test_autocast_on_cuda_by_the_lists(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA it is ``pow`` that becomes float32, which every rank goes through."""

    class OnCuda(torch.Tensor):
        device = torch.device("cuda")  # type: ignore[assignment]

    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: kind == "cuda")
    for dtype in DTYPES:
        x = torch.zeros((1,) * dim, dtype=dtype)
        assert widened(x) is x  # on the CPU it is off
        made = widened(x.as_subclass(OnCuda))
        assert made.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def parameters(*shape: int) -> dict[str, nn.Parameter]:
    values = {"alpha": 0.5, "beta": 0.6, "k": 1.5}
    return {name: nn.Parameter(torch.full(shape, v).double()) for name, v in values.items()}


@pytest.mark.parametrize("shape", [(), (1,), (6, 1, 1), (2, 6, 9, 8)], ids=str)
@pytest.mark.parametrize("name", ["lrn", "trio"])
def test_numbers_that_learn_keep_their_gradient(name: str, shape: tuple[int, ...]) -> None:
    x = images(2, 6, 9, 8, dtype=torch.float64)
    results = []
    for ours in (True, False):
        numbers, leaf = parameters(*shape), x.clone().requires_grad_()
        if name == "lrn":
            call = functional.local_response_norm if ours else native.local_response_norm
            y = call(leaf, 5, **numbers)
        elif ours:
            y = functional.relu_lrn_max_pool2d(leaf, 5, **numbers)
        else:
            y = native.max_pool2d(native.local_response_norm(leaf.relu(), 5, **numbers), 3, 2)
        y.sin().sum().backward()
        results.append([y.detach(), leaf.grad, *(p.grad for p in numbers.values())])
    for got, expected in zip(*results, strict=True):
        assert got is not None
        torch.testing.assert_close(got, expected)


def test_numbers_that_learn_within_a_channel() -> None:
    x = images(2, 3, 5, 4, dtype=torch.float64).requires_grad_()
    numbers = list(parameters(3, 1, 1).values())

    def call(x: Tensor, alpha: Tensor, beta: Tensor, k: Tensor) -> Tensor:
        return functional.local_response_norm(x, 3, alpha, beta, k, within_channel=True)

    assert torch.autograd.gradcheck(call, (x, *numbers))
    fixed = functional.local_response_norm(x, 3, 0.5, 0.6, 1.5, within_channel=True)
    torch.testing.assert_close(call(x, *numbers), fixed)
    for dtype in DTYPES[2:]:
        narrow = 300 * x.detach().to(dtype)  # whose squares are beyond float16
        got = call(narrow, *(p.detach().to(dtype) for p in numbers))
        assert got.dtype == dtype
        assert_near(got, call(narrow.double(), *(p.to(dtype) for p in numbers)), dtype, factor=4)


def test_modules_take_numbers_that_learn() -> None:
    x = images(2, 6, 9, 8)
    for kind in (fastseq.LocalResponseNorm, fastseq.ReLULRNMaxPool2d):
        module = kind(5)
        module.alpha = nn.Parameter(torch.tensor(0.1))
        assert "alpha" in dict(module.named_parameters())
        before = module(x)
        before.square().sum().backward()
        torch.optim.SGD(module.parameters(), 1e-2).step()
        assert not torch.equal(module(x), before)
        plain = kind(5, alpha=module.alpha.item())
        torch.testing.assert_close(module(x), plain(x))


def test_numpy_numbers() -> None:
    x = images(2, 6, 9, 8)
    two, three = np.int64(2), np.int32(3)
    for ours, theirs in (
        (functional.max_pool2d(x, two), native.max_pool2d(x, two)),
        (functional.max_pool2d(x, (two, three), two), native.max_pool2d(x, (two, three), two)),
        (functional.max_pool2d(x, three, two, (np.int64(1), 0)),
         native.max_pool2d(x, three, two, (np.int64(1), 0))),
        (functional.local_response_norm(x, three, np.float32(0.5)),
         native.local_response_norm(x, three, np.float32(0.5))),
        (functional.relu_lrn_max_pool2d(x, three, kernel_size=three, stride=two),
         native.max_pool2d(native.local_response_norm(x.relu(), three), three, two)),
        (fastseq.MaxPool2d(two, padding=np.int64(1))(x), nn.MaxPool2d(two, padding=1)(x)),
    ):  # fmt: skip
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    "options",
    [(2.0,), (True,), ("2",), (2, 1.5), (np.array([2, 2]),), (2, np.array([1, 1]))],
    ids=str,
)
def test_what_is_no_window_is_refused_in_native_words(options: Any) -> None:
    x = images(2, 6, 9, 8)
    with pytest.raises(TypeError) as theirs:
        native.max_pool2d(x, *options)
    with pytest.raises(TypeError) as ours:
        functional.max_pool2d(x, *options)
    assert str(ours.value) == str(theirs.value)


def layouts(shape: tuple[int, ...]) -> list[Tensor]:
    """A tensor in every order of its dimensions, dense and not, and repeated along each."""
    found = []
    for order in itertools.permutations(range(len(shape))):
        back = [order.index(d) for d in range(len(shape))]
        sizes = [shape[d] for d in order]
        found.append(torch.randn(sizes).permute(back))
        wider = torch.randn([size + 1 for size in sizes]).permute(back)
        found.append(wider[tuple(slice(size) for size in shape)])
    for d in range(len(shape)):
        thin = list(shape)
        thin[d] = 1
        found.append(torch.randn(thin).expand(shape))
    return found


def assert_exact_fake(op: Any, *arguments: Any) -> None:
    real = op(*arguments)
    with FakeTensorMode() as mode:
        fake = op(*(mode.from_tensor(a) if isinstance(a, Tensor) else a for a in arguments))
    pairs = zip(fake, real, strict=True) if isinstance(real, tuple) else [(fake, real)]
    for f, r in pairs:
        assert (f.shape, f.stride(), f.dtype) == (r.shape, r.stride(), r.dtype), op


POOL: Any = ((2, 1), (1, 2), (1, 0), (1, 1))
NORM = (3, 0.3, 0.75, 2.0)


@pytest.mark.parametrize(
    "shape", [(2, 3, 4, 5), (1, 3, 4, 4), (2, 1, 4, 1), (2, 3, 1, 1), (1, 1, 1, 1), (3, 4, 5)],
    ids=str,
)  # fmt: skip
def test_fakes_have_the_strides_of_the_kernels(shape: tuple[int, ...]) -> None:
    for i, x in enumerate(layouts(shape)):
        y, offsets = RAW.max_pool2d(x, *POOL, False, True)
        grads, grads_y = layouts(shape), layouts(tuple(y.shape))
        grad, grad_y = grads[(7 * i) % len(grads)], grads_y[(7 * i) % len(grads_y)]
        last = ops._common.channels_last(x)
        assert_exact_fake(RAW.local_response_norm, x, *NORM, False)
        assert_exact_fake(RAW.local_response_norm_backward, grad, x, *NORM, False)
        assert_exact_fake(RAW.max_pool2d, x, *POOL, False, True)
        image = (*shape[-2:], last)
        assert_exact_fake(RAW.max_pool2d_backward, grad_y, offsets, *image, *POOL)
        if x.dim() == 4:
            assert_exact_fake(RAW.local_response_norm, x, *NORM, True)
            assert_exact_fake(RAW.relu_lrn_max_pool2d, x, *NORM, *POOL, False, True)
            assert_exact_fake(RAW.relu_lrn_max_pool2d_backward, grad_y, offsets, x, *NORM, *POOL)


def test_fakes_of_volumes_have_the_strides_of_the_kernels() -> None:
    for i, x in enumerate(layouts((2, 3, 2, 4, 1))[::5]):
        grads = layouts((2, 3, 2, 4, 1))
        assert_exact_fake(RAW.local_response_norm, x, *NORM, False)
        assert_exact_fake(
            RAW.local_response_norm_backward, grads[(7 * i) % len(grads)], x, *NORM, False
        )
