"""Random modules on random inputs against torch.nn: outputs, final states and all gradients.

    pytest python_tests/test_fuzz.py              200 examples, always the same
    nox -s fuzz -- --examples 5000                so many, others every time

What is compared with is torch.nn in float64, on the same rounded numbers: an error may be that of
a few roundings of the dtype, or a few times that of torch.nn in the same dtype.
"""

from __future__ import annotations

import os
import re
from typing import Any

import pytest
import torch
from image_cases import FORMATS, gradient, images
from recurrence_cases import CELLS, KINDS, call, leaves, numbers, states
from torch import Tensor, nn
from torch.nn import functional as native
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import fastseq
from fastseq import functional

hypothesis = pytest.importorskip("hypothesis", reason="the test extra is not installed")
from hypothesis import HealthCheck, assume, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

# Examples of all tests together; where the variable is set they are drawn anew in every run.
WANTED = os.environ.get("FASTSEQ_FUZZ", "")
EXAMPLES = int(WANTED or 200)
TOLERANCES = {
    torch.float64: 1e-10,
    torch.float32: 2e-5,
    torch.bfloat16: 2e-2,
    torch.float16: 3e-3,
}
DTYPES = st.sampled_from(list(TOLERANCES))
few, flag, seeds = st.integers(1, 4), st.booleans(), st.integers(0, 2**16)
width = st.one_of(st.integers(1, 20), st.integers(1, 140))


