"""Streams: a recurrent module one step at a time, in memory that is allocated once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from fastseq import _invariance
from fastseq.ops import STEP_

if TYPE_CHECKING:
    from fastseq.nn.recurrent import _Recurrent


class StreamState:
    """Where a stream stands: the states of all layers, (L, B, .) each, updated in place.

    Args:
        states: h, and c of an LSTM.
        batched: whether steps come as (B, I).
        own: whether a step may write into them; those of a step with gradients it may not.
    """

    def __init__(self, states: tuple[Tensor, ...], batched: bool, own: bool = True) -> None:
        self.states = states
        self.own = own
        self.batched = batched
        c = states[1].unbind(0) if len(states) == 2 else (None,) * len(states[0])
        self.layers = tuple(zip(states[0].unbind(0), c, strict=True))
        last = self.layers[-1][0]
        self.output = last if batched else last.squeeze(0)

    def hx(self) -> Tensor | tuple[Tensor, ...]:
        """A copy that a call of the module takes: (h, c) of an LSTM, else h."""
        made = tuple(state.clone() for state in self.states)
        if not self.batched:
            made = tuple(state.squeeze(1) for state in made)
        return made if len(made) == 2 else made[0]


def first_state(module: _Recurrent, input: Tensor, hx: Any) -> StreamState:
    """The state before the first step; checks all that holds for every step."""
    if module.bidirectional:
        raise ValueError("step() needs a module of one direction: the other starts at the end")
    if input.dim() not in (1, 2):
        raise ValueError(f"step() expects input (B, I) or (I,), got {tuple(input.shape)}")
    batched = input.dim() == 2
    x = input if batched else input.unsqueeze(0)
    if hx is None:
        return StreamState(module._zeros(x, x.shape[0]), batched)
    states = hx if isinstance(hx, tuple) else (hx,)
    if not batched:
        states = tuple(state.unsqueeze(1) for state in states)
    module._check_states(x.unsqueeze(1 if module.batch_first else 0), states, None)
    return StreamState(states, batched, own=False)


def _frozen() -> bool:
    return not torch.is_grad_enabled()


def advance(module: _Recurrent, input: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
    """One step from a state."""
    if input.dim() != 1 + state.batched:
        raise ValueError(
            f"step() began with input of {1 + state.batched} dimensions, got {tuple(input.shape)}"
        )
    if module.training and _random(module):
        raise RuntimeError(
            "step() cannot draw masks that belong to a whole sequence; call eval() first"
        )
    x = input if state.batched else input.unsqueeze(0)
    if _frozen() and not state.own:
        state = StreamState(tuple(s.detach().clone() for s in state.states), state.batched)
    if _frozen() and not is_compiling() and _in_place(module, x, state):
        return state.output, state
    time = 1 if module.batch_first else 0
    hx = state.states if len(state.states) == 2 else state.states[0]
    y, after, *_ = module(x.unsqueeze(time), hx)
    after = after if isinstance(after, tuple) else (after,)
    if not _frozen():
        made = StreamState(after, state.batched, own=False)
        return (y.squeeze(time) if state.batched else y.flatten()), made
    for old, new in zip(state.states, after, strict=True):
        old.copy_(new)
    return state.output, state


def _random(module: _Recurrent) -> bool:
    masks = module.recurrent_dropout, module.weight_dropout, *module.zoneout
    return any(masks) or (module.dropout > 0 and module.num_layers > 1)


def _in_place(module: _Recurrent, x: Tensor, state: StreamState) -> bool:
    """Take the step by the op that needs no memory; False where it is not so simple."""
    if not module._plain or module.proj_size or _invariance.on():
        return False
    if torch.is_autocast_enabled(x.device.type):
        return False
    cell, each = module._cell().value, 4 if module.bias else 2
    params = module._params()
    for i, (h, c) in enumerate(state.layers):
        own = params[i * each : (i + 1) * each]
        weights = own if module.bias else [*own, None, None]
        try:
            STEP_(x, h, c, *weights, cell)
        except RuntimeError:
            if i == 0:  # nothing has changed yet: torch.nn's words, if it has any for this
                module.check_input(x.unsqueeze(0), None)
            raise
        x = h
    return True
