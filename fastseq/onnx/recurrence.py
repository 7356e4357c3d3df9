"""A recurrent layer as ONNX's LSTM, GRU or RNN node."""

from __future__ import annotations

from typing import Any

from onnxscript import ir

from fastseq.onnx._common import Value, absent, ints, narrowed, op, widened
from fastseq.ops import Cell, Extras

# The places in torch.nn of ONNX's gates: LSTM's i o f c are i f g o there, GRU's z r h are r z n.
GATES = {Cell.LSTM: (0, 3, 1, 2), Cell.GRU: (1, 0, 2), Cell.RNN_TANH: (0,), Cell.RNN_RELU: (0,)}

HR, TENSORS = 7, 9  # arguments: the projection, and how many come before the extras


def layer(
    x: Value,  # (T, B, I)
    h0: Value,  # (B, R)
    c0: Value,  # (B, H)
    weight_ih: Value,  # (G*H, I)
    weight_hh: Value,  # (G*H, R)
    bias_ih: Value,  # (G*H,)
    bias_hh: Value,  # (G*H,)
    weight_hr: Value,  # (R, H)
    batch_sizes: Value,
    cell: int,
    reverse: bool,
    save: bool,
    *,
    lengths: Value = None,  # (B,)
) -> tuple[Value, ...]:
    """``ops.layer``: y, h_n and c_n; the activations for backward are not to be had."""
    if batch_sizes is not None:
        raise NotImplementedError(
            "ONNX has no packed batches, and this model gives a recurrent layer a PackedSequence. "
            "Give the module the padded batch, module(x, lengths=n), or export within "
            "fastseq.onnx.packed_as_lengths()."
        )
    kind, given = Cell(cell), x
    x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr = map(
        widened, (x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr)
    )
    hidden = int(weight_hh.shape[0]) // kind.gates
    if weight_hr is None:
        initial_h = op.Unsqueeze(h0, ints(0))
    else:
        x, weight_ih, weight_hh = _folded(x, h0, weight_ih, weight_hh, weight_hr, reverse)
        initial_h = None  # zeros: what h0 does to the first step has become a part of its input
    inputs = [
        x,
        _reordered(weight_ih, kind, hidden),
        _reordered(weight_hh, kind, hidden),
        None if bias_ih is None else _biases(bias_ih, bias_hh, kind, hidden),
        None if lengths is None else op.Cast(lengths, to=ir.DataType.INT32),
        initial_h,
    ]
    attributes = {"hidden_size": hidden, "direction": "reverse" if reverse else "forward"}
    c_n = op.Constant(value=ir.tensor([], dtype=given.dtype))
    if kind == Cell.LSTM:
        y, h_n, c_n = op.LSTM(*inputs, op.Unsqueeze(c0, ints(0)), **attributes)
        c_n = narrowed(op.Squeeze(c_n, ints(0)), given)
    elif kind == Cell.GRU:
        # torch.nn's form: r scales W_hn h + b_hn.
        y, h_n = op.GRU(*inputs, linear_before_reset=1, **attributes)
    else:
        function = "Tanh" if kind == Cell.RNN_TANH else "Relu"
        y, h_n = op.RNN(*inputs, activations=[function], **attributes)
    y, h_n = op.Squeeze(y, ints(1)), op.Squeeze(h_n, ints(0))
    if weight_hr is not None:
        projection = op.Transpose(weight_hr, perm=[1, 0])
        y, h_n = op.MatMul(y, projection), op.MatMul(h_n, projection)
    return narrowed(y, given), narrowed(h_n, given), c_n, absent(), absent()


def extended_layer(*args: Any) -> tuple[Value, ...]:
    """``ops.extended_layer`` with lengths, and nothing else that the plain layer has not."""
    extras = Extras._make(args[TENSORS:-3])
    used = [
        name
        for name, value in zip(Extras._fields[1:-1], extras[1:-1], strict=True)
        if value is not None
    ]
    if used:
        raise NotImplementedError(
            "ONNX's LSTM, GRU and RNN nodes have lengths and initial states, and this model asks a "
            f"recurrent layer for {', '.join(used)} (fastseq.ops.Extras). Export it without."
        )
    if args[HR] is not None and extras.lengths is not None:
        raise NotImplementedError(
            "A projected LSTM with lengths has no ONNX node. Export it without one of them."
        )
    return (*layer(*args[:TENSORS], *args[-3:], lengths=extras.lengths), absent())


def _reordered(weight: Value, kind: Cell, hidden: int) -> Value:
    """(G*H, K) as (1, G*H, K), with ONNX's order of gates."""
    if kind.gates == 1:
        return op.Unsqueeze(weight, ints(0))
    gates = op.Reshape(weight, ints(1, kind.gates, hidden, -1))
    ordered = op.Gather(gates, ints(*GATES[kind]), axis=1)
    return op.Reshape(ordered, ints(1, kind.gates * hidden, -1))


def _biases(bias_ih: Value, bias_hh: Value, kind: Cell, hidden: int) -> Value:
    """(1, 2*G*H): those of the input first."""
    both = op.Concat(bias_ih, bias_hh, axis=0)
    if kind.gates == 1:
        return op.Unsqueeze(both, ints(0))
    gates = op.Reshape(both, ints(1, 2, kind.gates, hidden))
    ordered = op.Gather(gates, ints(*GATES[kind]), axis=2)
    return op.Reshape(ordered, ints(1, -1))


def _folded(
    x: Value, h0: Value, weight_ih: Value, weight_hh: Value, weight_hr: Value, reverse: bool
) -> tuple[Value, Value, Value]:
    """Input and weights of an LSTM without projection whose hidden states await theirs.

    With ``h = W_hr m`` the recurrent product is ``W_hh h = (W_hh W_hr) m``. Only h0 is no
    projection of anything: it is appended to the first input, and W_hh to the input weights.
    """
    before_and_after = op.Sub(op.Shape(x, start=0, end=1), ints(1))
    pads = [ints(0), before_and_after]
    first = op.Pad(
        op.Unsqueeze(h0, ints(0)),
        op.Concat(*(reversed(pads) if reverse else pads), axis=0),
        None,
        ints(0),
    )
    return (
        op.Concat(x, first, axis=2),
        op.Concat(weight_ih, weight_hh, axis=1),
        op.MatMul(weight_hh, weight_hr),
    )


def linear(x: Value, weight: Value, turned: bool) -> Value:
    """``ops.linear``: x W^T, or x W."""
    return op.MatMul(x, weight if turned else op.Transpose(weight, perm=[1, 0]))