def share(percent: int) -> Any:
    """A part of the examples."""
    return settings(
        max_examples=max(1, EXAMPLES * percent // 100),
        derandomize=not WANTED,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def laid_out(x: Tensor, how: str) -> Tensor:
    """The same numbers in memory of another shape; repeated, they are those of the first row."""
    if how == "turned":
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    if how == "sliced":
        wider = x.new_zeros(*x.shape[:-1], x.shape[-1] + 3)
        wider[..., 1:-2] = x
        return wider[..., 1:-2]
    if how == "repeated" and x.shape[0]:
        return x[:1].expand_as(x)
    return x


layouts = st.sampled_from(["dense", "turned", "sliced", "repeated"])


def twin_of(kind: str, dtype: torch.dtype, seed: int, **options: Any) -> tuple[nn.Module, ...]:
    """fastseq's module and torch.nn's in a dtype, and torch.nn's in float64, with equal weights."""
    torch.manual_seed(seed)
    theirs = getattr(nn, kind)(**options).to(dtype)
    made = (
        getattr(fastseq, kind)(**options).to(dtype),
        theirs,
        getattr(nn, kind)(**options).double(),
    )
    for module in made:
        module.load_state_dict(theirs.state_dict())
    return made


def widened(value: Any) -> Any:
    """A nest of tensors in float64."""
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if value is None:
        return None
    if hasattr(value, "_replace"):
        return value._replace(data=value.data.double())
    return tuple(widened(part) for part in value)


def assert_as_exact(
    ours: dict[str, Tensor], theirs: dict[str, Tensor], exact: dict[str, Tensor], dtype: torch.dtype
) -> None:
    """Ours is as near to the numbers of float64 as can be asked."""
    assert ours.keys() == theirs.keys() == exact.keys()
    for name, wanted in exact.items():
        found, other = ours[name], theirs[name]
        assert (found.shape, found.dtype) == (other.shape, other.dtype), name
        if wanted.numel() == 0:
            continue
        off = (found.double() - wanted).abs().max().item()
        allowed = TOLERANCES[dtype] * max(1.0, wanted.abs().max().item())
        allowed += 3 * (other.double() - wanted).abs().max().item()
        assert off <= allowed, f"{name} is off by {off:.3g}, allowed {allowed:.3g}"


def compare(modules: tuple[nn.Module, ...], args: tuple[Any, ...], dtype: torch.dtype) -> None:
    """Outputs and gradients of the three modules, and our outputs without gradients."""
    ours, theirs, exact = modules
    grads = [numbers(*o.shape, seed=20 + i, dtype=dtype) for i, o in enumerate(leaves(ours(*args)))]
    wide = call(exact, *widened(args), grads=[g.double() for g in grads])
    found = call(ours, *args, grads=grads)
    assert_as_exact(found, call(theirs, *args, grads=grads), wide, dtype)
    with torch.no_grad():
        plain = leaves(ours(*args))
    if not (ours.training and getattr(ours, "dropout", 0)):
        for i, y in enumerate(plain):
            torch.testing.assert_close(
                y, found[f"output {i}"], rtol=0, atol=4 * TOLERANCES[dtype], check_stride=False
            )


@st.composite
def layers(draw: Any) -> dict[str, Any]:
    """A module of recurrent layers, and what it is called with."""
    kind = draw(st.sampled_from(KINDS))
    hidden = draw(width)
    options: dict[str, Any] = {
        "input_size": draw(width),
        "hidden_size": hidden,
        "num_layers": draw(st.integers(1, 3)),
        "bias": draw(flag),
        "batch_first": draw(flag),
        "bidirectional": draw(flag),
    }
    if kind == "LSTM" and hidden > 1 and draw(flag):
        options["proj_size"] = draw(st.integers(1, hidden - 1))
    if kind == "RNN":
        options["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    dtype = draw(DTYPES)
    if options.get("nonlinearity") == "relu":
        dtype = torch.float64  # rounding decides on which side of 0 a number is
    return {
        "kind": kind,
        "options": options,
        "dtype": dtype,
        "steps": draw(st.integers(1, 12)),
        "batch": draw(st.integers(0, 9)),
        "form": draw(st.sampled_from(["padded", "unbatched", "packed", "lengths"])),
        "layout": draw(layouts),
        "hx": draw(flag),
        "seed": draw(seeds),
    }


@share(40)
@given(layers())
def test_layers(drawn: dict[str, Any]) -> None:
    options, dtype, form, seed = (drawn[n] for n in ("options", "dtype", "form", "seed"))
    modules = twin_of(drawn["kind"], dtype, seed, **options)
    steps, batch, size = drawn["steps"], drawn["batch"], options["input_size"]
    ragged = form in ("packed", "lengths")
    assume(batch or not ragged)
    hx = states(modules[0], None if form == "unbatched" else batch) if drawn["hx"] else None
    if form == "unbatched":
        compare(
            modules, (laid_out(numbers(steps, size, seed=seed, dtype=dtype), "turned"), hx), dtype
        )
        return
    first = options["batch_first"] and form != "packed"
    shape = (batch, steps) if first else (steps, batch)
    x = laid_out(numbers(*shape, size, seed=seed, dtype=dtype), drawn["layout"])
    if not ragged:
        compare(modules, (x, hx), dtype)
        return
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, steps + 1, (batch,), generator=generator)
    if form == "packed":
        compare(modules, (pack_padded_sequence(x, lengths, enforce_sorted=False), hx), dtype)
        return
    packed = pack_padded_sequence(x.double(), lengths, first, enforce_sorted=False)
    y, final = modules[2](packed, widened(hx))
    y = pad_packed_sequence(y, first, total_length=steps)[0]
    theirs = modules[1](pack_padded_sequence(x, lengths, first, enforce_sorted=False), hx)
    theirs = (pad_packed_sequence(theirs[0], first, total_length=steps)[0], theirs[1])
    found = leaves(modules[0](x, hx, lengths=lengths))
    assert_as_exact(*(dict(enumerate(leaves(v))) for v in (found, theirs, (y, final))), dtype)


@share(15)
@given(
    st.sampled_from(CELLS), width, width, flag, st.sampled_from(["tanh", "relu"]), DTYPES,
    st.one_of(st.none(), st.integers(0, 9)), flag, layouts, seeds,
)  # fmt: skip
def test_cells(
    kind: str, size: int, hidden: int, bias: bool, nonlinearity: str, dtype: torch.dtype,
    batch: int | None, with_hx: bool, layout: str, seed: int,
) -> None:  # fmt: skip
    options = {"nonlinearity": nonlinearity} if kind == "RNNCell" else {}
    if options.get("nonlinearity") == "relu":
        dtype = torch.float64
    sizes = {"input_size": size, "hidden_size": hidden, "bias": bias}
    modules = twin_of(kind, dtype, seed, **sizes, **options)
    rows = () if batch is None else (batch,)
    x = numbers(*rows, size, seed=seed, dtype=dtype)
    h, c = (numbers(*rows, hidden, seed=seed + i, dtype=dtype) for i in (1, 2))
    hx: Any = (h, c) if kind == "LSTMCell" else h
    compare(modules, (laid_out(x, layout) if rows else x, hx if with_hx else None), dtype)


image_shapes = st.tuples(
    st.integers(1, 3), st.one_of(st.integers(1, 9), st.integers(1, 70)), st.integers(1, 21),
    st.integers(1, 21),
)  # fmt: skip
forms = st.sampled_from(list(FORMATS))


@share(12)
@given(
    image_shapes, st.integers(1, 12), st.floats(0, 2), st.sampled_from([0.5, 0.75, 1.0, 0.3, 2.0]),
    st.floats(0.5, 3), forms, DTYPES, seeds,
)  # fmt: skip
def test_lrn(
    shape: tuple[int, ...], size: int, alpha: float, beta: float, k: float, form: str,
    dtype: torch.dtype, seed: int,
) -> None:  # fmt: skip
    x = images(*shape, dtype=dtype, form=form, seed=seed)

    def run(library: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        y, _, slope = gradient(lambda x: library.local_response_norm(x, size, alpha, beta, k), x)
        return y, slope

    found, exact = run(functional, x), run(native, x.double())
    wide = dtype in (torch.float32, torch.float64)  # torch.nn has no others on the CPU
    theirs = run(native, x) if wide else found
    off = [dict(enumerate(pair)) for pair in (found, theirs if wide else exact, exact)]
    if not wide:
        off[1] = {i: t.to(dtype) for i, t in off[1].items()}
    assert_as_exact(*off, dtype)  # type: ignore[arg-type]


@st.composite
def windows(draw: Any) -> dict[str, Any]:
    """All options of pooling, of numbers and of pairs."""

    def side(numbers: Any) -> Any:
        return draw(st.one_of(numbers, st.tuples(numbers, numbers)))

    kernel = side(st.integers(1, 5))
    half = kernel // 2 if isinstance(kernel, int) else min(kernel) // 2
    return {
        "kernel_size": kernel,
        "stride": draw(st.one_of(st.none(), st.just(side(few)))),
        "padding": side(st.integers(0, half)),
        "dilation": side(st.integers(1, 3)),
        "ceil_mode": draw(flag),
    }


def misses(places: Tensor, x: Tensor) -> bool:
    """Whether a dilated window lies on padding alone, so that its place is no pixel.

    There torch.nn's backward writes beyond the gradient (seen in 2.15), and ours writes nothing.
    """
    return bool((places >= x.shape[-2] * x.shape[-1]).any())


@share(18)
@given(image_shapes, windows(), flag, forms, DTYPES, flag, seeds)
def test_pool(
    shape: tuple[int, ...], window: dict[str, Any], ties: bool, form: str, dtype: torch.dtype,
    planes: bool, seed: int,
) -> None:  # fmt: skip
    x = images(*shape, dtype=dtype, form=form, seed=seed)
    x = x.round() if ties else x
    x = x[0] if planes else x
    try:
        expected, indices = native.max_pool2d_with_indices(x, **window)
    except RuntimeError as error:  # no pixel is left
        with pytest.raises(RuntimeError, match=re.escape(str(error).split("\n")[0])):
            functional.max_pool2d(x, **window)
        return
    y, places = functional.max_pool2d(x, **window, return_indices=True)
    assert torch.equal(y, expected)
    assert torch.equal(places, indices)
    found = gradient(lambda x: functional.max_pool2d(x, **window), x)[2]
    if misses(places, x):
        return
    theirs, exact = (
        gradient(lambda x: native.max_pool2d(x, **window), t)[2] for t in (x, x.double())
    )
    assert_as_exact({"slope": found}, {"slope": theirs}, {"slope": exact}, dtype)


@share(8)
@given(image_shapes, windows(), st.integers(1, 9), forms, DTYPES, seeds)
def test_trio(
    shape: tuple[int, ...], window: dict[str, Any], size: int, form: str, dtype: torch.dtype,
    seed: int,
) -> None:  # fmt: skip
    x = images(*shape, dtype=dtype, form=form, seed=seed)

    def in_a_row(library: Any) -> Any:
        return lambda x: library.max_pool2d(
            library.local_response_norm(x.relu(), size, 0.3), **window
        )

    def fused(x: Tensor) -> Tensor:
        return functional.relu_lrn_max_pool2d(x, size, 0.3, **window)

    try:
        _, places = native.max_pool2d_with_indices(x, **window)
    except RuntimeError:
        with pytest.raises(RuntimeError):
            fused(x)
        return
    y, _, found = gradient(fused, x)
    steps = gradient(in_a_row(functional), x)
    assert torch.equal(y, steps[0])
    torch.testing.assert_close(found, steps[2], rtol=TOLERANCES[dtype], atol=4 * TOLERANCES[dtype])
    if dtype == torch.float64 and not misses(places, x):  # in others rounding decides on maxima
        expected, _, slope = gradient(in_a_row(native), x.double())
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(found, slope)


@st.composite
def networks(draw: Any) -> nn.Sequential:
    """Layers in a row that take images of two channels, most of which swap replaces."""
    torch.manual_seed(draw(seeds))
    after: dict[str, Any] = {  # each made anew; in place only where nobody needs what was there
        "relu": lambda: [nn.ReLU()],
        "convolution": lambda: [nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(inplace=True)],
        "lrn": lambda: [nn.LocalResponseNorm(3, 0.3)],
        "pool": lambda: [nn.MaxPool2d(2, 1)],
        "wide pool": lambda: [nn.MaxPool2d(3, 2, 1)],
    }
    made: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 6))):
        made += after[draw(st.sampled_from(list(after)))]()
    return nn.Sequential(*made, nn.Flatten(0, 2), nn.GRU(4, 3)).double()


@share(7)
@given(networks(), flag, seeds)
def test_swap(model: nn.Sequential, fuse: bool, seed: int) -> None:
    head, rest = model[:-2], model[-2:]
    x = images(1, 2, 16, 16, dtype=torch.float64, seed=seed)

    def run() -> list[Tensor]:
        leaf = x.clone().requires_grad_()
        y = head(leaf + 0)
        y, _ = rest(nn.functional.adaptive_avg_pool2d(y, (4, 4)))
        return [
            y,
            *torch.autograd.grad(y.sin().sum(), [leaf, *model.parameters()], allow_unused=True),
        ]

    kinds = [type(m) for m in model]
    expected = run()
    fastseq.swap(head, fuse=fuse)
    fastseq.swap(rest)
    assert isinstance(model[-1], fastseq.GRU)
    for a, b in zip(run(), expected, strict=True):
        if b is not None:
            torch.testing.assert_close(a, b)
    fastseq.swap(head, back=True)
    fastseq.swap(rest, back=True)
    assert [type(m) for m in [*head, *rest]] == kinds
