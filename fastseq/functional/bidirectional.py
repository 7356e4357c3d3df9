"""Both directions of a layer in one launch on a GPU: when, and the call."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fastseq import autograd
from fastseq.functional import cuda_stack
from fastseq.functional.options import Options
from fastseq.ops import Cell, persistent
from fastseq.ops.persistent import PLAIN, Masks


def masks_alone(options: Options, train: bool) -> bool:
    """Whether nothing but lengths and resets is asked for."""
    random = options.recurrent_dropout, *options.zoneout, options.weight_dropout
    drops = train and any(p > 0 for p in random)
    return not (drops or options.norms or options.cell_states or options.recompute)


def in_one_launch(
    cell: Cell,
    x: Tensor,
    states: Sequence[Tensor],
    params: Sequence[Sequence[Tensor]],
    has_biases: bool,
    batch_sizes: Tensor | None,
    options: Options,
    layer: int,
    train: bool,
) -> list[tuple[Tensor, ...]]:
    """Both directions of a layer, if one launch takes them; else nothing.

    Args:
        cell: which.
        x: the layer's input, (T, B, I) or packed rows (N, I).
        states: of the stack, (L*2, B, .) each.
        params: of the layer's directions.
        has_biases: whether ``params`` hold biases.
        batch_sizes: of packed rows.
        options: of the stack.
        layer: which of the stack's.
        train: whether the regularisers are active.

    Returns:
        y, h_n and for LSTM c_n: each of both directions.
    """
    if x.device.type not in persistent.DEVICES or cuda_stack.observed():
        return []
    if not masks_alone(options, train):
        return []
    own = slice(2 * layer, 2 * layer + 2)
    h0, c0 = states[0][own], states[1][own] if len(states) == 2 else None
    one, two = params
    weight_hr = one[-1] if len(one) > (4 if has_biases else 2) else None
    if not persistent.taken(cell, x, h0, one[1], weight_hr, directions=2):
        return []
    biases: tuple[None, ...] = () if has_biases else (None, None)
    by = options.reset_state
    masks = PLAIN
    if options.lengths is not None or options.reset is not None:
        masks = Masks(options.lengths, options.reset, *(t[own] for t in by or ()))
    made = autograd.bidirectional(
        x, h0, c0, *one, *biases, *two, *biases, batch_sizes, *masks, cell
    )
    return [t.unbind(0) for t in made[: 1 + len(states)]]
