"""Bad and odd inputs of every module and function, and what each of them must bring about.

A case says what is called, and the exception that it raises, by type and words, or that it has a
result. ``torch.nn`` is called beside ours, if the case does not say otherwise:

- ``same``: the same type and words, or the same result;
- ``kin``: the same type, in words of a kernel within torch, where ours say what is wrong;
- ``own``: torch.nn is not called, because it has no such thing, computes something by accident,
  gets an AttributeError of Python's, or crashes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from math import inf, nan
from types import SimpleNamespace
from typing import Any

import torch
from recurrence_cases import CELLS, KINDS, numbers
from torch import Tensor, nn
from torch.nn import functional as native
from torch.nn.utils.rnn import PackedSequence

import fastseq
from fastseq import functional


def in_a_row(x: Any, size: int = 5, alpha: Any = 1e-4, *pool: Any, **options: Any) -> Any:
    """The trio by torch.nn."""
    numbers = {n: options.pop(n) for n in ("beta", "k") if n in options}
    options = {"kernel_size": 3, "stride": 2, **options}
    y = native.local_response_norm(torch.relu(x), size, alpha, **numbers)
    return native.max_pool2d(y, **options)


Library = SimpleNamespace
THEIRS = Library(
    nn=nn,
    lstm=torch.lstm,
    gru=torch.gru,
    lrn=native.local_response_norm,
    pool=native.max_pool2d,
    trio=in_a_row,
)
OURS = Library(
    nn=fastseq,
    lstm=functional.lstm,
    gru=functional.gru,
    lrn=functional.local_response_norm,
    pool=functional.max_pool2d,
    trio=functional.relu_lrn_max_pool2d,
)


@dataclass(frozen=True)
class Case:
    """One bad or odd input.

    Attributes:
        call: of a library, and the name of a module or function.
        raises: the exception, or None of a result.
        words: in its first line.
        native: what torch.nn does beside: "same", "kin" or "own".
        kinds: the modules or functions that it is tried on.
    """

    call: Callable[[Any, str], Any]
    raises: type[BaseException] | None
    words: str
    native: str
    kinds: tuple[str, ...]


CASES: dict[str, Case] = {}


def case(
    name: str,
    kinds: Any,
    call: Callable[[Any, str], Any],
    raises: type[BaseException] | None = None,
    words: str = "",
    native: str = "same",
) -> None:
    """Add a case to the table."""
    assert name not in CASES, name
    assert raises is None or words, name
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    CASES[name] = Case(call, raises, words, native, kinds)


def module(library: Any, kind: str, **options: Any) -> Any:
    """A module of 3 inputs and 4 units, with the same weights in either library."""
    torch.manual_seed(0)
    return getattr(library.nn, kind)(3, 4, **options)


def hidden(kind: str, *shape: int, **options: Any) -> Any:
    """Zeros as the states of a module: a pair for LSTM."""
    h = torch.zeros(shape, **options)
    return (h, h) if kind.startswith("LSTM") else h


def plain(call: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    """The call without gradients, which takes the short way."""

    def without(library: Any, kind: str) -> Any:
        with torch.no_grad():
            return call(library, kind)

    return without


def negative(*shape: int) -> Tensor:
    """A tensor whose memory holds the negatives of its numbers."""
    made = torch.complex(numbers(*shape), numbers(*shape, seed=2)).conj().imag
    assert made.is_neg()
    return made


def quantised(x: Tensor) -> Tensor:
    """Eight bits, scale and zero point."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(x, 0.1, 0, torch.quint8)


