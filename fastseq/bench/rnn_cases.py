"""The cases of the recurrence's benchmarks: cells, modes, inputs, and who computes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import fastseq
from fastseq.bench import harness, rows
from fastseq.bench.harness import Provider

ONNX = "ONNX Runtime"
COMPILED = "torch.compile"
# Inductor unrolls the time loop: 28 steps compile in 15 to 35 seconds, 128 in more than a minute.
COMPILED_STEPS = 32

Shape = tuple[int, int, int, int]  # T, B, I, H


class Cell(str, Enum):
    """Recurrences."""

    lstm = "lstm"
    gru = "gru"
    rnn = "rnn"


class DType(str, Enum):
    """Element types of parameters, input and gradients."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Mode(str, Enum):
    """What is timed.

    ``infer`` is the forward without gradients; ``forward`` the forward of training, which saves
    what the backward needs; ``train`` forward, and the gradients of parameters and input.
    """

    infer = "infer"
    forward = "forward"
    train = "train"


class Layout(str, Enum):
    """A (T, B, I) input, or a PackedSequence of rows with random lengths up to T."""

    dense = "dense"
    packed = "packed"


TORCH_DTYPE = {
    DType.float32: torch.float32,
    DType.bfloat16: torch.bfloat16,
    DType.float16: torch.float16,
}
# Of float32 on a GPU, where recurrences multiply in TF32 if torch is not told otherwise.
TF32_TOLERANCE = 5e-3
# By default: float16 is a GPU's, and on a CPU nobody's choice.
DTYPES = {
    "cpu": [DType.float32, DType.bfloat16],
    "cuda": [DType.float32, DType.bfloat16, DType.float16],
}
Maker = Callable[..., nn.RNNBase]
MODULES: dict[Cell, tuple[Maker, Maker]] = {
    Cell.lstm: (nn.LSTM, fastseq.LSTM),
    Cell.gru: (nn.GRU, fastseq.GRU),
    Cell.rnn: (nn.RNN, fastseq.RNN),
}


@dataclass(frozen=True)
class Case:
    """One cell of the grid."""

    cell: Cell
    dtype: DType
    mode: Mode
    layout: Layout
    shape: Shape
    layers: int = 1
    directions: int = 1

    def columns(self) -> rows.Row:
        """The columns of a row that name the case, but for its shape."""
        both = "bi" if self.directions > 1 else ""
        deep = f"x{self.layers}" if self.layers > 1 else ""
        return {
            "op": both + self.cell.value.upper() + deep,
            "dtype": self.dtype.value,
            "mode": self.mode.value,
            "layout": self.layout.value,
        }

    def sizes(self) -> dict[str, int]:
        """The columns of the shape."""
        return dict(zip("TBIH", self.shape, strict=True))

    def lengths(self) -> Tensor:
        """The rows' lengths, (B,), longest first: all T, or random ones if packed."""
        steps, batch, _, _ = self.shape
        if self.layout is Layout.dense:
            return torch.full((batch,), steps)
        seeded = torch.Generator().manual_seed(0)
        drawn = torch.randint(1, steps + 1, (batch,), generator=seeded)
        return drawn.sort(descending=True).values


def tolerance(case: Case, device: torch.device) -> float:
    """How far apart two providers may be, relative to the norm of a result."""
    if device.type == "cuda" and case.dtype is DType.float32:
        return TF32_TOLERANCE
    return harness.TOLERANCE[TORCH_DTYPE[case.dtype]]


def first(result: Any) -> Tensor:
    """The elements of a module's output: of the first entry if it returns several."""
    if isinstance(result, PackedSequence):
        return result.data
    return result if isinstance(result, Tensor) else first(result[0])


def caller(
    module: Any, mode: Mode, x: Tensor | PackedSequence, grad: Tensor
) -> Callable[[], Sequence[Tensor]]:
    """A call that does one mode's work.

    Args:
        module: a layer, a single-step cell, or either under torch.compile.
        mode: what to do.
        x: the input.
        grad: of the output, like it; only training reads it.

    Returns:
        a function that returns the output and, in training, the gradients of the input and of
        every parameter.
    """
    module.train(mode is not Mode.infer)
    if mode is Mode.infer:

        def infer() -> Sequence[Tensor]:
            with torch.inference_mode():
                return (first(module(x)),)

        return infer
    leaf = first(x).detach().requires_grad_()
    inputs = x._replace(data=leaf) if isinstance(x, PackedSequence) else leaf
    if mode is Mode.forward:

        def forward() -> Sequence[Tensor]:
            return (first(module(inputs)).detach(),)

        return forward
    wanted = [leaf, *module.parameters()]

    def train() -> Sequence[Tensor]:
        output = first(module(inputs))
        return (output.detach(), *torch.autograd.grad(output, wanted, grad))

    return train


