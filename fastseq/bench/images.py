"""What the benchmarks of LRN, max-pool and the trio share: shapes, ops, providers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

import fastseq
from fastseq.bench import rows
from fastseq.bench.harness import Provider

Shape = tuple[int, int, int, int]  # N, C, H, W

SHAPES: list[Shape] = [
    (32, 96, 55, 55),  # AlexNet's first and second
    (32, 256, 27, 27),
    (8, 64, 112, 112),  # GoogLeNet's first
    (5, 30, 61, 47),  # odd ones
    (3, 7, 200, 133),
]
QUICK: list[Shape] = [(2, 16, 27, 27)]
COMPILED = "torch.compile"


class DType(str, Enum):
    """Element types."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Mode(str, Enum):
    """Forward alone, without gradients; or forward and the gradient of the input."""

    infer = "infer"
    train = "train"


class Layout(str, Enum):
    """Memory formats."""

    nchw = "NCHW"
    nhwc = "NHWC"


@dataclass(frozen=True)
class Op:
    """One op to measure.

    Attributes:
        name: in the tables.
        file: stem of the CSV file.
        native: the op by torch.nn.
        ours: the op by fastseq.
        tolerance: of the comparison in float32, if not the harness's. In the 16-bit types such an
            op is compared in its outputs alone: rounding decides where its gradients go.
    """

    name: str
    file: str
    native: Callable[[], nn.Module]
    ours: Callable[[], nn.Module]
    tolerance: float | None = None


def infer(module: nn.Module, x: Tensor) -> Callable[[], Sequence[Tensor]]:
    """A call that returns the output, computed without gradients."""

    def call() -> Sequence[Tensor]:
        with torch.no_grad():
            return (module(x),)

    return call


def train(module: nn.Module, x: Tensor, grad: Tensor) -> Callable[[], Sequence[Tensor]]:
    """A call that returns the output and the gradient of the input."""
    leaf = x.detach().requires_grad_()

    def call() -> Sequence[Tensor]:
        y = module(leaf)
        return (y.detach(), *torch.autograd.grad(y, leaf, grad))

    return call


def providers(
    op: Op, x: Tensor, mode: Mode, compiled: bool, threads_capability: str
) -> list[Provider]:
    """The providers of a case, all with the same input."""
    native, ours = op.native(), op.ours()
    torch.compiler.reset()
    modules: list[tuple[str, Any, str]] = [
        (rows.NATIVE, native, torch.backends.cpu.get_cpu_capability()),
        (rows.OURS, ours, threads_capability),
    ]
    if compiled:
        modules.append((COMPILED, torch.compile(native, dynamic=False), ""))
    found = []
    narrow = x.dtype in (torch.bfloat16, torch.float16)
    view = (lambda results: tuple(results)[:1]) if narrow and op.tolerance else tuple
    grad = torch.randn_like(native(x))
    for name, module, capability in modules:
        call = infer(module, x) if mode is Mode.infer else train(module, x, grad)
        shown = capability if x.device.type == "cpu" else ""
        found.append(Provider(name, call, shown, view))
    if mode is Mode.infer:
        target = torch.empty_like(x)

        def copy() -> Sequence[Tensor]:
            target.copy_(x)
            return ()

        found.append(Provider(rows.LIMIT, copy))
    return found


OPS = {
    "lrn": Op(
        name="LRN",
        file="lrn",
        native=lambda: nn.LocalResponseNorm(5),
        ours=lambda: fastseq.LocalResponseNorm(5),
    ),
    "pool": Op(
        name="pool",
        file="pool",
        native=lambda: nn.MaxPool2d(3, 2),
        ours=lambda: fastseq.MaxPool2d(3, 2),
    ),
    "trio": Op(
        name="trio",
        file="trio",
        native=lambda: nn.Sequential(nn.ReLU(), nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2)),
        ours=lambda: fastseq.ReLULRNMaxPool2d(5),
        # Of two values that are equal but for rounding, one provider may take the other: of
        # millions of gradients a few go to a neighbour.
        tolerance=1e-2,
    ),
}
