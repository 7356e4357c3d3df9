"""What ``gpu.py`` measures: sizes, and for each the providers with their calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import gpu_timing
import torch
from torch import Tensor, nn

import fastseq
from fastseq import ops
from fastseq.bench import images, rnn_cases, rows
from fastseq.bench.rnn_cases import TORCH_DTYPE, Case, DType, Layout, Mode, Shape
from fastseq.ops import persistent

Calls = dict[str, list[Callable[[], Sequence[Tensor]]]]  # by provider, one for each input

ROUTES = ("persistent", "cudnn", "step")
STACK: Shape = (512, 32, 512, 512)  # of what is measured in both directions, deep and ragged
# T, B, I, H: from one row to many, few units to many, odd ones; (44, 160) is slow in cuDNN's
# kernel for few units, and (16, 1024, 768) what others have published.
SHAPES: list[Shape] = [
    (1024, 16, 768, 768),
    STACK,
    (512, 44, 160, 160),
    (512, 1, 256, 256),
    (512, 1, 1024, 1024),
    (512, 8, 512, 512),
    (512, 32, 128, 128),
    (512, 64, 64, 64),
    (512, 32, 500, 500),
    (256, 64, 1024, 1024),
    (256, 128, 512, 512),
    (128, 256, 2048, 2048),
]
# More than nine minutes' worth: those first that are asked for most.
ORDER = [
    (Mode.train, DType.bfloat16),
    (Mode.train, DType.float32),
    (Mode.infer, DType.bfloat16),
    (Mode.train, DType.float16),
    (Mode.infer, DType.float32),
    (Mode.infer, DType.float16),
    (Mode.forward, DType.bfloat16),
    (Mode.forward, DType.float32),
    (Mode.forward, DType.float16),
]
TINY_ORDER = [(Mode.train, DType.float32), (Mode.infer, DType.float32)]
TINY: list[Shape] = [(6, 3, 4, 5)]
IMAGES: list[images.Shape] = [
    (128, 96, 55, 55),
    (256, 96, 55, 55),
    (128, 256, 27, 27),
    (256, 256, 27, 27),
]
TINY_IMAGES: list[images.Shape] = [(2, 8, 9, 9)]
IMAGE_OPS = tuple(images.OPS.values())


def recurrent(tiny: bool) -> Iterator[Case]:
    """The cases of the recurrences, those first that decide most."""
    shapes = TINY if tiny else SHAPES
    stack = TINY[0] if tiny else STACK
    kinds = [rnn_cases.Cell.lstm, rnn_cases.Cell.gru] if tiny else list(rnn_cases.Cell)
    for (mode, dtype), cell in product(TINY_ORDER if tiny else ORDER, kinds):
        for shape in shapes:
            yield Case(cell, dtype, mode, Layout.dense, shape)
        plain = Case(cell, dtype, mode, Layout.dense, stack)
        yield replace(plain, layout=Layout.packed)
        yield replace(plain, layers=2)
        yield replace(plain, directions=2)


def label(case: Case) -> str:
    """A case in words."""
    columns = case.columns()
    sizes = ", ".join(map(str, case.shape))
    return f"{columns['op']} {columns['dtype']} {columns['mode']} {columns['layout']} {sizes}"


def routes(module: nn.RNNBase, batch: int) -> list[str]:
    """Those that a layer can be forced to.

    What has no persistent kernel, or finds no room for its blocks, would go step by step.
    """
    weight = next(module.parameters())
    layer = ops.Cell[module.mode], weight.dtype, module.hidden_size
    once = bool(persistent.kernel(*layer))
    if once and weight.is_cuda:
        once = persistent.room(weight.device, *layer, batch)
    return [route for route in ROUTES if once or route != "persistent"]


def forced(route: str, call: Callable[[], Any]) -> Callable[[], Any]:
    """A call by one of fastseq's routes."""

    def by_route() -> Any:
        with fastseq.cuda_rnn(route):
            return call()

    return by_route


def recurrent_calls(case: Case, device: torch.device) -> Calls:
    """torch.nn, fastseq as it chooses, and fastseq by each route, on rotating inputs."""
    native, ours = rnn_cases.layers(case, device)
    made: Calls = {}
    x, grad = rnn_cases.tensors(case, device)
    data = rnn_cases.first(x)
    for _ in range(gpu_timing.copies(data.numel() * data.element_size(), device)):
        fresh: Any = data.clone()
        fresh = fresh if isinstance(x, Tensor) else x._replace(data=fresh)
        theirs = rnn_cases.caller(native, case.mode, fresh, grad)
        own = rnn_cases.caller(ours, case.mode, fresh, grad)
        for name, call in [
            (rows.NATIVE, theirs),
            (rows.OURS, own),
            *(
                (f"{rows.OURS} {route}", forced(route, own))
                for route in routes(ours, case.shape[1])
            ),
        ]:
            made.setdefault(name, []).append(call)
    return made


ImageCase = tuple[images.Op, DType, images.Mode, images.Layout, images.Shape]


def pictures(tiny: bool) -> Iterator[ImageCase]:
    """The cases of LRN, pooling and the trio."""
    shapes = TINY_IMAGES if tiny else IMAGES
    for shape, mode, dtype, layout, op in product(
        shapes,
        (images.Mode.train, images.Mode.infer),
        [DType.float32] if tiny else [DType.float32, DType.bfloat16],
        images.Layout,
        IMAGE_OPS,
    ):
        yield op, dtype, mode, layout, shape


def compiled_pictures(tiny: bool) -> Iterator[ImageCase]:
    """Those of them where torch.compile is measured as well; each compiles for seconds."""
    shape = (TINY_IMAGES if tiny else IMAGES)[0]
    modes = [images.Mode.infer] if tiny else [images.Mode.train, images.Mode.infer]
    dtypes = [DType.float32] if tiny else [DType.float32, DType.bfloat16]
    for op, mode, dtype in product(IMAGE_OPS, modes, dtypes):
        yield op, dtype, mode, images.Layout.nchw, shape


def image_columns(case: ImageCase) -> rows.Row:
    """The columns of a row that name a case, but for its shape."""
    op, dtype, mode, layout, _ = case
    return {"op": op.name, "dtype": dtype.value, "mode": mode.value, "layout": layout.value}


def image_label(case: ImageCase) -> str:
    """A case in words."""
    return f"{' '.join(image_columns(case).values())} {', '.join(map(str, case[-1]))}"


def image_calls(case: ImageCase, device: torch.device, compiled: bool) -> Calls:
    """torch.nn, fastseq and perhaps torch.compile, on rotating inputs."""
    op, dtype, mode, layout, shape = case
    kind = TORCH_DTYPE[dtype]
    size = kind.itemsize
    for length in shape:
        size *= length
    native = op.native()
    modules: dict[str, Any] = {rows.NATIVE: native, rows.OURS: op.ours()}
    if compiled:
        torch.compiler.reset()
        # A rehearsal has no minutes for a compiler.
        backend = "inductor" if device.type == "cuda" else "eager"
        modules[images.COMPILED] = torch.compile(native, dynamic=False, backend=backend)
    made: Calls = {}
    for seed in range(gpu_timing.copies(size, device)):
        torch.manual_seed(seed)
        x = torch.randn(shape, device=device).to(kind)
        if layout is images.Layout.nhwc:
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            grad = torch.randn_like(native(x))
        for name, module in modules.items():
            infers = mode is images.Mode.infer
            call = images.infer(module, x) if infers else images.train(module, x, grad)
            made.setdefault(name, []).append(call)
    return made
