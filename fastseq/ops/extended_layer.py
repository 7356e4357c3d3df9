"""A recurrent layer that does more than the plain one: lengths, resets, regularisation, layer norm.

Letters as in ``fastseq.ops.recurrence`` and ``fastseq.ops.layer``; the plain layer keeps an op of
its own, whose call is cheaper.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastseq.ops._common import fake
from fastseq.ops._vmap import one_at_a_time
from fastseq.ops.layer import Wanted, _layer_backward_fake
from fastseq.ops.recurrence import Cell, _recurrence_fake, _rows

# Device types whose kernels these ops have; elsewhere the reference implementation is the layer.
KERNEL_DEVICES = frozenset({"cpu", "meta"})


class Extras(NamedTuple):
    """What the layer does beside the plain recurrence; ``None``: it does not."""

    lengths: Tensor | None = None  # (B,) int64: steps of each row
    reset: Tensor | None = None  # (T, B) bool: the state is replaced before this step ...
    reset_h: Tensor | None = None  # (B, R) ... by this, or by zeros
    reset_c: Tensor | None = None  # (B, H)
    drop: Tensor | None = None  # (B, R): factors of h' where weight_hh reads it
    zone_h: Tensor | None = None  # (..., R): 1 where h stays as it was before the step, else 0
    zone_c: Tensor | None = None  # (..., H): the same of c
    norm_hh: Tensor | None = None  # (G*H,): gains of a layer norm of weight_hh h'
    norm_c: Tensor | None = None  # (H,): gain of one of c on its way to h; LSTM
    norm_c_bias: Tensor | None = None  # (H,)
    epsilon: float = 1e-5


class ExtendedForward(NamedTuple):
    """What ``extended_layer`` returns; the last three are empty unless saved."""

    y: Tensor  # (T, B, R) or (N, R); zero beyond a length
    h_n: Tensor  # (B, R)
    c_n: Tensor  # (B, H), empty but for LSTM
    gates: Tensor  # (..., C*H)
    cells: Tensor  # (..., H), float32 for the 16-bit types
    products: Tensor  # (..., G*H): weight_hh h', with a layer norm


class ExtendedBackward(NamedTuple):
    """Gradients of the inputs of ``extended_layer``; those not wanted are empty."""

    grad_x: Tensor
    grad_h0: Tensor
    grad_c0: Tensor
    grad_weight_ih: Tensor
    grad_weight_hh: Tensor
    grad_bias_ih: Tensor
    grad_bias_hh: Tensor  # with a layer norm that of GRU's b_hn, (H,)
    grad_weight_hr: Tensor
    grad_reset_h: Tensor
    grad_reset_c: Tensor
    grad_norm_hh: Tensor
    grad_norm_c: Tensor
    grad_norm_c_bias: Tensor


def extended_layer(
    x: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    weight_ih: Tensor | None,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    weight_hr: Tensor | None,
    batch_sizes: Tensor | None,
    extras: Extras,
    cell: int,
    reverse: bool,
    save: bool,
) -> ExtendedForward:
    """Run one layer in one direction.

    Args:
        x: as for ``ops.layer``; with ``norm_hh`` the input side of the pre-activations, (T, B,
            G*H), normalized and biased already.
        h0: as for ``ops.layer``, like all that follow.
        c0: LSTM only.
        weight_ih: None exactly if there is a ``norm_hh``.
        weight_hh: (G*H, R).
        bias_ih: (G*H,).
        bias_hh: (G*H,); with ``norm_hh``, GRU's b_hn (H,) or None.
        weight_hr: (R, H).
        batch_sizes: of a packed batch, which takes neither lengths nor resets.
        extras: what is done beside.
        cell: a ``Cell``.
        reverse: run from the last step to the first; a reset then stands between its step and the
            one before it, just as it does forwards.
        save: keep what backward needs.

    Raises:
        RuntimeError: shapes, dtypes or devices do not fit together, a length is not between 0 and
            T.
    """
    return ExtendedForward(
        *torch.ops.fastseq.extended_layer(
            x,
            h0,
            c0,
            weight_ih,
            weight_hh,
            bias_ih,
            bias_hh,
            weight_hr,
            batch_sizes,
            *extras,
            int(cell),
            reverse,
            save,
        )
    )


@fake("extended_layer")
def _fake(*args: Any) -> tuple[Tensor, ...]:
    x, h0, c0, _, weight_hh, _, _, weight_hr, batch_sizes = args[:9]
    extras, (cell, reverse, save) = Extras(*args[9:20]), args[20:]
    made = _recurrence_fake(x, h0, c0, weight_hh, None, weight_hr, batch_sizes, cell, reverse, save)
    products = save and extras.norm_hh is not None
    return (*made, x.new_empty(_rows(x, weight_hh.shape[0]) if products else [0]))


@fake("extended_layer_backward")
def _backward_fake(
    grad_y: Tensor | None,
    grad_h_n: Tensor | None,
    grad_c_n: Tensor | None,
    grad_cells: Tensor | None,
    y: Tensor,
    gates: Tensor,
    cells: Tensor,
    products: Tensor,
    x: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    weight_ih: Tensor | None,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    weight_hr: Tensor | None,
    batch_sizes: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, ...]:
    extras, (cell, reverse, wanted) = Extras(*rest[:11]), rest[11:]
    kind, width = Cell(cell), weight_hh.shape[0]
    hidden = width // kind.gates
    norm = extras.norm_hh is not None
    if norm:  # x is the input side
        wanted &= ~(Wanted.WEIGHT_IH | Wanted.BIASES)
    # Whatever stands for weight_ih lends its shape alone.
    stand_in = weight_hh.new_empty([width, width]) if weight_ih is None else weight_ih
    plain = list(
        _layer_backward_fake(
            None, None, None, None, None, x, y, gates, cells, h0, c0, stand_in, weight_hh,
            weight_hr, batch_sizes, cell, reverse, wanted
        )
    )  # fmt: skip
    if norm and kind == Cell.GRU:
        plain[6] = y.new_empty([hidden])

    def like(t: Tensor | None, needed: bool = True) -> Tensor:
        return y.new_empty(t.shape if t is not None and needed else [0])

    replaced = extras.reset is not None
    return (
        *plain,
        like(extras.reset_h, replaced),
        like(extras.reset_c, replaced),
        *(like(t) for t in extras[7:10]),
    )


for _name in ("extended_layer", "extended_layer_backward"):
    torch.library.register_vmap(
        f"fastseq::{_name}", one_at_a_time(getattr(torch.ops.fastseq, _name))
    )
