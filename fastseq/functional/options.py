"""What a recurrent layer can do beside torch.nn's, as options of ``lstm``, ``gru`` and ``rnn``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import dropout

from fastseq import autograd
from fastseq.ops import Cell, Extras
from fastseq.ops.layer_cuda import input_biases
from fastseq.reference import layer_norm


class Options(NamedTuple):
    """Beside the plain recurrence; the defaults do nothing.

    Attributes:
        lengths: (B,) int64, steps of each row of a padded input, 0 to T, in any order.
        reset: (T, B) bool, also where the input is ``batch_first``: the state before a marked step
            is replaced by ``reset_state``. A mark stands between its step and the one before, and
            the reverse direction crosses it from the other side.
        reset_state: shaped like hx; zeros by default.
        recurrent_dropout: probability of zeroing a unit of h' where W_hh reads it, the same units
            at all steps of a sequence (Gal & Ghahramani, 2016).
        zoneout: probabilities that a unit of h, and of c, keeps its value of the step before
            (Krueger et al., 2016).
        weight_dropout: probability of zeroing an element of W_hh (DropConnect: Wan et al., 2013;
            Merity et al., 2017).
        norms: per layer and direction the gains of the layer norms of W_ih x and of W_hh h', each
            (G*H,), and for LSTM gain and bias of the one of c, (H,) (Ba, Kiros & Hinton, 2016).
        epsilon: of the layer norms.
        cell_states: return the cell states of all steps as well; LSTM.
        recompute: save the layers' inputs alone and run them again in backward.
    """

    lengths: Tensor | None = None
    reset: Tensor | None = None
    reset_state: tuple[Tensor, ...] | None = None
    recurrent_dropout: float = 0.0
    zoneout: tuple[float, float] = (0.0, 0.0)
    weight_dropout: float = 0.0
    norms: Sequence[Sequence[Tensor]] = ()
    epsilon: float = 1e-5
    cell_states: bool = False
    recompute: bool = False


PLAIN = Options()


def extras(
    options: Options, i: int, cell: Cell, x: Tensor, h0: Tensor, hidden: int, train: bool
) -> Extras | None:
    """What layer and direction ``i`` does beside; None if nothing. Draws its random masks.

    Args:
        options: of the stack.
        i: layer times directions plus direction.
        cell: which.
        x: the layer's input, (T, B, I) or (N, I).
        h0: its initial hidden state, (B, R).
        hidden: H.
        train: whether the regularisers are active.
    """
    norms = options.norms[i] if options.norms else ()
    drop = zone_h = zone_c = None
    if train and options.recurrent_dropout > 0:
        drop = dropout(torch.ones_like(h0), options.recurrent_dropout, training=True)
    if train and options.zoneout[0] > 0:
        zone_h = _mask(x, h0.shape[-1], options.zoneout[0])
    if train and options.zoneout[1] > 0 and cell == Cell.LSTM:
        zone_c = _mask(x, hidden, options.zoneout[1])
    if not norms and all(t is None for t in (options.lengths, options.reset, drop, zone_h, zone_c)):
        return None
    by = options.reset_state
    return Extras(
        options.lengths,
        options.reset,
        None if by is None else by[0][i],
        None if by is None or len(by) == 1 else by[1][i],
        drop,
        zone_h,
        zone_c,
        norms[1] if norms else None,
        norms[2] if len(norms) > 2 else None,
        norms[3] if len(norms) > 2 else None,
        options.epsilon,
    )


def _mask(x: Tensor, width: int, p: float) -> Tensor:
    """Ones of probability p, to 2^-16, for every row of x: (..., width).

    By four decisions of 16 bits from each number of the generator; ``bernoulli_`` takes seven times
    as long, more than the whole layer.
    """
    shape = [*x.shape[:-1], width]
    if torch.compiler.is_compiling():
        return x.new_empty(shape).bernoulli_(p)
    count = math.prod(shape)
    bits = x.new_empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    chosen = bits.view(torch.int16)[:count] < round(p * 2**16) - 2**15
    return chosen.view(shape).to(x.dtype)


def normed_input(
    cell: Cell,
    x: Tensor,
    weight_ih: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    gain: Tensor,
    epsilon: float,
    lengths: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """The normalized and biased input side of all steps, and GRU's bias b_hn, which stays out."""
    bias, bias_hn = input_biases(cell, bias_ih, bias_hh)
    if lengths is not None:  # what lies beyond a length may be anything
        steps = torch.arange(x.shape[0], device=x.device)
        x = x.where((steps.unsqueeze(-1) < lengths).unsqueeze(-1), 0)
    product = autograd.linear(x, weight_ih, False)
    return layer_norm(product, gain, bias, epsilon).to(x.dtype), bias_hn
