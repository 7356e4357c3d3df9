"""Max-pooling against torch.nn: values, indices, ties, NaN, gradients, errors; OpInfo and ONNX."""

import itertools
from typing import Any

import pytest
import torch
from image_cases import DTYPES, FORMATS, SHAPES, gradient, images, onnx_cases, same_format
from torch import Tensor, nn
from torch.nn import functional as native

import fastseq
from fastseq import functional, ops, reference
from fastseq.functional.pool import window_of

pytestmark = pytest.mark.usefixtures("one_thread")
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_format = pytest.mark.parametrize("form", FORMATS)
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
KERNELS: list[Any] = [1, 2, 3, (3, 2), (5, 1), (1, 4)]
STRIDES: list[Any] = [1, 2, 3, (3, 2), (1, 2)]
PADDINGS: list[Any] = [0, 1, (1, 0), (0, 2)]


def tied(*shape: int, dtype: torch.dtype, form: str = "NCHW", seed: int = 0) -> Tensor:
    """Few distinct values, so that most windows have several maxima."""
    return images(*shape, dtype=dtype, form=form, seed=seed).round().clamp(-2, 2)


def check(x: Tensor, *window: Any, exact: bool = True) -> bool:
    """Compare values, indices and gradients; False where torch.nn refuses the window."""
    try:
        values, indices = native.max_pool2d(x, *window, return_indices=True)
    except RuntimeError:
        with pytest.raises(RuntimeError):
            functional.max_pool2d(x, *window)
        return False
    if not x.isinf().any() and values.isinf().any():
        return False  # a window without a pixel: torch.nn writes its gradient out of bounds
    got, places = functional.max_pool2d(x, *window, return_indices=True)
    torch.testing.assert_close(got, values, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(places, indices)
    torch.testing.assert_close(
        functional.max_pool2d(x, *window), got, rtol=0, atol=0, equal_nan=True
    )
    if x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last):
        assert same_format(got, values)
    _, _, mine = gradient(lambda t: functional.max_pool2d(t, *window), x)
    if x.dtype in (torch.bfloat16, torch.float16):  # torch.nn rounds after every addition
        _, _, theirs = gradient(lambda t: native.max_pool2d(t, *window), x.double())
        rounding = torch.finfo(x.dtype).eps
        torch.testing.assert_close(mine.double(), theirs, rtol=rounding, atol=4 * rounding)
    else:
        _, _, theirs = gradient(lambda t: native.max_pool2d(t, *window), x)
        same = torch.equal if exact else torch.allclose
        assert same(mine, theirs)
    if x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last):
        assert same_format(mine, x)
    return True


@each_shape
@each_format
@each_dtype
@pytest.mark.parametrize(
    "window", [(3, 2), (2, 2), (3, 1, 1), (3, 2, 1, 1, True), (5, 3, 2)], ids=str
)
def test_shapes(shape: Any, form: str, dtype: torch.dtype, window: Any) -> None:
    check(tied(*shape, dtype=dtype, form=form), *window)


@each_format
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("dilation", [1, 2, (1, 3)], ids=str)
def test_windows(form: str, ceil_mode: bool, dilation: Any) -> None:
    checked = 0
    for shape, kernel, stride, padding in itertools.product(
        [(2, 5, 11, 10), (1, 18, 8, 37)], KERNELS, STRIDES, PADDINGS
    ):
        x = tied(*shape, dtype=torch.float32, form=form)
        checked += check(x, kernel, stride, padding, dilation, ceil_mode)
    assert checked > 60


