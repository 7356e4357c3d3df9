"""What `fastseq check` runs: the shapes and options of every op, one family a kind of op.

A new op joins by a function that yields its cases, added to `FAMILIES` at the end of this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

Outputs = Sequence[Tensor]


@dataclass(frozen=True)
class Case:
    """One configuration of one op.

    Attributes:
        op: Name of the op, the table's first column.
        shape: Sizes and options in words, the second column.
        build: Makes the module from a library, which is `torch.nn` or `fastseq.nn`.
        inputs: Shapes of the inputs, all of which are differentiated.
        forward: Applies the module to the inputs and returns the outputs to compare.
        wide_only: Leave out bfloat16 and float16.
    """

    op: str
    shape: str
    build: Callable[[ModuleType], nn.Module]
    inputs: tuple[tuple[int, ...], ...]
    forward: Callable[[nn.Module, Sequence[Tensor]], Outputs]
    wide_only: bool = False


def recurrent_cases() -> Iterator[Case]:
    """LSTM, GRU and RNN: every option, and sizes that no vector width divides."""
    for op in ("LSTM", "GRU", "RNN"):
        yield _recurrent(op, 7, 3, 5, 6)
        yield _recurrent(op, 28, 16, 28, 128)
        yield _recurrent(op, 12, 9, 17, 33)
        yield _recurrent(op, 1, 4, 6, 8)
        # One unit's gradient is one number, whose terms may cancel below 16-bit resolution.
        yield replace(_recurrent(op, 3, 5, 1, 1), wide_only=True)
        yield _recurrent(op, 3, 5, 3, 2)
        yield _recurrent(op, 6, 1, 10, 65)
        yield _recurrent(op, 8, 0, 5, 7)
        yield _recurrent(op, 6, 4, 5, 7, state=False)
        yield _recurrent(op, 6, 4, 5, 7, bias=False)
        yield _recurrent(op, 6, 4, 5, 7, batch_first=True)
        yield _recurrent(op, 6, 4, 5, 7, transposed=True)
        yield _recurrent(op, 7, 5, 6, 9, bidirectional=True)
        yield _recurrent(op, 7, 5, 6, 9, num_layers=2)
        yield _recurrent(op, 7, 5, 6, 9, num_layers=2, bidirectional=True)
        yield _recurrent(op, 7, 4, 6, 9, lengths=(3, 7, 1, 5))
        yield _recurrent(
            op, 7, 4, 6, 9, lengths=(3, 7, 1, 5), num_layers=2, bidirectional=True, batch_first=True
        )
        yield _recurrent(op, 7, 4, 6, 9, lengths=(3, 7, 1, 5), padded=True, bidirectional=True)
    yield _recurrent("LSTM", 7, 4, 6, 11, proj_size=5)
    yield _recurrent("LSTM", 7, 4, 6, 11, proj_size=5, num_layers=2, bidirectional=True)
    yield _recurrent("LSTM", 7, 4, 6, 11, proj_size=5, lengths=(3, 7, 1, 5))
    yield _recurrent("RNN", 4, 2, 5, 6, nonlinearity="relu")
    # ReLU's slope jumps at zero: among many units 16-bit rounding puts one on the other side.
    relu = _recurrent("RNN", 12, 9, 17, 33, nonlinearity="relu", bidirectional=True)
    yield replace(relu, wide_only=True)


def cell_cases() -> Iterator[Case]:
    """LSTMCell, GRUCell and RNNCell: one step."""
    for op in ("LSTMCell", "GRUCell", "RNNCell"):
        yield _cell(op, 3, 5, 6)
        yield _cell(op, 1, 3, 2)
        yield _cell(op, 9, 17, 33)
        yield _cell(op, 16, 28, 128)
        yield _cell(op, 4, 5, 7, bias=False)
    yield replace(_cell("RNNCell", 9, 17, 33, nonlinearity="relu"), wide_only=True)


def image_cases() -> Iterator[Case]:
    """LocalResponseNorm and MaxPool2d in both memory formats."""
    for last in (False, True):
        for shape in ((2, 7, 9, 11), (1, 96, 13, 13), (3, 33, 3, 2)):
            yield _image("LocalResponseNorm", shape, last, 5, alpha=0.1, k=2.0)
            yield _image("MaxPool2d", shape, last, 3, stride=2, padding=1)
        yield _image("LocalResponseNorm", (2, 7, 9, 11), last, 4, alpha=0.1, beta=0.6)
        yield _image("LocalResponseNorm", (2, 7, 9, 11), last, 3, alpha=0.1, beta=0.5)
        yield _image("MaxPool2d", (2, 7, 9, 11), last, 3, stride=1, dilation=2)
        yield _image("MaxPool2d", (2, 7, 9, 11), last, 2, ceil_mode=True)
    yield _image("LocalResponseNorm", (2, 7, 9), False, 5, alpha=0.1)
    yield _image("MaxPool2d", (7, 9, 11), False, 3, stride=2)


def _image(op: str, shape: tuple[int, ...], last: bool, size: int, **options: Any) -> Case:
    def build(library: ModuleType) -> nn.Module:
        module: nn.Module = getattr(library, op)(size, **options)
        return module

    def forward(module: nn.Module, values: Sequence[Tensor]) -> Outputs:
        (x,) = values
        return [module(x.contiguous(memory_format=torch.channels_last) if last else x)]

    words = [" x ".join(map(str, shape)), f"size={size}", _words(options), "NHWC" * last]
    return Case(op, " ".join(filter(None, words)), build, (shape,), forward)


def _recurrent(
    op: str,
    steps: int,
    batch: int,
    width: int,
    hidden: int,
    *,
    state: bool = True,
    transposed: bool = False,
    lengths: tuple[int, ...] = (),
    padded: bool = False,
    **options: Any,
) -> Case:
    batch_first = options.get("batch_first", False)

    def build(library: ModuleType) -> nn.Module:
        module: nn.Module = getattr(library, op)(width, hidden, **options)
        return module

    def forward(module: nn.Module, values: Sequence[Tensor]) -> Outputs:
        x, *initial = values
        x = x.transpose(0, 1) if transposed else x
        hx = None if not initial else tuple(initial) if op == "LSTM" else initial[0]
        if padded and not isinstance(module, (nn.LSTM, nn.GRU, nn.RNN)):
            output, final = module(x, hx, lengths=torch.tensor(lengths, device=x.device))
        elif lengths:
            packed = pack_padded_sequence(x, list(lengths), batch_first, enforce_sorted=False)
            output, final = module(packed, hx)
            if padded:
                output = pad_packed_sequence(output, batch_first, total_length=steps)[0]
            else:
                output = output.data  # (sum of lengths, D * H)
        else:
            output, final = module(x, hx)
        return [output, *(final if op == "LSTM" else (final,))]

    x = (batch, steps, width) if batch_first or transposed else (steps, batch, width)
    stacked = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    h0 = (stacked, batch, options.get("proj_size", hidden))
    initial = [h0, (stacked, batch, hidden)] if op == "LSTM" else [h0]
    words = [f"T={steps} B={batch} I={width} H={hidden}"]
    words += ["" if state else "no hx", "transposed" if transposed else "", _words(options)]
    ragged = f"{'padded, ' * padded}lengths {','.join(map(str, lengths))}"
    words += [ragged if lengths else ""]
    shape = " ".join(filter(None, words))
    return Case(op, shape, build, (x, *(initial if state else [])), forward)


def _cell(op: str, batch: int, width: int, hidden: int, **options: Any) -> Case:
    def build(library: ModuleType) -> nn.Module:
        module: nn.Module = getattr(library, op)(width, hidden, **options)
        return module

    def forward(module: nn.Module, values: Sequence[Tensor]) -> Outputs:
        x, *state = values
        if op == "LSTMCell":
            return list(module(x, tuple(state)))
        return [module(x, state[0])]

    states = 2 if op == "LSTMCell" else 1
    shape = " ".join(filter(None, [f"B={batch} I={width} H={hidden}", _words(options)]))
    return Case(op, shape, build, ((batch, width), *[(batch, hidden)] * states), forward)


def _words(options: dict[str, Any]) -> str:
    words = []
    for name, value in options.items():
        if isinstance(value, bool):
            words.append(name if value else f"no {name}")
        else:
            words.append(value if isinstance(value, str) else f"{name}={value}")
    return " ".join(words)


FAMILIES: list[Callable[[], Iterator[Case]]] = [recurrent_cases, cell_cases, image_cases]
