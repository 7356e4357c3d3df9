"""Bad and odd inputs of LRN, max-pooling and the trio, for ``bad_inputs``."""

from collections.abc import Callable
from math import inf, nan
from typing import Any

import numpy as np
import torch
from bad_inputs import REFUSED, case, negative, plain, quantised
from recurrence_cases import numbers
from torch import Tensor

OPS = ("lrn", "pool", "trio")
SIZES = {"lrn": (5,), "pool": (3, 2), "trio": (5,)}
X = numbers(2, 3, 9, 9)


def whole(x: Any) -> Callable[[Any, str], Any]:
    """An op on an input."""
    return lambda library, op: getattr(library, op)(x, *SIZES[op])


def slope(x: Tensor) -> Callable[[Any, str], Any]:
    """The gradient of an op's input."""

    def call(library: Any, op: str) -> Any:
        leaf = x.detach().requires_grad_()
        y = getattr(library, op)(leaf, *SIZES[op])
        return torch.autograd.grad(y, leaf, numbers(*y.shape, seed=3, dtype=y.dtype))

    return call


def inputs() -> None:
    """What is given as the input."""

    def both(name: str, x: Tensor, kinds: Any = OPS) -> None:
        case(f"{name} into an image op", kinds, whole(x))
        case(f"gradient of {name} into an image op", kinds, slope(x))

    words = r"Expected 3D or higher dimensionality +input \(got {} dimensions\)"
    for d in (0, 1, 2):
        image = torch.zeros((3,) * d)
        case(f"{d} dimensions of LRN", ("lrn", "trio"), whole(image), ValueError, words.format(d))
        pool = r"non-empty 3D or 4D \(batch mode\) tensor expected for input"
        case(f"{d} dimensions of a pool", "pool", whole(image), RuntimeError, pool)
    pool = r"non-empty 3D or 4D \(batch mode\) tensor expected for input"
    case("5 dimensions of a pool", "pool", whole(X[None]), RuntimeError, pool)
    case("3 dimensions", OPS, whole(X[0]))
    case(
        "5 and 6 dimensions of LRN",
        "lrn",
        lambda lib, op: (lib.lrn(X[None], 5), lib.lrn(X[None, None], 5)),
    )
    case("no images", OPS, whole(X[:0]))
    case("no pixels of LRN", "lrn", whole(X[:, :, :0]))
    for name, image in (("channels", X[:, :0]), ("rows", X[:, :, :0]), ("columns", X[..., :0])):
        empty = r"Expected 3D or 4D \(batch mode\) tensor with optional 0 dim batch size|non-empty"
        case(f"no {name} of a pool", "pool", whole(image), RuntimeError, empty)
    both("pixels repeated by strides of 0", X[:1, :1].expand(2, 3, 9, 9))
    both("one number repeated", X[:1, :1, :1, :1].expand(2, 3, 9, 9))
    both("images that overlap", numbers(60).as_strided((2, 3, 9, 9), (1, 1, 1, 1)))
    both("negated memory", negative(2, 3, 9, 9))
    for value in (nan, inf, -inf, 1e-40, -0.0, 2e19):
        both(f"all {value}", torch.full((2, 3, 9, 9), value))
    # Of the largest numbers no gradient: 0 * inf or 0, by the order of the products.
    case("all 3.4e38 into an image op", OPS, whole(torch.full((2, 3, 9, 9), 3.4e38)))
    mixed = X.clone()
    mixed[0, 1, 4, 4], mixed[1, 0, 0, 0], mixed[1, 2, 8, 8] = nan, inf, -inf
    both("some of NaN and infinities", mixed)
    for dtype in (torch.int64, torch.uint8):
        case(f"{dtype} of a pool", "pool", whole((9 * X).abs().to(dtype)))
    case("LRN of integers", ("lrn", "trio"), whole(X.long()))
    short = "\"avg_pool3d_out_frame\" not implemented for 'Byte'"
    case("LRN of bytes", ("lrn", "trio"), whole(X.byte()), NotImplementedError, short)
    case("booleans", "pool", whole(X > 0), NotImplementedError, "not implemented for 'Bool'")
    case(
        "complex numbers", OPS, whole(X.cfloat()), NotImplementedError, "not implemented|relu|clamp"
    )
    case("a quantised image", "pool", lambda lib, op: lib.pool(quantised(X), 3, 2).int_repr())
    case("a sparse image", OPS, whole(X.to_sparse()), NotImplementedError, REFUSED, "kin")
    case("a layout of oneDNN's", OPS, whole(X.to_mkldnn()), NotImplementedError, REFUSED, "own")
    for name, bad in (("a list of lists", [[1.0]]), ("nothing", None), ("an array", X.numpy())):
        words = "argument 'input' \\(position 1\\) must be Tensor, not "
        case(f"{name} into a pool", ("pool", "trio"), whole(bad), TypeError, words)
    case("a list into LRN", "lrn", whole([1.0]), AttributeError, "'list' object has no", "kin")
    case("an image on meta", OPS, whole(X.to("meta")))


