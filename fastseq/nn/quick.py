"""Plain calls without gradients: one op, and few questions before it.

At one step of one row the kernel is a small part of a call, and what is asked around it the rest.
So here the op itself checks what it is given. Whatever it refuses, and whatever is not so simple,
goes the long way, which finds torch.nn's words for it.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from fastseq import invariance
from fastseq.autograd import below_autograd, direct
from fastseq.ops import LAYER, STEP, Cell

_CODES = {cell.name: cell.value for cell in Cell}
_REFUSALS = (RuntimeError, ValueError, TypeError, IndexError, KeyError)


class Recurrent(Protocol):
    """What ``layer`` asks of a module."""

    mode: str
    num_layers: int
    bias: bool
    batch_first: bool
    bidirectional: bool
    hidden_size: int
    proj_size: int
    _plain: bool

    def _params(self) -> list[Tensor]: ...


def layer(
    module: Recurrent, input: Any, hx: tuple[Tensor, ...] | None
) -> tuple[Tensor, tuple[Tensor, ...]] | None:
    """Call a module of one layer and one direction on a padded batch.

    Args:
        module: LSTM, GRU or RNN.
        input: (T, B, I), or (B, T, I) with ``batch_first``.
        hx: h (1, B, R), and c (1, B, H) of an LSTM.

    Returns:
        The output and the final states, or None where the long way is to be taken.
    """
    if torch.is_grad_enabled() or not module._plain or module.num_layers != 1:
        return None
    if module.bidirectional or not isinstance(input, Tensor) or input.dim() != 3:
        return None
    if not input.is_cpu:  # other devices have more than one way to go
        return None
    if not direct(autocast=True):
        return None
    x = input.transpose(0, 1) if module.batch_first else input
    steps, batch, _ = x.shape
    if steps == 0:
        return None
    lstm = module.mode == "LSTM"
    weights = module._params()
    weight_hr = weights[-1] if module.proj_size else None
    biases = weights[2:4] if module.bias else (None, None)
    try:
        if hx is None:
            h = x.new_zeros(batch, module.proj_size or module.hidden_size)
            c = None
            if lstm:  # nothing writes to them: one will do
                c = h if weight_hr is None else x.new_zeros(batch, module.hidden_size)
        else:
            if any(state.dim() != 3 for state in hx):
                return None
            h, c = hx[0].squeeze(0), hx[1].squeeze(0) if lstm else None
        with below_autograd():
            y, h_n, c_n, _, _ = LAYER(
                x, h, c, weights[0], weights[1], *biases, weight_hr, None,
                _CODES[module.mode], False, False,
            )  # fmt: skip
    except _REFUSALS:
        return None
    if module.batch_first:
        y.transpose_(0, 1)
    h_n.unsqueeze_(0)
    return y, (h_n, c_n.unsqueeze_(0)) if lstm else (h_n,)


def step(
    module: torch.nn.RNNCellBase, cell: int, input: Tensor, hx: tuple[Tensor, ...] | None
) -> tuple[Tensor, Tensor] | None:
    """Call a module of one cell.

    Args:
        module: LSTMCell, GRUCell or RNNCell.
        cell: its code.
        input: (B, I).
        hx: h (B, H), and c (B, H) of an LSTM.

    Returns:
        h' and c', which is empty but for LSTM; or None where the long way is to be taken.
    """
    if torch.is_grad_enabled() or input.dim() != 2 or not direct(autocast=True):
        return None
    if invariance.on():
        return None
    p = module._parameters  # a parametrized weight is not here
    made: tuple[Tensor, Tensor]
    try:
        if hx is None:
            zeros = input.new_zeros(input.shape[0], module.hidden_size)
            h, c = zeros, zeros if cell == 0 else None
        else:
            if type(hx) is not tuple and isinstance(hx, Tensor):
                return None  # which would come apart into two
            h, c = hx if len(hx) == 2 else (hx[0], None)
        with below_autograd():
            made = STEP(
                input, h, c, p["weight_ih"], p["weight_hh"], p["bias_ih"], p["bias_hh"], cell
            )
    except _REFUSALS:
        return None
    return made