def onnx_installed() -> bool:
    """Whether onnx and onnxruntime are there."""
    return all(find_spec(name) is not None for name in ("onnx", "onnxruntime"))


def capabilities(device: torch.device) -> tuple[str, str]:
    """The instruction sets that torch and fastseq report; empty where they are not a CPU's."""
    if device.type != "cpu":
        return "", ""
    ours = fastseq.info()["CPU capability"].partition(" ")[0]
    return torch.backends.cpu.get_cpu_capability(), ours


def layers(case: Case, device: torch.device) -> tuple[nn.RNNBase, nn.RNNBase]:
    """torch.nn's layer and fastseq's, with the same weights."""
    torch.manual_seed(0)
    native, ours = (
        kind(
            *case.shape[2:],
            num_layers=case.layers,
            bidirectional=case.directions > 1,
            device=device,
            dtype=TORCH_DTYPE[case.dtype],
        )
        for kind in MODULES[case.cell]
    )
    ours.load_state_dict(native.state_dict())
    return native, ours


def tensors(case: Case, device: torch.device) -> tuple[Tensor | PackedSequence, Tensor]:
    """The input, and a gradient of the output."""
    steps, batch, width, hidden = case.shape
    dtype = TORCH_DTYPE[case.dtype]
    torch.manual_seed(0)
    x: Any = torch.randn(steps, batch, width, device=device).to(dtype)
    if case.layout is Layout.packed:
        x = pack_padded_sequence(x, case.lengths())
    width = hidden * case.directions
    grad = torch.randn(*first(x).shape[:-1], width, device=device).to(dtype)
    return x, grad


def providers(
    case: Case,
    threads: int,
    device: torch.device,
    compiled: bool = False,
    frozen: bool = False,
) -> list[Provider]:
    """The providers of a case, all with the same weights and the same input.

    Args:
        case: what to compute.
        threads: that ONNX Runtime is given; torch has been given them.
        device: where.
        compiled: torch.nn under torch.compile as well, if the sequences are dense and short.
        frozen: ours after ``fastseq.freeze`` as well, in inference on the CPU.
    """
    native, ours = layers(case, device)
    x, grad = tensors(case, device)
    theirs, own = capabilities(device)
    found = [
        Provider(rows.NATIVE, caller(native, case.mode, x, grad), theirs),
        Provider(rows.OURS, caller(ours, case.mode, x, grad), own),
    ]
    if frozen and case.mode is Mode.infer and device.type == "cpu":
        served = fastseq.freeze(ours)
        found.append(Provider(rows.FROZEN, caller(served, case.mode, x, grad), own))
    short = case.layout is Layout.dense and case.shape[0] <= COMPILED_STEPS
    if compiled and short:
        torch.compiler.reset()
        # Without this, Dynamo leaves torch.nn's recurrences out and runs them eagerly.
        torch._dynamo.config.allow_rnn = True
        module = torch.compile(native, dynamic=False)
        found.append(Provider(COMPILED, caller(module, case.mode, x, grad)))
    if (
        case.mode is Mode.infer
        and case.dtype is DType.float32
        and device.type == "cpu"
        and onnx_installed()
    ):
        found.append(onnx_provider(native, x, threads))
    return found


def onnx_provider(layer: nn.RNNBase, x: Tensor | PackedSequence, threads: int) -> Provider:
    """ONNX Runtime with a layer's weights; a ragged batch goes in and comes out padded."""
    from fastseq.bench import onnx_rnn

    if not isinstance(x, PackedSequence):
        return Provider(ONNX, onnx_rnn.inference(layer, x, None, threads))
    padded, lengths = nn.utils.rnn.pad_packed_sequence(x)

    def pack(results: Sequence[Tensor]) -> Sequence[Tensor]:
        return tuple(pack_padded_sequence(result, lengths).data for result in results)

    return Provider(ONNX, onnx_rnn.inference(layer, padded, lengths, threads), view=pack)