def windows_of_lrn() -> None:
    """Numbers of the normalization."""

    def of(size: Any, **options: Any) -> Callable[[Any, str], Any]:
        return lambda library, op: getattr(library, op)(X, size, **options)

    both = ("lrn", "trio")
    for size in (0, -1):
        case(
            f"size {size}",
            both,
            of(size),
            RuntimeError,
            "kernel size should be|negative|stride|pad",
        )
    case("size 2.0", both, of(2.0), TypeError, "must be|pad")
    case("size '5'", both, of("5"), TypeError, "unsupported operand|not supported")
    case("size None", both, of(None), TypeError, "unsupported operand|not supported")
    case("a window of more channels than there are", both, of(101))
    case("a window of 40,000 channels", both, of(40_000))
    case("size 2^31", both, of(2**31), RuntimeError, "can't allocate memory")
    case("size 2^62", both, of(2**62), RuntimeError, "Storage size calculation overflowed")
    case("size 2^64", both, of(2**64), TypeError, "Overflow when unpacking long")
    for name in ("alpha", "beta", "k"):
        for value in (nan, inf, -1.0, 0.0, 1e300, True, np.float32(0.5)):
            case(f"{name} {value!r}", both, of(5, **{name: value}))
        for value in ("1", None):
            case(
                f"{name} {value!r}", both, of(5, **{name: value}), TypeError, "must be|invalid comb"
            )
    case("alpha 1j", "lrn", of(5, alpha=1j))

    def within(x: Any, size: Any, **options: Any) -> Callable[[Any, str], Any]:
        return lambda library, _: library.lrn(x, size, within_channel=True, **options)

    for size, words in ((0, "needs a size above 0"), (2**62, "takes a size of at most 32768")):
        words += f", got {size}"
        case(f"within a channel, size {size}", "", within(X, size), RuntimeError, words, "own")
    bad = within(X, 2.5)
    case("within a channel, size 2.5", "", bad, TypeError, "size should be an int, got 2.5", "own")
    words = "alpha, beta and k should be numbers, got '1'"
    case("within a channel, alpha '1'", "", within(X, 3, alpha="1"), TypeError, words, "own")
    words = r"takes an input of shape \(N, C, H, W\), and this one has 3 dimensions"
    case("within a channel, 3 dimensions", "", within(X[0], 3), ValueError, words, "own")
    words = "expected a tensor of float32, float64, bfloat16 or float16"
    case("within a channel, integers", "", within(X.long(), 3), RuntimeError, words, "own")


