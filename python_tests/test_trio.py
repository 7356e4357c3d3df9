"""ReLU -> LRN -> max-pool in one pass against the three ops in a row, ours and torch.nn's."""

import re
from typing import Any

import pytest
import torch
from image_cases import DTYPES, FORMATS, SHAPES, assert_near, gradient, images, same_format
from torch import Tensor, nn
from torch.nn import functional as native

import fastseq
from fastseq import functional, ops, reference
from fastseq.functional.pool import window_of

pytestmark = pytest.mark.usefixtures("one_thread")
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_format = pytest.mark.parametrize("form", FORMATS)
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
NORMS = [
    (5, 0.3, 0.75, 2.0),
    (3, 0.3, 0.75, 1.0),
    (4, 0.9, 0.5, 1.0),
    (5, 0.2, 1.0, 1.0),
    (19, 1.0, 0.6, 0.5),
]
WINDOWS: list[Any] = [
    (3, 2),
    (2, 2),
    (3, 1, 1),
    (3, 2, 1, 1, True),
    (2, 1, 0, 2),
    ((3, 2), (1, 2)),
    (1, 3),
    ((17, 16), 1),
]


def in_a_row(library: Any, x: Tensor, norm: Any, window: Any) -> Tensor:
    y: Tensor = library.max_pool2d(library.local_response_norm(x.relu(), *norm), *window)
    return y


def trio(x: Tensor, norm: Any, window: Any) -> Tensor:
    kernel, stride, *rest = window
    return functional.relu_lrn_max_pool2d(x, *norm, kernel, stride, *rest)


@each_shape
@each_format
@each_dtype
@pytest.mark.parametrize("window", WINDOWS[:4], ids=str)
@pytest.mark.parametrize("norm", NORMS[:2], ids=str)
def test_bit_by_bit_our_ops_in_a_row(
    shape: Any, form: str, dtype: torch.dtype, window: Any, norm: Any
) -> None:
    x = images(*shape, dtype=dtype, form=form)
    compare(x, norm, window)


@each_format
@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("norm", NORMS, ids=str)
def test_bit_by_bit_every_parameter(form: str, dtype: torch.dtype, window: Any, norm: Any) -> None:
    compare(images(2, 18, 19, 21, dtype=dtype, form=form), norm, window)


def compare(x: Tensor, norm: Any, window: Any) -> None:
    mistake = ""
    try:
        expected, _, expected_grad = gradient(lambda t: in_a_row(functional, t, norm, window), x)
    except RuntimeError as error:
        mistake = str(error)
    if mistake:
        with pytest.raises(RuntimeError, match=re.escape(mistake)):
            trio(x, norm, window)
        return
    got, _, got_grad = gradient(lambda t: trio(t, norm, window), x)
    assert torch.equal(got, expected)
    assert torch.equal(got_grad, expected_grad)
    assert same_format(got, expected)
    assert same_format(got_grad, x)
    with torch.no_grad():
        assert torch.equal(trio(x, norm, window), expected)


@each_shape
@each_format
@pytest.mark.parametrize("norm", NORMS, ids=str)
def test_the_native_ops_in_a_row(shape: Any, form: str, norm: Any) -> None:
    # In float64, where rounding cannot choose another maximum.
    x = images(*shape, dtype=torch.float64, form=form)
    for window in WINDOWS[2:4]:
        expected, _, expected_grad = gradient(lambda t, w=window: in_a_row(native, t, norm, w), x)
        got, _, got_grad = gradient(lambda t, w=window: trio(t, norm, w), x)
        assert_near(got, expected, torch.float64)
        assert_near(got_grad, expected_grad, torch.float64, factor=4)


@each_dtype
def test_against_the_reference(dtype: torch.dtype) -> None:
    x = images(2, 9, 9, 8, dtype=dtype)
    window = window_of(3, 2, 1, 1)
    assert window is not None
    norm = (5, 0.3, 0.75, 2.0)
    got = ops.relu_lrn_max_pool2d(x, *norm, window, True, True)
    expected = reference.relu_lrn_max_pool2d(x.double(), *norm, window, True)
    assert_near(got.y, expected.y, dtype)
    if dtype in (torch.float32, torch.float64):
        assert torch.equal(got.offsets, expected.offsets)
    grad = images(*got.y.shape, seed=3, dtype=dtype)
    mine = ops.relu_lrn_max_pool2d_backward(grad, got.offsets, x, *norm, window)
    theirs = reference.relu_lrn_max_pool2d_backward(
        grad.double(), got.offsets, x.double(), *norm, window
    )
    assert_near(mine, theirs, dtype, factor=8)


