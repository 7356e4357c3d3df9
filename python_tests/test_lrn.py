"""Local response normalization against torch.nn, the formula, OpInfo and ONNX."""

from typing import Any

import pytest
import torch
from image_cases import (
    DTYPES,
    FORMATS,
    SHAPES,
    assert_near,
    gradient,
    images,
    onnx_cases,
    same_format,
)
from torch import Tensor, nn
from torch.nn import functional as native

import fastseq
from fastseq import functional, ops, reference

pytestmark = pytest.mark.usefixtures("one_thread")
BETAS = [0.75, 0.5, 1.0, 0.6, 2.0]
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_format = pytest.mark.parametrize("form", FORMATS)
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
each_beta = pytest.mark.parametrize("beta", BETAS)
each_kind = pytest.mark.parametrize("within", [False, True], ids=["across", "within"])


def exact(x: Tensor, grad: Tensor, *parameters: Any) -> tuple[Tensor, Tensor]:
    """Output and gradient in float64; across channels by torch.nn, within by the formula."""
    leaf = x.detach().double().requires_grad_()
    size, alpha, beta, k, within = parameters
    if within:
        margins = (size // 2, (size - 1) // 2) * 2
        mean = native.avg_pool2d(native.pad(leaf * leaf, margins), size, 1)
        y = leaf / (k + alpha * mean) ** beta
    else:
        y = native.local_response_norm(leaf, size, alpha, beta, k)
    (grad_x,) = torch.autograd.grad(y, leaf, grad.double())
    return y.detach(), grad_x


def check(x: Tensor, *parameters: Any) -> None:
    y, grad, grad_x = gradient(lambda t: functional.local_response_norm(t, *parameters), x)
    exact_y, exact_grad = exact(x, grad, *parameters)
    assert_near(y, exact_y, x.dtype)
    assert_near(grad_x, exact_grad, x.dtype, factor=4)
    with torch.no_grad():
        assert torch.equal(functional.local_response_norm(x, *parameters), y)
    if x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last):
        assert same_format(y, x)
        assert same_format(grad_x, x)


@each_kind
@each_shape
@each_format
@each_dtype
def test_shapes(shape: Any, form: str, dtype: torch.dtype, within: bool) -> None:
    check(images(*shape, dtype=dtype, form=form), 5, 0.3, 0.75, 2.0, within)


@each_kind
@each_format
@each_beta
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 9, 17, 40])
def test_windows(size: int, beta: float, form: str, within: bool) -> None:
    check(images(2, 18, 7, 11, form=form), size, 0.7, beta, 1.0, within)


@each_kind
@each_beta
@each_dtype
def test_powers(beta: float, dtype: torch.dtype, within: bool) -> None:
    # From 2^-60 to 2^60 in the wide types: the roots and logarithms at every exponent.
    reach = 4 if dtype == torch.float16 else 60 / max(1, beta)  # or the result would underflow
    scales = torch.logspace(-reach, reach, 240, base=2, dtype=torch.float64)
    x = images(1, 240, 2, 3, dtype=torch.float64) * scales[:, None, None]
    y = functional.local_response_norm(x.to(dtype), 1, 1.0, beta, 1.0, within)
    rounded = x.to(dtype)
    assert_near_relatively(y, exact(rounded, rounded, 1, 1.0, beta, 1.0, within)[0], dtype)


def assert_near_relatively(actual: Tensor, exact: Tensor, dtype: torch.dtype) -> None:
    bound = {torch.float32: 4e-7, torch.float64: 1e-14}.get(dtype, torch.finfo(dtype).eps)
    tiny = torch.finfo(dtype).tiny
    torch.testing.assert_close(actual.double(), exact, rtol=bound, atol=4 * tiny)


@each_format
@pytest.mark.parametrize("shape", [(2, 7, 5), (2, 7, 3, 4, 5), (1, 20, 2, 1, 3)], ids=str)
@each_dtype
def test_sequences_and_volumes(shape: Any, form: str, dtype: torch.dtype) -> None:
    x = images(*shape, dtype=dtype)
    if form == "NHWC":
        if x.dim() != 5:
            x = x.transpose(1, 2).contiguous().transpose(1, 2)  # strided: copied
        else:
            x = x.contiguous(memory_format=torch.channels_last_3d)
    y, grad, grad_x = gradient(lambda t: functional.local_response_norm(t, 3, 0.5, 0.75, 1.0), x)
    exact_y, exact_grad = exact(x, grad, 3, 0.5, 0.75, 1.0, False)
    assert_near(y, exact_y, dtype)
    assert_near(grad_x, exact_grad, dtype, factor=4)
    if x.dim() == 5:
        assert same_format(y, x)


