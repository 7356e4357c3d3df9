"""LRN, pooling and the trio as ops: opcheck, tracing, vmap, threads, determinism."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from image_cases import DTYPES, FORMATS, gradient, images
from torch import Tensor
from torch._prims_common import suggest_memory_format
from torch._subclasses import FakeTensorMode
from torch.func import functional_call, grad, jacrev, vmap
from torch.library import opcheck

import fastseq
from fastseq import functional, ops
from fastseq.functional.pool import window_of
from fastseq.ops._common import channels_last

NORM = (5, 0.3, 0.75, 2.0)
POOL: Any = ((3, 3), (2, 2), (1, 1), (1, 1))
RAW = torch.ops.fastseq
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "lrn": lambda x: functional.local_response_norm(x, *NORM),
    "lrn within": lambda x: functional.local_response_norm(x, *NORM, within_channel=True),
    "pool": lambda x: functional.max_pool2d(x, 3, 2, 1),
    "trio": lambda x: functional.relu_lrn_max_pool2d(x, *NORM),
}
each_function = pytest.mark.parametrize("name", FUNCTIONS)
each_format = pytest.mark.parametrize("form", FORMATS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
one_thread = pytest.mark.usefixtures("one_thread")
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "NCHW": lambda x: x,
    "NHWC": lambda x: x.contiguous(memory_format=torch.channels_last),
    "sliced": lambda x: x[:, ::2],
    "transposed": lambda x: x.transpose(1, 3),
    "one channel": lambda x: x[:, :1],
    "one channel NHWC": lambda x: x[:, :1].contiguous(memory_format=torch.channels_last),
    "one pixel": lambda x: x[..., :3, :3],
    "expanded": lambda x: x[:1].expand(4, -1, -1, -1),
    "empty": lambda x: x[:0],
}


def calls(x: Tensor) -> list[tuple[Any, tuple[Any, ...]]]:
    """Every op with arguments made from x."""
    window = window_of(*(list(pair) for pair in POOL))
    assert window is not None
    plain = (*POOL, False)
    found: list[tuple[Any, tuple[Any, ...]]] = []
    for within in (False, True):
        found.append((RAW.local_response_norm.default, (x, *NORM, within)))
        grad_y = torch.randn(x.shape).to(x)
        found.append((RAW.local_response_norm_backward.default, (grad_y, x, *NORM, within)))
    last = ops._common.channels_last(x)
    for op, back, head, tail in (
        (RAW.max_pool2d, RAW.max_pool2d_backward, (), (x.shape[-2], x.shape[-1], last)),
        (RAW.relu_lrn_max_pool2d, RAW.relu_lrn_max_pool2d_backward, NORM, (x, *NORM)),
    ):
        for save in (True, False):
            found.append((op.default, (x, *head, *plain, save)))
        y, offsets = op(x, *head, *plain, True)
        found.append((back.default, (torch.randn(y.shape).to(y), offsets, *tail, *POOL)))
    return found


@one_thread
@pytest.mark.parametrize("layout", LAYOUTS)
@each_dtype
def test_opcheck_and_exact_fakes(layout: str, dtype: torch.dtype) -> None:
    x = LAYOUTS[layout](images(2, 6, 9, 8, dtype=dtype))
    for op, arguments in calls(x):
        opcheck(op, arguments, test_utils=("test_schema", "test_faketensor"))
        real = op(*arguments)
        with FakeTensorMode() as mode:
            fake = op(*(mode.from_tensor(a) if isinstance(a, Tensor) else a for a in arguments))
        for f, r in zip(
            *((v if isinstance(v, tuple) else (v,)) for v in (fake, real)), strict=True
        ):
            assert (f.shape, f.stride(), f.dtype) == (r.shape, r.stride(), r.dtype), op


@one_thread
@each_format
def test_opcheck_dynamic(form: str) -> None:
    for op, arguments in calls(images(2, 6, 9, 8, form=form)):
        opcheck(op, arguments, test_utils=("test_aot_dispatch_dynamic",))


@one_thread
@each_function
@each_format
@pytest.mark.parametrize("dynamic", [False, True])
def test_compile_without_a_break(name: str, form: str, dynamic: bool) -> None:
    torch.compiler.reset()
    call = torch.compile(FUNCTIONS[name], fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for shape in ((2, 6, 9, 8), (3, 6, 11, 13)):
        x = images(*shape, form=form)
        expected, got = gradient(FUNCTIONS[name], x), gradient(call, x)
        for a, b in zip(got, expected, strict=True):
            assert torch.equal(a, b)
            assert a.stride() == b.stride()


@one_thread
def test_one_graph_serves_every_size() -> None:
    torch.compiler.reset()
    counter = torch._dynamo.testing.CompileCounter()
    model = torch.nn.Sequential(
        fastseq.LocalResponseNorm(5), fastseq.MaxPool2d(3, 2), fastseq.ReLULRNMaxPool2d()
    )
    call = torch.compile(model, fullgraph=True, dynamic=True, backend=counter)
    for size in (20, 23, 31, 47):
        x = images(2, 6, size, size + 3)
        assert torch.equal(call(x), model(x))
    assert counter.frame_count == 1


@one_thread
@pytest.mark.usefixtures("inductor_cache")
def test_inductor() -> None:
    torch.compiler.reset()

    def model(x: Tensor) -> Tensor:
        return functional.relu_lrn_max_pool2d(x * 2 + 1, *NORM).sin()

    x = images(2, 6, 9, 8)
    for a, b in zip(
        gradient(torch.compile(model, fullgraph=True), x), gradient(model, x), strict=True
    ):
        torch.testing.assert_close(a, b)


@one_thread
def test_export() -> None:
    model = torch.nn.Sequential(fastseq.LocalResponseNorm(5), fastseq.ReLULRNMaxPool2d())
    batch, height = torch.export.Dim("batch", max=64), torch.export.Dim("height", min=8, max=256)
    program = torch.export.export(
        model, (images(3, 6, 16, 18),), dynamic_shapes=({0: batch, 2: height},)
    )
    x = images(5, 6, 31, 18)
    assert torch.equal(program.module()(x), model(x))


@one_thread
@each_function
@each_format
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_vmap(name: str, form: str, dim: int) -> None:
    call = FUNCTIONS[name]
    parts = [images(2, 6, 9, 8, form=form, seed=i) for i in range(3)]
    x = torch.stack(parts, dim)
    assert torch.equal(vmap(call, dim)(x), torch.stack([call(p) for p in parts]))
    expected = torch.stack([gradient(lambda t: call(t).square(), p)[2] for p in parts])
    ones = torch.stack([gradient(lambda t: call(t).square(), p)[1] for p in parts])
    got = vmap(lambda t, g: grad(lambda u: (call(u).square() * g).sum())(t), (dim, 0))(x, ones)
    torch.testing.assert_close(got, expected)


@one_thread
@pytest.mark.parametrize("name", ["lrn", "pool"])
def test_vmap_over_single_images(name: str) -> None:
    call = FUNCTIONS[name]
    x = images(4, 6, 9, 8)
    assert torch.equal(vmap(call)(x), torch.stack([call(part) for part in x]))
    both = vmap(vmap(call))(x.view(2, 2, 6, 9, 8))
    assert torch.equal(both.flatten(0, 1), vmap(call)(x))


@one_thread
def test_vmap_with_indices() -> None:
    x = images(4, 6, 9, 8)
    got = vmap(lambda t: functional.max_pool2d(t, 3, 2, return_indices=True))(x)
    for a, b in zip(got, functional.max_pool2d(x, 3, 2, return_indices=True), strict=True):
        assert torch.equal(a, b)


@one_thread
@each_function
def test_jacobian_and_hessian(name: str) -> None:
    call = FUNCTIONS[name]
    x = images(1, 3, 4, 4, dtype=torch.float64)
    rows = torch.autograd.functional.jacobian(call, x, vectorize=False)
    torch.testing.assert_close(jacrev(call)(x), rows)

    def energy(t: Tensor) -> Tensor:
        return call(t).pow(3).sum()

    expected = torch.autograd.functional.hessian(energy, x)
    torch.testing.assert_close(jacrev(jacrev(energy))(x), expected)


@one_thread
def test_functional_call_and_per_sample_gradients() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 5, 3), fastseq.ReLULRNMaxPool2d(kernel_size=2))
    weights = dict(model.named_parameters())
    x = images(4, 2, 8, 8)

    def loss(weights: dict[str, Tensor], sample: Tensor) -> Tensor:
        return functional_call(model, weights, (sample[None],)).square().sum()

    each = vmap(grad(loss), (None, 0))(weights, x)
    total = grad(lambda w: functional_call(model, w, (x,)).square().sum())(weights)
    for name, value in total.items():
        torch.testing.assert_close(each[name].sum(0), value, rtol=1e-4, atol=1e-5)


@each_function
@each_format
@each_dtype
def test_threads_change_nothing(name: str, form: str, dtype: torch.dtype) -> None:
    call = FUNCTIONS[name]
    x = images(5, 33, 37, 41, dtype=dtype, form=form)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            results.append(gradient(call, x))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(other, results[0], strict=True):
            assert torch.equal(a, b)


@one_thread
@each_function
def test_deterministic_mode_with_poisoned_memory(name: str) -> None:
    call = FUNCTIONS[name]
    x = images(3, 17, 13, 15)
    expected = gradient(call, x)
    fill = torch.utils.deterministic.fill_uninitialized_memory
    assert fill  # empty tensors hold NaN, so that whatever is not written shows
    torch.use_deterministic_algorithms(True)
    try:
        got = gradient(call, x)
    finally:
        torch.use_deterministic_algorithms(False)
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b)


@one_thread
@each_function
def test_large_planes_are_cut_into_bands(name: str) -> None:
    # Wide and high images take several tiles a plane, and must not show where they meet.
    call = FUNCTIONS[name]
    for shape in ((1, 2, 700, 300), (1, 3, 3, 5000), (1, 2, 5000, 3)):
        x = images(*shape)
        y, _, grad_x = gradient(call, x)
        other = x.contiguous(memory_format=torch.channels_last)
        z, _, grad_z = gradient(call, other)
        assert torch.equal(y, z)
        assert torch.equal(grad_x, grad_z)


@one_thread
@each_function
def test_input_is_left_alone(name: str) -> None:
    x = images(2, 6, 9, 8)
    before = x.clone()
    gradient(FUNCTIONS[name], x)
    assert torch.equal(x, before)


def test_explain() -> None:
    x = images(2, 6, 9, 8, form="NHWC")
    said = fastseq.explain(fastseq.MaxPool2d(3, 2), x)
    assert said.startswith("MaxPool2d (2, 6, 9, 8): CPU kernels (")
    assert said.endswith("one pass over memory, channels_last.")
    said = fastseq.explain(fastseq.ReLULRNMaxPool2d(), images(2, 6, 9, 8)[:, ::2])
    assert said.endswith("channels first, after a copy, because the input is not dense.")
    said = fastseq.explain(fastseq.LocalResponseNorm(3), x.long())
    assert said.endswith("torch.nn, because fastseq has no kernel for torch.int64.")
    with pytest.raises(TypeError, match="was given a MaxPool2d; it knows"):
        fastseq.explain(torch.nn.MaxPool2d(3), x)


def test_explain_on_cuda() -> None:
    """A block of the trio's own kernels has room for so many channels (test_row_plans.py)."""
    trio = fastseq.ReLULRNMaxPool2d()
    with FakeTensorMode():
        for dtype, most in ((torch.float32, 852), (torch.bfloat16, 1024)):
            for channels in (most, most + 8):
                x = torch.empty(2, channels, 9, 8, device="cuda", dtype=dtype)
                beyond = " for any window, because there are more than" in fastseq.explain(
                    trio, x.contiguous(memory_format=torch.channels_last)
                )
                assert beyond == (channels > most)
                assert "for any window" not in fastseq.explain(trio, x)


def test_memory_formats_are_torchs() -> None:
    """Of dense, strided and doubtful tensors: traces must give the strides that kernels give."""
    shapes = itertools.product((0, 1, 2), (1, 2, 5), (1, 3), (1, 4))
    for shape in shapes:
        x = torch.empty(shape)
        for t in (x, x.contiguous(memory_format=torch.channels_last), x.transpose(1, 3), x[:, ::2]):
            suggested = suggest_memory_format(t) == torch.channels_last
            assert channels_last(t) == suggested, (t.shape, t.stride())
            if t.numel():
                y = torch.ops.fastseq.local_response_norm(t, 3, 1.0, 0.75, 1.0, False)
                assert y.is_contiguous(
                    memory_format=torch.channels_last if suggested else torch.contiguous_format
                )
