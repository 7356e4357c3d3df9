"""What `fastseq bench` measures: a name, a shape, and the providers that compute the same thing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

import fastseq
from fastseq.bench import images, rnn_cases, rows
from fastseq.bench.harness import TOLERANCE, Provider
from fastseq.bench.models import MODELS
from fastseq.bench.rnn_cases import caller, capabilities

# The others are torch's.
PACKAGES = {rows.OURS: "fastseq", rows.FROZEN: "fastseq", rnn_cases.ONNX: "onnxruntime"}
CELLS = ("LSTMCell", "GRUCell", "RNNCell")


@dataclass(frozen=True)
class Asked:
    """The user's choice.

    Attributes:
        work: rnn, lrn, pool, trio, cells or models.
        ops: cells, modules or models by name.
        dtypes: by name.
        modes: infer, forward or train.
        layouts: dense or packed; NCHW or NHWC.
        shapes: each measured with all of the above: (T, B, I, H), (N, C, H, W), (B, I, H), or of
            models the batch alone, 0 for their own.
        device: where.
        compiled: torch.compile as well.
    """

    work: str
    ops: tuple[str, ...]
    dtypes: tuple[str, ...]
    modes: tuple[str, ...]
    layouts: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    device: str = "cpu"
    compiled: bool = False


@dataclass(frozen=True)
class Work:
    """One case.

    Attributes:
        columns: op, dtype, mode, layout.
        sizes: of the shape, by name.
        dtype: of the tensors.
        tolerance: how far results may be apart.
        providers: makes them, given the number of threads.
        asked: the case in words that a process of its own understands.
    """

    columns: rows.Row
    sizes: dict[str, int]
    dtype: torch.dtype
    tolerance: float
    providers: Callable[[int], list[Provider]]
    asked: dict[str, Any]


def works(asked: Asked) -> Iterator[Work]:
    """Every case of a choice."""
    for op, dtype, mode, layout, shape in product(
        asked.ops, asked.dtypes, asked.modes, asked.layouts, asked.shapes
    ):
        words = {
            "work": asked.work, "op": op, "dtype": dtype, "mode": mode, "layout": layout,
            "shape": shape, "device": asked.device, "compiled": asked.compiled,
        }  # fmt: skip
        yield work_of(words)


def work_of(words: dict[str, Any]) -> Work:
    """A case from its words."""
    make = {"rnn": _recurrent, "cells": _single_steps, "models": _model}.get(words["work"], _image)
    return make(words)


def provider_of(words: dict[str, Any]) -> Provider:
    """One provider of a case; ``words`` name it, and the number of threads.

    Raises:
        ValueError: the case has none of that name.
    """
    for provider in work_of(words).providers(words["threads"]):
        if provider.name == words["provider"]:
            return provider
    raise ValueError(f"there is no provider {words['provider']}")


def smallest(words: dict[str, Any]) -> dict[str, Any]:
    """The case with as few rows, steps or images as there can be, of the same widths."""
    shape = tuple(words["shape"])
    few = {"rnn": (2, 2)}.get(words["work"], (1,))
    return {**words, "shape": (*few, *shape[len(few) :])}


def version_of(provider: str) -> str:
    """The version of the package behind a provider."""
    try:
        return version(PACKAGES[provider]) if provider in PACKAGES else str(torch.__version__)
    except PackageNotFoundError:  # ours, in a checkout that nobody has installed
        return fastseq.__version__ if provider in (rows.OURS, rows.FROZEN) else ""


def _recurrent(words: dict[str, Any]) -> Work:
    case = rnn_cases.Case(
        rnn_cases.Cell(words["op"]),
        rnn_cases.DType(words["dtype"]),
        rnn_cases.Mode(words["mode"]),
        rnn_cases.Layout(words["layout"]),
        tuple(words["shape"]),
    )
    place = torch.device(words["device"])
    return Work(
        case.columns(),
        case.sizes(),
        rnn_cases.TORCH_DTYPE[case.dtype],
        rnn_cases.tolerance(case, place),
        lambda threads: rnn_cases.providers(case, threads, place, words["compiled"], frozen=True),
        words,
    )


def _image(words: dict[str, Any]) -> Work:
    op, dtype = images.OPS[words["work"]], getattr(torch, words["dtype"])
    place, mode = torch.device(words["device"]), images.Mode(words["mode"])

    def providers(threads: int) -> list[Provider]:
        torch.manual_seed(0)
        x = torch.randn(words["shape"]).to(place, dtype)
        if words["layout"] == images.Layout.nhwc.value:
            x = x.contiguous(memory_format=torch.channels_last)
        return images.providers(op, x, mode, words["compiled"], capabilities(place)[1])

    narrow = dtype is not torch.float32
    tolerance = TOLERANCE[dtype] if narrow else op.tolerance or TOLERANCE[dtype]
    columns = _columns(op.name, words)
    sizes = dict(zip("NCHW", words["shape"], strict=True))
    return Work(columns, sizes, dtype, tolerance, providers, words)


def _single_steps(words: dict[str, Any]) -> Work:
    dtype, place = getattr(torch, words["dtype"]), torch.device(words["device"])
    mode = rnn_cases.Mode(words["mode"])
    batch, width, hidden = words["shape"]

    def providers(threads: int) -> list[Provider]:
        torch.manual_seed(0)
        native: nn.Module = getattr(nn, words["op"])(width, hidden, device=place, dtype=dtype)
        ours: nn.Module = getattr(fastseq, words["op"])(width, hidden, device=place, dtype=dtype)
        ours.load_state_dict(native.state_dict())
        x = torch.randn(batch, width, device=place).to(dtype)
        grad = torch.randn(batch, hidden, device=place).to(dtype)
        return _both(native, ours, place, lambda m: caller(m, mode, x, grad), words["compiled"])

    sizes = {"B": batch, "I": width, "H": hidden}
    return Work(_columns(words["op"], words), sizes, dtype, TOLERANCE[dtype], providers, words)


def _model(words: dict[str, Any]) -> Work:
    dtype, place = getattr(torch, words["dtype"]), torch.device(words["device"])
    model = MODELS[words["op"]]
    batch = words["shape"][0] or model.batch

    def providers(threads: int) -> list[Provider]:
        torch.manual_seed(0)
        native = model.native().to(place, dtype)
        ours = fastseq.swap(model.native().to(place, dtype))
        ours.load_state_dict(native.state_dict())
        inputs = model.inputs(batch)
        inputs = tuple(t.to(place, dtype) if t.is_floating_point() else t.to(place) for t in inputs)

        def call(module: nn.Module) -> Callable[[], Sequence[Tensor]]:
            return partial(model.step, module, inputs)

        return _both(native, ours, place, call, words["compiled"])

    columns = _columns(words["op"], words)
    return Work(columns, {"B": batch}, dtype, model.tolerance, providers, words)


def _columns(op: str, words: dict[str, Any]) -> rows.Row:
    return {"op": op, **{name: words[name] for name in ("dtype", "mode", "layout")}}


def _both(
    native: nn.Module,
    ours: nn.Module,
    place: torch.device,
    call: Callable[[nn.Module], Callable[[], Sequence[Tensor]]],
    compiled: bool,
) -> list[Provider]:
    """torch.nn's module and ours as providers, and torch.nn's under torch.compile."""
    theirs, own = capabilities(place)
    found = [Provider(rows.NATIVE, call(native), theirs), Provider(rows.OURS, call(ours), own)]
    if compiled:
        torch.compiler.reset()
        torch._dynamo.config.allow_rnn = True
        module: Any = torch.compile(native, dynamic=False)
        found.append(Provider(rnn_cases.COMPILED, call(module)))
    return found