@each_format
@pytest.mark.parametrize("kernel", [(16, 16), (17, 16), (20, 13), (9, 40)], ids=str)
@pytest.mark.parametrize("stride", [1, 3, (2, 1)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
def test_windows_of_many_places(kernel: Any, stride: Any, form: str, dtype: torch.dtype) -> None:
    x = images(1, 3, 23, 43, dtype=dtype, form=form)
    # More additions than in the other tests, and torch.nn's order for channels_last is another.
    assert check(x, kernel, stride, exact=False)
    window = window_of(kernel, stride, 0, 1)
    assert window is not None
    wide = kernel[0] * kernel[1] > 256
    assert ops.max_pool2d(x, window, False, True).offsets.dtype == (
        torch.int32 if wide else torch.uint8
    )


@each_format
@each_dtype
def test_nan_and_infinities(form: str, dtype: torch.dtype) -> None:
    for fill in (torch.nan, -torch.inf, torch.inf):
        for seed, share in itertools.product(range(3), (0.02, 0.3, 1.0)):
            x = tied(2, 17, 9, 21, dtype=dtype, form=form, seed=seed)
            generator = torch.Generator().manual_seed(seed)
            x[torch.rand(x.shape, generator=generator) < share] = fill
            for window in ((3, 2), (3, 2, 1), (2, 1), (3, 3, 1, 2, True)):
                check(x, *window)
    x = tied(2, 17, 9, 21, dtype=dtype, form=form)
    x[..., ::3], x[..., 1::4], x[..., 2::5] = torch.nan, torch.inf, -torch.inf
    check(x, 3, 2)


def test_a_window_without_a_pixel_is_minus_infinity() -> None:
    x = torch.ones(1, 2, 1, 1, requires_grad=True)
    y = functional.max_pool2d(x, 2, 1, 1, 2)
    assert (y == -torch.inf).all()
    (grad,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    assert (grad == 0).all()


@each_format
@each_dtype
def test_unbatched_and_strided(form: str, dtype: torch.dtype) -> None:
    whole = tied(4, 12, 10, 14, dtype=dtype, form=form)
    for x in (whole[1], whole[::2, 1::2, 2:9, ::3], whole.flip(2).transpose(2, 3), whole[:, :1]):
        check(x, 3, 2)
    check(whole[:1].expand(3, -1, -1, -1), 3, 2)


def test_empty_batch() -> None:
    x = torch.zeros(0, 3, 8, 8, requires_grad=True)
    y, indices = functional.max_pool2d(x, 3, 2, return_indices=True)
    assert y.shape == indices.shape == (0, 3, 3, 3)
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape


@each_format
@pytest.mark.parametrize("window", [(3, 2), (2, 1, 1, 1, True), (3, 1, 1, 2)], ids=str)
def test_derivatives(form: str, window: Any) -> None:
    x = torch.randperm(2 * 3 * 6 * 5).double().view(2, 3, 6, 5)  # no ties
    x = x.contiguous(memory_format=FORMATS[form]).requires_grad_()

    def call(t: Tensor) -> Tensor:
        return functional.max_pool2d(t, *window)

    assert torch.autograd.gradcheck(call, x)
    assert torch.autograd.gradgradcheck(call, x)


@each_format
@each_dtype
def test_against_the_reference(form: str, dtype: torch.dtype) -> None:
    x = tied(2, 5, 9, 8, dtype=dtype, form=form)
    x[0, 0, :2], x[1, 2, 3:5] = torch.nan, -torch.inf
    for options in ((3, 2, 1, 1, True), (2, 2, 0, 1, False), (3, 2, 1, 2, False)):
        window = window_of(*options[:4])
        assert window is not None
        mine, theirs = (m.max_pool2d(x, window, options[4], True) for m in (ops, reference))
        torch.testing.assert_close(mine.y, theirs.y, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(mine.offsets, theirs.offsets)
        grad = images(*mine.y.shape, dtype=torch.float64).to(dtype)
        arguments = (mine.offsets, 9, 8, form == "NHWC", window)
        got = ops.max_pool2d_backward(grad, *arguments)
        expected = reference.max_pool2d_backward(grad.double(), *arguments)
        assert got.stride() == expected.stride()
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(got.double(), expected, rtol=eps, atol=4 * eps)


def test_module_is_a_drop_in() -> None:
    x = images(2, 3, 9, 8)
    for options in (
        {},
        {"stride": 2},
        {"padding": 1, "ceil_mode": True},
        {"dilation": 2, "stride": 1},
    ):
        ours, theirs = fastseq.MaxPool2d(3, **options), nn.MaxPool2d(3, **options)
        assert isinstance(ours, nn.MaxPool2d)
        assert repr(ours) == repr(theirs)
        assert torch.equal(ours(x), theirs(x))
    unpool = nn.MaxUnpool2d(3, 2)
    pooled = fastseq.MaxPool2d(3, 2, return_indices=True)(x)
    theirs = nn.MaxPool2d(3, 2, return_indices=True)(x)
    assert torch.equal(unpool(*pooled, (9, 8)), unpool(*theirs, (9, 8)))


@pytest.mark.parametrize(
    ("shape", "window"),
    [
        ((2, 3), (2,)),
        ((2, 3, 4, 5, 6), (2,)),
        ((2, 3, 4, 5), (0,)),
        ((2, 3, 4, 5), (2, 0)),
        ((2, 3, 4, 5), (2, 1, 2)),
        ((2, 3, 4, 5), (2, 1, -1)),
        ((2, 3, 4, 5), (2, 1, 0, 0)),
        ((2, 3, 4, 5), (6,)),
        ((2, 3, 0, 5), (2,)),
        ((2, 0, 4, 5), (2,)),
        ((2, 3, 4, 5), ((1, 2, 3),)),
        ((2, 3, 4, 5), (2, (1, 2, 3))),
        ((2, 3, 4, 5), (2, 1, (1, 2, 3))),
    ],
    ids=str,
)
@pytest.mark.parametrize("indices", [False, True])
def test_mistakes_in_native_words(shape: Any, window: Any, indices: bool) -> None:
    x = torch.ones(shape)
    with pytest.raises(Exception) as theirs:
        native.max_pool2d(x, *window, return_indices=indices)
    with pytest.raises(theirs.type) as ours:
        functional.max_pool2d(x, *window, return_indices=indices)
    assert str(ours.value) == str(theirs.value)


def test_integers_go_to_torch() -> None:
    x = torch.arange(64).view(1, 1, 8, 8)
    assert torch.equal(functional.max_pool2d(x, 3, 2), native.max_pool2d(x, 3, 2))


def test_raw_op_checks_its_arguments() -> None:
    window = window_of(3, 2, 0, 1)
    assert window is not None
    x = torch.zeros(2, 3, 9, 9)
    y, offsets = ops.max_pool2d(x, window, False, True)
    for grad, places, size in (
        (torch.zeros(2, 3, 9, 9), offsets, 9),
        (y, offsets.int(), 9),
        (y, offsets[:1], 9),
        (y, offsets, 0),
        (y[0, 0], offsets, 9),
    ):
        with pytest.raises(RuntimeError, match="fastseq"):
            ops.max_pool2d_backward(grad, places, size, 9, False, window)
    with pytest.raises(RuntimeError, match="pairs"):
        torch.ops.fastseq.max_pool2d(x, [3, 3, 3], [2, 2], [0, 0], [1, 1], False, True)
    with pytest.raises(RuntimeError, match="at most half"):
        torch.ops.fastseq.max_pool2d(x, [3, 3], [2, 2], [2, 2], [1, 1], False, True)


def test_opinfo_samples() -> None:
    from torch.testing._internal.common_methods_invocations import op_db

    (info,) = (op for op in op_db if op.name == "nn.functional.max_pool2d")
    count = 0
    for dtype in DTYPES:
        for sample in info.sample_inputs("cpu", dtype, requires_grad=True):
            got = functional.max_pool2d(sample.input, *sample.args, **sample.kwargs)
            expected = info.op(sample.input, *sample.args, **sample.kwargs)
            pairs = zip(got, expected, strict=True) if isinstance(got, tuple) else [(got, expected)]
            for mine, theirs in pairs:
                assert torch.equal(mine, theirs)
            count += 1
    assert count >= 40


def test_onnx_node_cases() -> None:
    checked = 0
    for case in onnx_cases("MaxPool"):
        node = case.model.graph.node[0]
        attributes = {a.name: a.i or list(a.ints) or a.s.decode() for a in node.attribute}
        kernel = attributes["kernel_shape"]
        pads = attributes.get("pads", [0, 0, 0, 0])
        same = str(attributes.get("auto_pad", "NOTSET")).startswith("SAME")
        inputs, outputs = case.data_sets[0]
        x = torch.from_numpy(inputs[0].copy())
        if len(kernel) != 2 or not x.is_floating_point() or attributes.get("storage_order"):
            continue
        stride = attributes.get("strides", [1, 1])
        dilation = attributes.get("dilations", [1, 1])
        if (
            same
            or pads[:2] != pads[2:]
            or any(p > k // 2 for p, k in zip(pads, kernel, strict=False))
        ):
            continue  # torch's padding is symmetric and at most half the window
        ceil = bool(attributes.get("ceil_mode", 0))
        got = functional.max_pool2d(x, kernel, stride, pads[:2], dilation, ceil, len(outputs) > 1)
        y = got[0] if isinstance(got, tuple) else got
        expected = torch.from_numpy(outputs[0].copy())
        if y.shape != expected.shape:
            continue  # torch drops a last window that starts in the right padding
        assert torch.equal(y, expected), case.name
        checked += 1
    assert checked >= 5


def test_second_derivatives_where_a_window_has_no_pixel() -> None:
    """A window of which no pixel lies in the image takes no value and no gradient, at any order."""
    x = torch.arange(1.0, 3.0, dtype=torch.float64).view(1, 2, 1, 1).requires_grad_()
    y = functional.max_pool2d(x, 2, 1, 1, 2)
    grad_y = torch.ones_like(y).requires_grad_()
    (grad,) = torch.autograd.grad(y, x, grad_y, create_graph=True)
    (again,) = torch.autograd.grad(grad, grad_y, torch.ones_like(grad))
    assert not again.any()


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("stride", [None, 1, 2, 3])
def test_sizes_of_outputs(stride: int | None, ceil_mode: bool) -> None:
    """As torch.nn has them, for tensors and for traces, and where no stride is given."""
    for size, kernel, padding, dilation in itertools.product(
        range(4, 9), (1, 2, 3), (0, 1), (1, 2)
    ):
        if 2 * padding > kernel or dilation * (kernel - 1) >= size:
            continue
        x = images(1, 2, size, size + 1)
        options = (kernel, stride, padding, dilation, ceil_mode)
        expected = native.max_pool2d(x, *options)
        assert torch.equal(functional.max_pool2d(x, *options), expected)
        assert functional.max_pool2d(x.to("meta"), *options).shape == expected.shape
