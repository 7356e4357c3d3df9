"""What the translations share. ``op`` makes nodes in the graph that is being exported."""

from __future__ import annotations

from typing import Any

from onnxscript import ir, opset18

op: Any = opset18  # the exporter's oldest; its nodes are valid in later ones
Value = Any  # an ir.Value: a tensor in the graph
LAST = 2**63 - 1  # as the end of a slice


def ints(*values: int) -> Value:
    """A constant 1-D int64 tensor."""
    return op.Constant(value_ints=list(values))


def number(value: float, like: Value) -> Value:
    """A constant scalar of another tensor's dtype."""
    return op.Constant(value=ir.tensor(value, dtype=like.dtype))


def widened(value: Value) -> Value:
    """The tensor in float32 if it is bfloat16, which most nodes of this opset do not take."""
    if value is None or value.dtype != ir.DataType.BFLOAT16:
        return value
    return typed(op.Cast(value, to=ir.DataType.FLOAT), ir.DataType.FLOAT, value.shape)


def narrowed(value: Value, like: Value) -> Value:
    """The tensor in bfloat16 if the other one is."""
    if like.dtype != ir.DataType.BFLOAT16:
        return value
    return op.Cast(value, to=ir.DataType.BFLOAT16)


def typed(value: Value, dtype: ir.DataType, shape: ir.Shape | None) -> Value:
    """The tensor, knowing its dtype and shape as those that come from the model do."""
    value.dtype = dtype
    value.shape = shape
    return value


def absent() -> Value:
    """A result that only backward reads: a name in no node's outputs, so that using it fails."""
    return ir.Value()
