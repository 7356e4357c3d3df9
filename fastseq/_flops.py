"""What ``torch.utils.flop_counter.FlopCounterMode`` counts for fastseq's ops: matrix products.

A product of (m, k) and (k, n) is 2 m k n operations, as for torch's own; activations, norms and
pooling count nothing, as there.
"""

from __future__ import annotations

from math import prod
from types import ModuleType
from typing import Any

import torch

from fastseq._imports import once_imported
from fastseq.ops import Cell, Wanted

_Shape = Any  # of a tensor argument, or None


def _loop(rows: int, weight_hh: _Shape, weight_hr: _Shape) -> int:
    """The recurrent products of all rows of a sequence, by the weights of their direction."""
    each: int = prod(weight_hh[-2:])
    if weight_hr is not None:
        each += prod(weight_hr[-2:])
    return 2 * rows * each


def layer(
    x: _Shape,
    h0: _Shape,
    c0: _Shape,
    weight_ih: _Shape,
    weight_hh: _Shape,
    bias_ih: _Shape,
    bias_hh: _Shape,
    weight_hr: _Shape,
    *rest: Any,
    **_: Any,
) -> int:
    """Input product and time loop; without weight_ih the input product was made before."""
    rows = prod(x[:-1])
    product = 2 * rows * prod(weight_ih) if weight_ih is not None else 0
    return product + _loop(rows, weight_hh, weight_hr)


def layer_backward(*args: Any, **_: Any) -> int:
    """Through the recurrent products, and the products that make the gradients asked for."""
    x, weight_ih, weight_hh, weight_hr = args[5], *args[11:14]
    return _backward(prod(x[:-1]), weight_ih, weight_hh, weight_hr, args[-1])


def extended_layer_backward(*args: Any, **_: Any) -> int:
    """As ``layer_backward``; its arguments are those of forward behind gradients and results."""
    x, weight_ih, weight_hh, weight_hr = args[8], args[11], args[12], args[15]
    return _backward(prod(x[:-1]), weight_ih, weight_hh, weight_hr, args[-1])


def _backward(
    rows: int, weight_ih: _Shape, weight_hh: _Shape, weight_hr: _Shape, wanted: int
) -> int:
    flops = _loop(rows, weight_hh, weight_hr)
    for flag, weight in (
        (Wanted.INPUT, weight_ih),
        (Wanted.WEIGHT_IH, weight_ih),
        (Wanted.WEIGHT_HH, weight_hh),
        (Wanted.WEIGHT_HR, weight_hr),
    ):
        if wanted & flag and weight is not None:
            flops += 2 * rows * prod(weight)
    return flops


def recurrence(pre: _Shape, h0: _Shape, c0: _Shape, weight_hh: _Shape, *rest: Any, **_: Any) -> int:
    """The time loop alone."""
    return _loop(prod(pre[:-1]), weight_hh, rest[1])


def recurrence_backward(*args: Any, **_: Any) -> int:
    """Back through the time loop alone."""
    y, weight_hh, weight_hr = args[5], args[10], args[11]
    return _loop(prod(y[:-1]), weight_hh, weight_hr)


def step(
    x: _Shape, h: _Shape, c: _Shape, weight_ih: _Shape, weight_hh: _Shape, *rest: Any, **_: Any
) -> int:
    """One step of a cell."""
    return 2 * int(x[0]) * (prod(weight_ih) + prod(weight_hh))


def linear(x: _Shape, weight: _Shape, *rest: Any, **_: Any) -> int:
    """The product alone."""
    return 2 * int(prod(x[:-1]) * prod(weight))


def packed_stack(
    x: _Shape,
    h0: _Shape,
    c0: _Shape,
    packed: _Shape,
    batch_sizes: _Shape,
    cell: int,
    hidden: int,
    state: int,
    layers: int,
    directions: int,
    **_: Any,
) -> int:
    """Every layer and direction: the input product, the loop, and the projection."""
    wide = Cell(cell).gates * hidden
    projection = state * hidden if state != hidden else 0
    inputs = [int(x[-1])] + [directions * state] * (layers - 1)
    each = sum(wide * (size + state) + projection for size in inputs)
    return 2 * int(prod(x[:-1])) * directions * each


_FORMULAS = {
    "layer": layer,
    "extended_layer": layer,
    "layer_backward": layer_backward,
    "extended_layer_backward": extended_layer_backward,
    "recurrence": recurrence,
    "recurrence_backward": recurrence_backward,
    "recurrence_persistent": recurrence,
    "recurrence_persistent_backward": recurrence_backward,
    "packed_stack": packed_stack,
    "step": step,
    "step_": step,
    "linear": linear,
}


def _register(counter: ModuleType) -> None:
    for name, formula in _FORMULAS.items():
        counter.register_flop_formula(getattr(torch.ops.fastseq, name))(formula)


once_imported("torch.utils.flop_counter", _register)