WINDOWS: dict[str, tuple[tuple[Any, ...], type[BaseException] | None, str]] = {
    "kernel 0": ((0,), RuntimeError, "stride should not be zero|kernel size should"),
    "kernel -1": ((-1,), RuntimeError, "kernel size should be greater than zero"),
    "kernel 2.0": ((2.0,), TypeError, "must be tuple of ints"),
    "kernel '2'": (("2",), TypeError, "must be tuple of ints"),
    "kernel None": ((None,), TypeError, "must be tuple of ints"),
    "kernel ()": (
        ((),),
        RuntimeError,
        "kernel_size must either be a single int, or a tuple of two",
    ),
    "three sides": (((3, 3, 3),), RuntimeError, "kernel_size must either be a single int, or"),
    "a tensor": ((torch.tensor([2, 2]), 1), TypeError, "must be tuple of ints"),
    "kernel beyond the image": ((10,), RuntimeError, "Output size is too small"),
    "kernel 2^31": ((2**31,), RuntimeError, "cannot be converted to type int without overflow"),
    "kernel 2^62": ((2**62,), RuntimeError, "cannot be converted to type int without overflow"),
    "stride 0": ((3, 0), RuntimeError, "stride should"),
    "stride -1": ((3, -1), RuntimeError, "stride should be greater than zero|not be zero"),
    "stride (1, 0)": ((3, (1, 0)), RuntimeError, "stride should"),
    "stride ()": ((3, ()), None, ""),
    "stride 2^20": ((3, 2**20), None, ""),
    "stride 2^31": ((3, 2**31), RuntimeError, "cannot be converted to type int without overflow"),
    "stride 2^62": ((3, 2**62), RuntimeError, "cannot be converted to type int without overflow"),
    "stride 2^64": ((3, 2**64), ValueError, "Overflow when unpacking long"),
    "padding 2 of 3": ((3, 2, 2), RuntimeError, "pad should be at most half of"),
    "padding -1": ((3, 2, -1), RuntimeError, "pad must be non-negative"),
    "padding 2^62": ((3, 2, 2**62), RuntimeError, "cannot be converted to type int|pad should be"),
    "dilation 0": ((3, 2, 0, 0), RuntimeError, "dilation should be greater than zero"),
    "dilation -1": ((3, 2, 0, -1), RuntimeError, "dilation should be greater than zero"),
    "dilation beyond the image": ((3, 2, 0, 9), RuntimeError, "Output size is too small"),
    "dilation 2^62": ((1, 1, 0, 2**62), RuntimeError, "cannot be converted to type int"),
    "ceil_mode 'yes'": ((3, 2, 1, 1, "yes"), TypeError, "'ceil_mode' .* must be bool, not str"),
    "ceil_mode 1": ((3, 2, 1, 1, 1), TypeError, "'ceil_mode' .* must be bool, not int"),
    "ceil_mode None": ((3, 2, 1, 1, None), TypeError, "'ceil_mode' .* must be bool, not NoneType"),
    "padding as wide as the image": ((21, 1, 10), None, ""),
    "one pixel in the last window": ((2, 9, 1, 1, True), None, ""),
}


def windows_of_pools() -> None:
    """Windows of pooling, alone and in the trio."""
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")

    def pooled(window: tuple[Any, ...]) -> Callable[[Any, str], Any]:
        def call(library: Any, op: str) -> Any:
            options = dict(zip(names, window, strict=False))
            if op == "trio":
                return library.trio(X, 3, **{"stride": None, **options})
            return library.pool(X, **options)

        return call

    for name, (window, raises, words) in WINDOWS.items():
        case(name, ("pool", "trio"), pooled(window), raises, words)

    def module(library: Any, _: str) -> Any:
        return library.nn.MaxPool2d(3, 2, return_indices="yes")(X)

    case("return_indices 'yes'", "", module)

    def wide(library: Any, _: str) -> Any:
        x = X.clone().requires_grad_()
        y = library.pool(x, 65536, 5, 32768)  # places in the window are beyond 2^31
        return y, torch.autograd.grad(y.sin().sum(), x)

    case("gradient of a window of 2^32 pixels", "", wide)


def raw_ops() -> None:
    """The ops themselves, with numbers that overflow, and tensors on two devices."""
    raw = torch.ops.fastseq
    one, far = (1, 1), (2**62, 2**62)
    norm, meta = (0.1, 0.75, 1.0, False), X.to("meta")

    def refused(name: str, call: Callable[[], Any], words: str) -> None:
        case(f"raw {name}", "", plain(lambda *_: call()), RuntimeError, words, "own")

    words = "takes a size of at most 32768, got 4611686018427387904"
    refused("lrn", lambda: raw.local_response_norm(X, 2**62, *norm), words)
    refused("lrn within", lambda: raw.local_response_norm(X, 2**62, *norm[:3], True), words)
    refused("lrn back", lambda: raw.local_response_norm_backward(X, X, 2**62, *norm), words)
    words = "takes kernel_size, stride and dilation of at most 32768, got"
    pools = ((far, one, (2**61,) * 2, one), (one, far, (0, 0), one), (one, one, (0, 0), far))
    for i, window in enumerate(pools):
        pool = raw.max_pool2d
        refused(f"pool {i}", lambda pool=pool, w=window: pool(X, *w, False, True), words)
        trio = raw.relu_lrn_max_pool2d
        refused(f"trio {i}", lambda f=trio, w=window: f(X, 3, *norm[:3], *w, False, True), words)
    words = "expected all tensors on one device, found cpu and meta"
    refused("lrn on two", lambda: raw.local_response_norm_backward(meta, X, 3, *norm), words)
    refused("lrn on others", lambda: raw.local_response_norm_backward(X, meta, 3, *norm), words)


for _add in (inputs, windows_of_lrn, windows_of_pools, raw_ops):
    _add()
