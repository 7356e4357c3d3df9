"""What the tests of the recurrence share: twin modules, one call with all gradients, comparison."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import fastseq
from fastseq.ops import Cell, Forward, Wanted

KINDS = ["LSTM", "GRU", "RNN"]
CELLS = ["LSTMCell", "GRUCell", "RNNCell"]
TOLERANCES = {torch.float32: 2e-5, torch.float64: 1e-11}
Hidden = Tensor | tuple[Tensor, ...] | None


def twins(kind: str, *args: Any, seed: int = 0, **kwargs: Any) -> tuple[nn.Module, nn.Module]:
    """fastseq's module and torch.nn's, built from the same seed."""
    made = []
    for library in (fastseq, nn):
        torch.manual_seed(seed)
        made.append(getattr(library, kind)(*args, **kwargs))
    return made[0], made[1]


def numbers(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normal numbers that depend on the seed and the shape alone."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def states(module: nn.RNNBase, batch: int | None, seed: int = 2) -> Hidden:
    """An hx for the module, in its dtype; unbatched where ``batch`` is None."""
    rows = module.num_layers * (2 if module.bidirectional else 1)
    sizes = [module.proj_size or module.hidden_size]
    if module.mode == "LSTM":
        sizes.append(module.hidden_size)
    dtype = module.weight_ih_l0.dtype
    made = tuple(
        numbers(rows, *([] if batch is None else [batch]), size, seed=seed + i, dtype=dtype)
        for i, size in enumerate(sizes)
    )
    return made if module.mode == "LSTM" else made[0]


def packed(lengths: list[int], width: int, dtype: torch.dtype = torch.float32) -> PackedSequence:
    """A PackedSequence of these lengths, sorted or not."""
    in_order = lengths == sorted(lengths, reverse=True)
    x = numbers(max(lengths), len(lengths), width, dtype=dtype)
    return pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=in_order)


def leaves(value: Any) -> list[Tensor]:
    """The tensors in a nest of tuples; of a PackedSequence the data."""
    if value is None:
        return []
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, PackedSequence):
        return [value.data]
    return [t for part in value for t in leaves(part)]


def fresh(value: Any) -> Any:
    """The same nest with leaves that gather gradients, strides kept."""
    if value is None:
        return None
    if isinstance(value, Tensor):
        return value.detach().requires_grad_()
    if isinstance(value, PackedSequence):
        return value._replace(data=value.data.detach().requires_grad_())
    return tuple(fresh(part) for part in value)


def call(
    module: nn.Module, *args: Any, grads: list[Tensor] | None = None, seed: int = 7
) -> dict[str, Tensor]:
    """Outputs by place, and the gradients of every argument and parameter, by name.

    The outputs' gradients are ``grads``, or random numbers from the seed of dropout and all.
    """
    args = fresh(args)
    module.zero_grad()
    torch.manual_seed(seed)
    outputs = leaves(module(*args))
    if grads is None:
        grads = [numbers(*o.shape, seed=20 + i, dtype=o.dtype) for i, o in enumerate(outputs)]
    grads = [g.to(o.device) for g, o in zip(grads, outputs, strict=True)]
    torch.autograd.backward(outputs, grads)
    found = {f"output {i}": o.detach() for i, o in enumerate(outputs)}
    named = [(f"argument {i}", t) for i, t in enumerate(leaves(args))]
    for name, t in [*named, *module.named_parameters()]:
        if t.grad is not None:
            found[f"gradient of {name}"] = t.grad.clone()
    return found


def assert_close(
    actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float, nan: bool = False
) -> None:
    """Same names, shapes, dtypes and, within the tolerance of each tensor's scale, numbers."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        finite = value[value.isfinite()]
        scale = max(1.0, finite.abs().max().item()) if finite.numel() else 1.0
        torch.testing.assert_close(
            actual[name],
            value,
            rtol=0,
            atol=tolerance * scale,
            equal_nan=nan,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def assert_equal(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Bit for bit the same."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name


def layer_tensors(
    cell: Cell,
    *,
    steps: int = 4,
    batch: int = 3,
    hidden: int = 5,
    project: int | None = None,
    sizes: Iterable[int] | None = None,
    dtype: torch.dtype = torch.float64,
) -> dict[str, Any]:
    """The arguments of ``ops.recurrence`` for one layer, by name."""
    state = project or hidden
    batch_sizes = None if sizes is None else torch.tensor(list(sizes))
    rows = [steps, batch] if batch_sizes is None else [int(batch_sizes.sum())]
    if batch_sizes is not None and len(batch_sizes):
        batch = int(batch_sizes[0])
    lstm = cell == Cell.LSTM
    return {
        "pre": numbers(*rows, cell.gates * hidden, seed=1, dtype=dtype),
        "h0": numbers(batch, state, seed=2, dtype=dtype),
        "c0": numbers(batch, hidden, seed=3, dtype=dtype) if lstm else None,
        "weight_hh": 0.4 * numbers(cell.gates * hidden, state, seed=4, dtype=dtype),
        "bias_hn": numbers(hidden, seed=5, dtype=dtype) if cell == Cell.GRU else None,
        "weight_hr": 0.4 * numbers(project, hidden, seed=6, dtype=dtype) if project else None,
        "batch_sizes": batch_sizes,
        "cell": int(cell),
        "reverse": False,
    }


def whole_layer(cell: Cell, *, width: int = 7, bias: bool = True, **options: Any) -> dict[str, Any]:
    """The arguments of ``ops.layer``, by name; options as of ``layer_tensors``."""
    made = layer_tensors(cell, **options)
    pre, weight_hh = made["pre"], made["weight_hh"]
    rows, dtype = pre.shape[-1], pre.dtype
    weight_hr = made["weight_hr"]
    return {
        "x": numbers(*pre.shape[:-1], width, seed=1, dtype=dtype),
        "h0": made["h0"],
        "c0": made["c0"],
        "weight_ih": numbers(rows, width, seed=7, dtype=dtype) / max(1, width) ** 0.5,
        "weight_hh": 2.5 * weight_hh / weight_hh.shape[1] ** 0.5,
        "bias_ih": numbers(rows, seed=8, dtype=dtype) if bias else None,
        "bias_hh": numbers(rows, seed=9, dtype=dtype) if bias else None,
        "weight_hr": None if weight_hr is None else 2.5 * weight_hr / weight_hr.shape[1] ** 0.5,
        **{n: made[n] for n in ("batch_sizes", "cell", "reverse")},
    }


def whole_layer_backward(
    forward: dict[str, Any], saved: Iterable[Tensor], wanted: int, used: str = "all"
) -> dict[str, Any]:
    """The arguments of ``ops.layer_backward``: random gradients of the outputs in ``used``."""
    outputs = dict(zip(Forward._fields, saved, strict=True))
    grads = {}
    for i, (name, t) in enumerate(outputs.items()):
        usable = t.numel() > 0 and (used == "all" or name in used.split())
        grads[f"grad_{name}"] = numbers(*t.shape, seed=60 + i, dtype=t.dtype) if usable else None
    names = ("h0", "c0", "weight_ih", "weight_hh", "weight_hr", "batch_sizes", "cell", "reverse")
    return {
        **grads,
        "x": forward["x"],
        **{n: outputs[n] for n in ("y", "gates", "cells")},
        **{n: forward[n] for n in names},
        "wanted": wanted,
    }


def all_wanted(forward: dict[str, Any]) -> int:
    """Every gradient that these arguments of ``ops.layer`` have."""
    flags = Wanted.INPUT | Wanted.WEIGHT_IH | Wanted.WEIGHT_HH | Wanted.STATES
    if forward["bias_ih"] is not None:
        flags |= Wanted.BIASES
    if forward["weight_hr"] is not None:
        flags |= Wanted.WEIGHT_HR
    return int(flags)
