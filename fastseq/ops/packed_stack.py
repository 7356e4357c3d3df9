"""A stack whose weights were packed once: for serving, without gradients, on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from fastseq.ops._common import fake
from fastseq.ops._vmap import one_at_a_time
from fastseq.ops.recurrence import Cell

PACKED_STACK = torch.ops.fastseq.packed_stack.default


def pack_layer(
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    weight_hr: Tensor | None,
    cell: int,
) -> Tensor:
    """Pack the weights of a layer in one direction as this machine's kernels read them.

    Args:
        weight_ih: (G*H, I).
        weight_hh: (G*H, R).
        bias_ih: (G*H,).
        bias_hh: (G*H,).
        weight_hr: projection of LSTM, (R, H).
        cell: a ``Cell``.

    Returns:
        Bytes (n,), which say what they are and for which instruction set; those of a stack, layer
        by layer and direction by direction, are put end to end.

    Raises:
        RuntimeError: shapes, dtypes or devices do not fit together.
    """
    made: Tensor = torch.ops.fastseq.pack_layer(
        weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, int(cell)
    )
    return made


def packed_stack(
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    packed: Tensor,
    batch_sizes: Tensor | None,
    cell: int,
    hidden: int,
    state: int,
    layers: int,
    directions: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run a stack on packed weights.

    Args:
        x: (T, B, I), any strides; or (N, I) with ``batch_sizes``.
        h0: (L*D, B, R); zeros if None.
        c0: (L*D, B, H), LSTM only; zeros if None.
        packed: what ``pack_layer`` made of each layer and direction, end to end.
        batch_sizes: rows of each step, int64 on the CPU, as in a PackedSequence.
        cell: a ``Cell``.
        hidden: H.
        state: R, which is H without a projection.
        layers: L.
        directions: D, 1 or 2.

    Returns:
        y (T, B, D*R) or (N, D*R), h_n (L*D, B, R), and c_n (L*D, B, H), empty but for LSTM.

    Raises:
        RuntimeError: shapes, dtypes or devices do not fit together, or the weights were packed for
            another instruction set or stack.
    """
    made: tuple[Tensor, Tensor, Tensor] = PACKED_STACK(
        x, h0, c0, packed, batch_sizes, int(cell), hidden, state, layers, directions
    )
    return made


@fake("packed_stack")
def _fake(
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    packed: Tensor,
    batch_sizes: Tensor | None,
    cell: int,
    hidden: int,
    state: int,
    layers: int,
    directions: int,
) -> tuple[Tensor, Tensor, Tensor]:
    if batch_sizes is None:
        batch = x.shape[1]
    elif h0 is not None:
        batch = h0.shape[1]
    else:
        raise NotImplementedError(
            "fastseq::packed_stack cannot be traced with batch_sizes and without h0"
        )
    rows = layers * directions
    c_n = x.new_empty((rows, batch, hidden) if cell == Cell.LSTM else (0,))
    y = x.new_empty((*x.shape[:-1], directions * state))
    return y, x.new_empty((rows, batch, state)), c_n


torch.library.register_vmap("fastseq::packed_stack", one_at_a_time(PACKED_STACK))
