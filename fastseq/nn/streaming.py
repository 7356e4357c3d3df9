"""Streams: a recurrent module one step at a time, in memory that is allocated once."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.modules import module as hooks

from fastseq import invariance
from fastseq.autograd import below_autograd, direct, overwritten
from fastseq.ops import STEP_, Cell

_States = tuple[Tensor, ...]


_CODES = {cell.name: cell.value for cell in Cell}


class Steppable(Protocol):
    """What a stream needs of its module."""

    bidirectional: bool
    batch_first: bool
    mode: str
    training: bool
    bias: bool
    dropout: float
    num_layers: int
    proj_size: int
    recurrent_dropout: float
    weight_dropout: float
    zoneout: tuple[float, float]
    _plain: bool
    _forward_hooks: dict[int, Any]
    _forward_pre_hooks: dict[int, Any]

    def __call__(self, input: Tensor, hx: Any) -> Any: ...  # noqa: D102
    def check_input(self, input: Tensor, batch_sizes: Tensor | None) -> None: ...  # noqa: D102
    def _params(self) -> list[Tensor]: ...
    def _zeros(self, input: Tensor, batch: int) -> _States: ...
    def _check_states(self, input: Tensor, states: _States, sizes: Tensor | None) -> None: ...


class StreamState:
    """Where a stream stands.

    Either ``given``, the states of all layers as a call takes them, (L, B, .) each, which no step
    writes to; or ``layers``, a pair (h, c) for each, c None but for LSTM, which steps overwrite.
    """

    __slots__ = ("batched", "given", "layers")

    def __init__(self, given: _States | None, batched: bool) -> None:
        self.given = given
        self.layers: tuple[tuple[Tensor, Tensor | None], ...] = ()
        self.batched = batched

    @property
    def count(self) -> int:
        """Of layers."""
        return len(self.layers) if self.given is None else len(self.given[0])

    @property
    def states(self) -> _States:
        """The states as a call takes them: h, and c of an LSTM, (L, B, .) each."""
        if self.given is not None:
            return self.given
        h, c = zip(*self.layers, strict=True)
        return (torch.stack(h),) if c[0] is None else (torch.stack(h), torch.stack(c))

    @property
    def output(self) -> Tensor:
        """What the last step returned: the last layer's h."""
        h = self.layers[-1][0] if self.given is None else self.given[0][-1]
        return h if self.batched else h.squeeze(0)

    def hx(self) -> Tensor | _States:
        """A copy that a call of the module takes: (h, c) of an LSTM, else h."""
        made = tuple(state.clone() for state in self.states)
        if not self.batched:
            made = tuple(state.squeeze(1) for state in made)
        return made if len(made) == 2 else made[0]

    def take(self) -> None:
        """Go on with a copy of what was given, which steps may overwrite."""
        if self.given is not None:
            # Each in memory of its own: a step's output is then no view of anything.
            h, *c = ([t.clone() for t in s.detach().unbind(0)] for s in self.given)
            self.layers = tuple(zip(h, c[0] if c else (None,) * len(h), strict=True))
            self.given = None

    def put(self, after: _States) -> None:
        """Overwrite what is kept; in memory of another dtype if autocast has chosen one."""
        if after[0].dtype != self.layers[0][0].dtype:
            self.given = after
            return self.take()
        for i, pair in enumerate(self.layers):
            for old, new in zip(pair, after, strict=False):
                if old is not None:
                    old.copy_(new[i])


def first_state(module: Steppable, input: Tensor, hx: Any) -> StreamState:
    """The state before the first step; checks all that holds for every step."""
    if module.bidirectional:
        raise ValueError("step() needs a module of one direction: the other starts at the end")
    if input.dim() not in (1, 2):
        raise ValueError(f"step() expects input (B, I) or (I,), got {tuple(input.shape)}")
    batched = input.dim() == 2
    x = input if batched else input.unsqueeze(0)
    if hx is None:
        return StreamState(module._zeros(x, x.shape[0]), batched)
    states = tuple(hx) if isinstance(hx, (tuple, list)) else (hx,)
    count = 2 if module.mode == "LSTM" else 1
    if len(states) != count or not all(isinstance(state, Tensor) for state in states):
        like = "a pair of tensors (h_0, c_0)" if count == 2 else "a tensor"
        raise TypeError(f"step() expects hx to be {like}, or the state that a step returned")
    if not batched:
        states = tuple(state.unsqueeze(1) for state in states)
    module._check_states(x.unsqueeze(1 if module.batch_first else 0), states, None)
    return StreamState(states, batched)


def advance(module: Steppable, input: Tensor, state: StreamState) -> tuple[Tensor, StreamState]:
    """One step from a state."""
    if input.dim() != 1 + state.batched:
        raise ValueError(
            f"step() began with input of {1 + state.batched} dimensions, got {tuple(input.shape)}"
        )
    if state.count != module.num_layers:
        raise ValueError(
            f"step() was given the state of a module of {state.count} layers, and this one has "
            f"{module.num_layers}"
        )
    if module.training and _draws(module):
        raise RuntimeError(
            "step() cannot draw masks that belong to a whole sequence; call eval() first"
        )
    x = input if state.batched else input.unsqueeze(0)
    if torch.is_grad_enabled():
        y, after = _call(module, x, state)
        return y if state.batched else y.squeeze(0), StreamState(after, state.batched)
    if state.given is not None:  # the first step, or the caller's own
        state = StreamState(state.given, state.batched)
        state.take()
    if not _in_place(module, x, state):
        _, after = _call(module, x, state)
        state.put(after)
    return state.output, state


def _call(module: Steppable, x: Tensor, state: StreamState) -> tuple[Tensor, _States]:
    """The step as a call of the module, hooks and all: the output (B, R), and the states."""
    time = 1 if module.batch_first else 0
    states = state.states
    y, after, *_ = module(x.unsqueeze(time), states if len(states) == 2 else states[0])
    return y.squeeze(time), after if isinstance(after, tuple) else (after,)


def _draws(module: Steppable) -> bool:
    """Whether a call in training draws masks."""
    if module.dropout > 0 and module.num_layers > 1:
        return True
    if module._plain:
        return False
    return any((module.recurrent_dropout, module.weight_dropout, *module.zoneout))


def _hooked(module: Steppable) -> bool:
    """Whether a call of the module runs code of others, which may set its weights."""
    return bool(
        module._forward_pre_hooks
        or module._forward_hooks
        or hooks._global_forward_pre_hooks
        or hooks._global_forward_hooks
    )


def _in_place(module: Steppable, x: Tensor, state: StreamState) -> bool:
    """Take the step by the op that needs no memory; False where it is not so simple."""
    if not direct(autocast=True) or not module._plain or module.proj_size or invariance.on():
        return False
    if _hooked(module):
        return False
    cell, each = _CODES[module.mode], 4 if module.bias else 2
    params = module._params()
    with below_autograd():
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
    # A graph that saved what a step returned must notice that it is gone.
    overwritten([t for pair in state.layers for t in pair if t is not None])
    return True