@each_format
def test_nan_passes_as_through_torch(form: str) -> None:
    x = images(2, 17, 9, 11, dtype=torch.float64, form=form)
    x[0, 3, 2:5, 1::3], x[1, :, 0, 0] = torch.nan, -torch.inf
    expected, _, expected_grad = gradient(lambda t: in_a_row(native, t, NORMS[0], (3, 2)), x)
    got, _, got_grad = gradient(lambda t: trio(t, NORMS[0], (3, 2)), x)
    torch.testing.assert_close(got, expected, equal_nan=True)
    torch.testing.assert_close(got_grad, expected_grad, equal_nan=True)


@each_format
def test_derivatives(form: str) -> None:
    x = images(2, 6, 5, 7, dtype=torch.float64, form=form).requires_grad_()
    for norm, window in ((NORMS[0], (3, 2)), (NORMS[2], (2, 1, 1))):
        assert torch.autograd.gradcheck(lambda t, n=norm, w=window: trio(t, n, w), x)
        assert torch.autograd.gradgradcheck(lambda t, n=norm, w=window: trio(t, n, w), x)


def test_any_strides() -> None:
    whole = images(4, 12, 20, 14, form="NHWC")
    for x in (
        whole[::2, 1::2, 2:9, ::3],
        whole.flip(2).transpose(2, 3),
        whole[:1].expand(3, -1, -1, -1),
    ):
        got, _, got_grad = gradient(lambda t: trio(t, NORMS[0], (3, 1)), x)
        expected, _, grad = gradient(lambda t: trio(t, NORMS[0], (3, 1)), x.contiguous())
        assert torch.equal(got, expected)
        assert torch.equal(got_grad, grad)


def test_empty_batch_and_module() -> None:
    module = fastseq.ReLULRNMaxPool2d(k=2.0)
    x = torch.zeros(0, 3, 8, 8, requires_grad=True)
    y = module(x)
    y.sum().backward()
    assert y.shape == (0, 3, 3, 3)
    three = nn.Sequential(nn.ReLU(), nn.LocalResponseNorm(5, k=2.0), nn.MaxPool2d(3, 2))
    x = images(2, 8, 13, 13)
    torch.testing.assert_close(module(x), three(x))
    assert "kernel_size=3, stride=2" in repr(module)
    assert fastseq.ReLULRNMaxPool2d(kernel_size=3, stride=None)(x).shape == (2, 8, 4, 4)


def test_mistakes_are_those_of_the_op_they_belong_to() -> None:
    for shape, options in (
        ((3, 4), {}),
        ((2, 3, 2, 2), {}),
        ((2, 3, 8, 8), {"size": 0}),
        ((2, 3, 8, 8), {"padding": 2}),
        ((2, 3, 8, 8), {"kernel_size": (1, 2, 3)}),
    ):
        x = torch.ones(shape)
        with pytest.raises((RuntimeError, ValueError)) as ours:
            functional.relu_lrn_max_pool2d(x, **options)

        def one_by_one(x: Tensor = x, options: dict[str, Any] = options) -> Tensor:
            lrn = native.local_response_norm(x, options.get("size", 5))
            pool = (options.get("kernel_size", 3), 2, options.get("padding", 0))
            return native.max_pool2d(lrn, *pool)

        with pytest.raises(type(ours.value)) as theirs:
            one_by_one()
        assert str(ours.value) == str(theirs.value)


@each_format
def test_betas_beside_the_quick_one(form: str) -> None:
    for dtype, apart in ((torch.float32, 1e-3), (torch.float64, 1e-9)):
        for beta in (0.75 - apart, 0.75 + apart):
            compare(images(2, 9, 8, 7, dtype=dtype, form=form), (5, 9.0, beta, 1.0), (3, 2))