def compressed(x: Tensor) -> Tensor:
    """Sparse, by rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return x.to_sparse_csr()


X, ROW = numbers(5, 2, 3), numbers(2, 3)
REFUSED = "Could not run 'fastseq::"  # of a backend that has no kernel: torch's own sentence
NO_MATCH = "RNN input dtype .* does not match weight dtype"


def inputs() -> None:
    """What is given as the input of a layer, or of a cell."""

    def given(x: Any, **options: Any) -> Callable[[Any, str], Any]:
        return lambda library, kind: module(library, kind, **options)(x)

    def both(name: str, x: Any, row: Any, *expected: Any) -> None:
        case(f"{name} into a layer", KINDS, given(x), *expected)
        case(f"{name} into a layer without gradients", KINDS, plain(given(x)), *expected)
        case(f"{name} into a cell", CELLS, given(row), *expected)
        case(f"{name} into a cell without gradients", CELLS, plain(given(row)), *expected)

    for d in (0, 1, 4, 5):
        words = f"{{kind}}: Expected input to be 2D or 3D, got {d}D( tensor)? instead"
        case(f"{d} dimensions", KINDS, given(torch.zeros((1,) * d)), ValueError, words)
    for d in (0, 3):
        words = f"{{kind}}: Expected input to be 1D or 2D, got {d}D instead"
        case(f"{d} dimensions of a cell", CELLS, given(torch.zeros((1,) * d)), ValueError, words)
    size = "input.size\\(-1\\) must be equal to input_size. Expected 3, got "
    case("too wide", KINDS, given(numbers(5, 2, 4)), RuntimeError, size + "4")
    case("no width", KINDS, given(numbers(5, 2, 0)), RuntimeError, size + "0")
    size = "input has inconsistent input_size: got 0 expected 3"
    case("no width into a cell", CELLS, given(numbers(2, 0)), RuntimeError, size)
    none = "Expected sequence length to be larger than 0 in RNN"
    case("no steps", KINDS, given(numbers(0, 2, 3)), RuntimeError, none)
    case("no steps of no rows", KINDS, given(numbers(0, 0, 3)), RuntimeError, none)
    both("no rows", numbers(5, 0, 3), numbers(0, 3))
    both("rows repeated by strides of 0", numbers(1, 1, 3).expand(5, 2, 3), ROW[:1].expand(2, 3))
    slid = numbers(20)
    both(
        "rows that overlap", slid.as_strided((5, 2, 3), (1, 1, 1)), slid.as_strided((2, 3), (1, 1))
    )
    both("negated memory", negative(5, 2, 3), negative(2, 3))
    for value in (nan, inf, -inf, 1e-40, -0.0, 3.4e38):
        both(f"all {value}", torch.full((5, 2, 3), value), torch.full((2, 3), value))
    for dtype in (torch.int64, torch.bool, torch.float64, torch.float16, torch.float8_e4m3fn):
        case(f"{dtype}", KINDS, given(X.to(dtype)), ValueError, NO_MATCH)
        words = "Input and parameter tensors are not the same dtype"
        case(f"{dtype} into a cell", CELLS, given(ROW.to(dtype)), RuntimeError, words, "kin")
    case("complex64", KINDS, given(X.cfloat()), ValueError, NO_MATCH)
    case("quantised", KINDS, given(quantised(X)), ValueError, NO_MATCH, "own")
    case("sparse", KINDS, given(X.to_sparse()), NotImplementedError, REFUSED, "kin")
    case("sparse rows", CELLS, given(compressed(ROW)), RuntimeError, "strides", "own")
    words = "Input and parameter tensors are not at the same device"
    case("meta", KINDS, given(X.to("meta")), RuntimeError, words)
    case("meta without gradients", KINDS, plain(given(X.to("meta"))), RuntimeError, words)
    case("meta into a cell", CELLS, given(ROW.to("meta")), RuntimeError, words, "kin")
    everything = given(X.to("meta"), device="meta")
    case("everything on meta", KINDS, everything)
    case("everything on meta, without gradients", KINDS, plain(everything))
    case("a list", KINDS, given([[0.0] * 3]), AttributeError, "'list' object has no attribute")
    case("nothing", KINDS, given(None), AttributeError, "'NoneType' object has no attribute")


def packed_rows() -> None:
    """A PackedSequence made by hand, as its class says one never should."""

    def given(rows: Any, sizes: list[Any], **options: Any) -> Callable[[Any, str], Any]:
        return lambda library, kind: module(library, kind)(
            PackedSequence(rows, torch.tensor(sizes, **options))
        )

    rows = numbers(5, 3)
    words = "batch_sizes should be positive, not increase"
    case("packed, growing", KINDS, given(rows, [2, 3]), RuntimeError, words, "kin")
    case("packed, negative", KINDS, given(rows, [6, -1]), RuntimeError, words, "kin")
    case("packed, of no rows", KINDS, given(rows, [5, 0]), RuntimeError, words, "own")
    words = "expected packed rows of shape \\[{}, ...\\], the sum of batch_sizes"
    case("packed, a row left", KINDS, given(rows, [3, 1]), RuntimeError, words.format(4), "own")
    case("packed, too short", KINDS, given(rows, [3, 3]), RuntimeError, words.format(6), "kin")
    words = "batch_sizes should be a 1-D int64 tensor"
    int32 = {"dtype": torch.int32}
    case("packed, int32", KINDS, given(rows, [3, 2], **int32), RuntimeError, words, "kin")
    case("packed, floats", KINDS, given(rows, [3.0, 2.0]), RuntimeError, words, "own")
    case("packed, a table", KINDS, given(rows, [[3, 2]]), RuntimeError, words, "own")
    words = "input must have 2 dimensions, got 3"
    case("packed, rows of rows", KINDS, given(rows[:, None], [3, 2]), RuntimeError, words, "kin")


def states() -> None:
    """What is given as hx."""

    def given(*shape: int, **options: Any) -> Callable[[Any, str], Any]:
        x = ROW if options.pop("cell", False) else X
        return lambda lib, kind: module(lib, kind)(x, hidden(kind, *shape, **options))

    def layer(name: str, shape: tuple[int, ...], words: str) -> None:
        case(f"hx of {name}", KINDS, given(*shape), RuntimeError, words)
        case(f"hx of {name}, no gradients", KINDS, plain(given(*shape)), RuntimeError, words)

    expected = r"Expected hidden(\[0\])? size \(1, 2, 4\), got "
    layer("another batch", (1, 3, 4), expected + r"\[1, 3, 4\]")
    layer("one row, which would broadcast", (1, 1, 4), expected + r"\[1, 1, 4\]")
    layer("no rows", (1, 0, 4), expected + r"\[1, 0, 4\]")
    layer("two layers", (2, 2, 4), expected + r"\[2, 2, 4\]")
    layer("another width", (1, 2, 5), expected + r"\[1, 2, 5\]")
    layer("two dimensions", (1, 4), "For batched 3-D input, ")
    layer("four dimensions", (1, 1, 2, 4), "For batched 3-D input, ")
    batch = "Input batch size 2 doesn't match hidden0 batch size 3"
    case("h of another batch", CELLS, given(3, 4, cell=True), RuntimeError, batch)
    width = "hidden0 has inconsistent hidden_size: got 5, expected 4"
    case("h of another width", CELLS, given(2, 5, cell=True), RuntimeError, width)
    rank = r"Expected 2D hidden0 \(batch x hidden_size\), but got 1D tensor"
    case("h of one dimension", CELLS, given(4, cell=True), RuntimeError, rank, "kin")
    for dtype in (torch.float64, torch.int64, torch.float16, torch.complex64):
        words = "Input and hidden tensors are not the same dtype"
        bad = given(1, 2, 4, dtype=dtype)
        case(f"hx of {dtype}", KINDS, bad, RuntimeError, words, "kin")
        case(f"hx of {dtype}, no gradients", KINDS, plain(bad), RuntimeError, words, "kin")
    words = "Input and hidden tensors are not at the same device"
    meta = given(1, 2, 4, device="meta")
    case("hx on meta", KINDS, meta, RuntimeError, words)
    case("hx on meta, no gradients", KINDS, plain(meta), RuntimeError, words)
    meta = given(2, 4, cell=True, device="meta")
    case("h on meta, no gradients", CELLS, plain(meta), RuntimeError, words, "kin")

    def holding(h: Any) -> Callable[[Any, str], Any]:
        return lambda lib, kind: module(lib, kind)(X, (h, h) if kind == "LSTM" else h)

    for name, h in (
        ("repeated by strides of 0", numbers(1, 1, 4).expand(1, 2, 4)),
        ("in negated memory", negative(1, 2, 4)),
        ("of denormals", torch.full((1, 2, 4), 1e-40)),
        ("of NaN", torch.full((1, 2, 4), nan)),
    ):
        case(f"hx {name}", KINDS, holding(h))
        case(f"hx {name}, no gradients", KINDS, plain(holding(h)))

    def pair(kind: str, x: Tensor, hx: Any) -> Callable[[Any, str], Any]:
        return lambda library, _: module(library, kind)(x, hx)

    h, c = torch.zeros(1, 2, 4), torch.zeros(2, 4)
    words = r"hx should be a tuple of tensors \(h_0, c_0\), got "
    case("LSTM: h alone", "", pair("LSTM", X, h), TypeError, words + "Tensor", "own")
    case("LSTM: hx a word", "", pair("LSTM", X, "zeros"), TypeError, words + "str", "own")
    two = "lstm expects two hidden states"
    case("LSTM: one state", "", pair("LSTM", X, (h,)), RuntimeError, two, "own")
    case("LSTM: three states", "", pair("LSTM", X, (h, h, h)), RuntimeError, two, "kin")
    words = "must be tuple of Tensors, not Tensor"
    case(
        "LSTMCell: h and c in one", "", pair("LSTMCell", ROW, torch.stack([c, c])), TypeError, words
    )
    apart = plain(pair("LSTMCell", ROW, torch.stack([c, c])))
    case("LSTMCell: h and c in one, no gradients", "", apart, TypeError, words)
    case("GRU: hx a tuple", "", pair("GRU", X, (h,)), AttributeError, "'tuple' object has no")


def weights() -> None:
    """Weights that somebody has put into the module: oneDNN reads beyond those that are small."""

    def changed(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[Any, str], Any]:
        def call(library: Any, kind: str) -> Any:
            made = module(library, kind)
            new = nn.Parameter(change(getattr(made, name).detach()), requires_grad=False)
            setattr(made, name, new)
            return made(X)

        return call

    for name in ("weight_ih_l0", "weight_hh_l0"):
        for what, change in (
            ("of one row less", lambda w: w[:-1]),
            ("of one column less", lambda w: w[:, :-1]),
            ("of no rows", lambda w: w[:0]),
            ("of one dimension", lambda w: w[0]),
            ("of three dimensions", lambda w: w[None]),
        ):
            bad = changed(name, change)
            case(f"{name} {what}", KINDS, bad, RuntimeError, "fastseq::recurrence: ", "own")
            words = "fastseq::recurrence: "
            case(f"{name} {what}, no gradients", KINDS, plain(bad), RuntimeError, words, "own")
        words = "Input and parameter tensors are not at the same device"
        meta = changed(name, lambda w: w.to("meta"))
        case(f"{name} on meta", KINDS, meta, RuntimeError, words)
        case(f"{name} on meta, no gradients", KINDS, plain(meta), RuntimeError, words)
        case(f"{name} in negated memory", KINDS, changed(name, lambda w: -torch._neg_view(w)))
        repeated = changed(name, lambda w: w[:1].expand_as(w))
        case(f"{name} repeated by strides of 0", KINDS, repeated)
    for name in ("bias_ih_l0", "bias_hh_l0"):
        words = f"fastseq::recurrence: {name[:-3]} should have shape"
        case(
            f"{name} too short", KINDS, changed(name, lambda b: b[:-1]), RuntimeError, words, "kin"
        )
        meta = plain(changed(name, lambda b: b.to("meta")))
        words = "Input and parameter tensors are not at the same device"
        case(f"{name} on meta, no gradients", KINDS, meta, RuntimeError, words)


def construction() -> None:
    """Arguments of constructors."""

    def made(*args: Any, **options: Any) -> Callable[[Any, str], Any]:
        return lambda library, kind: (getattr(library.nn, kind)(*args, **options), 0)[1]

    words = "Trying to create tensor with negative dimension"
    case("hidden_size -4 of a cell", CELLS, made(3, -4), RuntimeError, words)
    case("hidden_size -4", KINDS, made(3, -4), ValueError, "hidden_size must be greater than zero")
    case(
        "input_size 2^40, hidden_size 2^20",
        KINDS,
        made(2**40, 2**20),
        RuntimeError,
        "overflow|alloc",
    )
    words = "Overflow when unpacking long"
    case("sizes 2^62", ("LSTM", "GRU"), made(2**62, 2**62), TypeError, words)
    case("sizes 2^62 of one gate", "RNN", made(2**62, 2**62), RuntimeError, "overflow")
    case("dropout NaN", KINDS, made(3, 4, 2, dropout=nan), ValueError, "dropout should be a number")
    case("integers as dtype", KINDS, made(3, 4, dtype=torch.int64), RuntimeError, "floating point")
    case("a device that is none", KINDS, made(3, 4, device="abacus"), RuntimeError, "abacus")


for _add in (inputs, packed_rows, states, weights, construction):
    _add()