@each_kind
@each_format
def test_any_strides(form: str, within: bool) -> None:
    whole = images(4, 12, 10, 14, form=form)
    for x in (
        whole[::2, 1::2, 2:9, ::3],
        whole.flip(2).transpose(2, 3),
        whole[:1].expand(3, -1, -1, -1),
        whole.permute(3, 1, 0, 2),
    ):
        check(x, 5, 0.3, 0.75, 1.0, within)


@each_kind
def test_empty(within: bool) -> None:
    for shape in ((0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 0, 5)):
        x = torch.zeros(shape, requires_grad=True)
        y = functional.local_response_norm(x, 5, within_channel=within)
        assert y.shape == x.shape
        y.sum().backward()
        assert x.grad is not None


@each_format
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@each_beta
@pytest.mark.parametrize("k", [0.0, 1.0, -1.0])
def test_special_numbers(form: str, dtype: torch.dtype, beta: float, k: float) -> None:
    big = torch.finfo(dtype).max
    row = [0.0, -0.0, 1.0, torch.inf, -torch.inf, torch.nan, big, -big, 2.0, 0.0, 0.0, 0.0]
    x = torch.tensor(row * 12, dtype=dtype).view(2, 12, 2, 3)
    x = x.contiguous(memory_format=FORMATS[form])
    got = functional.local_response_norm(x, 3, 1.0, beta, k)
    expected = native.local_response_norm(x, 3, 1.0, beta, k)
    torch.testing.assert_close(got, expected, equal_nan=True, rtol=1e-5, atol=1e-30)


@each_kind
@each_format
def test_layouts_agree_bit_by_bit(form: str, within: bool) -> None:
    x = images(2, 37, 9, 13)
    one, _, grad_one = gradient(
        lambda t: functional.local_response_norm(t, 5, 0.3, 0.75, 1.0, within), x
    )
    other = x.contiguous(memory_format=torch.channels_last)
    two, _, grad_two = gradient(
        lambda t: functional.local_response_norm(t, 5, 0.3, 0.75, 1.0, within), other
    )
    assert torch.equal(one, two)
    assert torch.equal(grad_one, grad_two)


@each_kind
@each_dtype
def test_against_the_reference(dtype: torch.dtype, within: bool) -> None:
    x, grad = images(2, 9, 6, 7, dtype=dtype), images(2, 9, 6, 7, dtype=dtype, seed=4)
    parameters = (4, 0.4, 0.75, 1.5, within)
    wide = reference.local_response_norm(x.double(), *parameters)
    assert_near(ops.local_response_norm(x, *parameters), wide, dtype)
    wide = reference.local_response_norm_backward(grad.double(), x.double(), *parameters)
    assert_near(ops.local_response_norm_backward(grad, x, *parameters), wide, dtype, factor=4)


@each_kind
@each_format
@pytest.mark.parametrize("size", [1, 4, 5])
def test_derivatives(form: str, size: int, within: bool) -> None:
    x = images(2, 6, 3, 4, dtype=torch.float64, form=form, scale=1.0).requires_grad_()

    def call(t: Tensor) -> Tensor:
        return functional.local_response_norm(t, size, 0.9, 0.75, 1.0, within)

    assert torch.autograd.gradcheck(call, x)
    assert torch.autograd.gradgradcheck(call, x)


def test_error_is_of_the_size_of_the_native_ops() -> None:
    # Below 1.5 times under AVX2 and AVX-512; the baseline has no fused multiply-add.
    for form in FORMATS:
        x = images(4, 96, 27, 27, form=form, scale=3.0)
        y, grad, grad_x = gradient(lambda t: functional.local_response_norm(t, 5, 1e-1), x)
        its, _, its_grad = gradient(lambda t: native.local_response_norm(t, 5, 1e-1), x)
        exact_y, exact_grad = exact(x, grad, 5, 1e-1, 0.75, 1.0, False)
        for mine, theirs, true in ((y, its, exact_y), (grad_x, its_grad, exact_grad)):
            assert (mine - true).norm() <= 1.8 * (theirs - true).norm()


def test_module_is_a_drop_in() -> None:
    x = images(2, 6, 5, 4)
    for arguments in ((5,), (3, 1e-2), (4, 1e-2, 0.6, 2.0)):
        ours, theirs = fastseq.LocalResponseNorm(*arguments), nn.LocalResponseNorm(*arguments)
        assert isinstance(ours, nn.LocalResponseNorm)
        assert repr(ours) == repr(theirs)
        torch.testing.assert_close(ours(x), theirs(x))
    assert "within_channel=True" in repr(fastseq.LocalResponseNorm(3, within_channel=True))


@pytest.mark.parametrize(
    ("shape", "size", "dtype"),
    [((3, 4), 5, torch.float32), ((3,), 5, torch.float32), ((2, 3, 4), 0, torch.float32),
     ((2, 3, 4, 5), -1, torch.float32),
     ((2, 3, 4, 5), 3, torch.complex64)],
    ids=str,
)  # fmt: skip
def test_mistakes_in_native_words(shape: Any, size: int, dtype: torch.dtype) -> None:
    x = torch.ones(shape).to(dtype)
    with pytest.raises(Exception) as theirs:
        native.local_response_norm(x, size)
    with pytest.raises(theirs.type) as ours:
        functional.local_response_norm(x, size)
    assert str(ours.value) == str(theirs.value)


def test_integers_go_to_torch() -> None:
    x = torch.arange(120).view(2, 3, 4, 5)
    got = functional.local_response_norm(x, 3, 1.0)
    assert torch.equal(got, native.local_response_norm(x, 3, 1.0))


def test_mistakes_in_our_words() -> None:
    with pytest.raises(
        ValueError, match=r"takes an input of shape \(N, C, H, W\), and this one has 3"
    ):
        functional.local_response_norm(torch.zeros(2, 3, 4), 3, within_channel=True)
    with pytest.raises(RuntimeError, match="size above 0, got 0"):
        functional.local_response_norm(torch.zeros(2, 3, 4, 5), 0, within_channel=True)
    with pytest.raises(RuntimeError, match="float32, float64, bfloat16 or float16"):
        functional.local_response_norm(torch.ones(2, 3, 4, 5).long(), 3, within_channel=True)


def test_opinfo_samples() -> None:
    from torch.testing._internal.common_methods_invocations import op_db

    (info,) = (op for op in op_db if op.name == "nn.functional.local_response_norm")
    count = 0
    for dtype in DTYPES:
        for sample in info.sample_inputs("cpu", dtype, requires_grad=True):
            got = functional.local_response_norm(sample.input, *sample.args, **sample.kwargs)
            wide = sample.input.detach().double()
            assert_near(got.detach(), info.op(wide, *sample.args, **sample.kwargs), dtype)
            got.sum().backward()
            count += 1
    assert count >= 40


def test_onnx_node_cases() -> None:
    found = onnx_cases("LRN")
    assert found
    for case in found:
        attributes = {a.name: a.f or a.i for a in case.model.graph.node[0].attribute}
        assert attributes["size"] % 2  # for an even size ONNX's window is longer to the right
        (x,), (expected,) = case.data_sets[0]
        got = functional.local_response_norm(
            torch.from_numpy(x.copy()),
            attributes["size"],
            attributes.get("alpha", 1e-4),
            attributes.get("beta", 0.75),
            attributes.get("bias", 1.0),
        )
        torch.testing.assert_close(got, torch.from_numpy(expected.copy()))


@each_kind
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("near", [0.5, 0.75, 1.0])
def test_betas_beside_the_quick_ones(near: float, size: int, within: bool) -> None:
    """Roots are for their own betas alone, however near another one is."""
    for dtype, apart in ((torch.float32, 1e-3), (torch.float64, 1e-9)):
        for beta in (near - apart, near + apart):
            for form in FORMATS:
                check(images(2, 9, 7, 5, dtype=dtype, form=form), size, 9.0, beta, 1.0, within)


@each_kind
@each_format
@pytest.mark.parametrize("channels", [1, 5, 9, 17])
def test_without_a_constant(channels: int, form: str, within: bool) -> None:
    """With k = 0 what lies beside the image must not be divided by, though a zero is next to it."""
    for dtype in DTYPES[:2]:
        x = images(2, channels, 5, 7, dtype=dtype, form=form)
        x += x.sign()
        check(x, 3, 0.5, 0.75, 0.0, within)
        if within or channels > 1:
            x[:, -1, -1, -1] = 0
            check(x, 3, 0.5, 0.75, 0.0, within)


@each_kind
def test_module_is_the_function(within: bool) -> None:
    x = images(2, 9, 7, 5)
    module = fastseq.LocalResponseNorm(3, 0.5, 0.6, 2.0, within)
    assert torch.equal(module(x), functional.local_response_norm(x, 3, 0.5, 0.6, 2.0, within))
    other = fastseq.LocalResponseNorm(3, 0.5, 0.6, 2.0, not within)
    assert not torch.allclose(module(x), other(x))
