"""``LSTMCell``, ``GRUCell`` and ``RNNCell``: one step of a recurrence as a module."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fastseq import functional
from fastseq.nn import quick
from fastseq.ops import Cell


class _Cell(nn.RNNCellBase):
    """What the three cells share: one step is a sequence of length one."""

    def _build(self, *args: Any, **kwargs: Any) -> None:
        nn.RNNCellBase.__init__(self, *args, **kwargs)

    def _params(self) -> list[Tensor]:
        params = [self.weight_ih, self.weight_hh]
        if self.bias:
            params += [self.bias_ih, self.bias_hh]
        return params

    def _step(
        self, cell: Cell, input: Tensor, states: tuple[Tensor, ...] | None, names: tuple[str, ...]
    ) -> tuple[Tensor, Tensor]:
        """(h', c') of a checked call, unbatched if the input is."""
        x, states = self._prepare(input, states, names)
        h, c = functional.step(cell, x, states, self._params(), self.bias)
        return (h, c) if input.dim() == 2 else (h.squeeze(0), c.squeeze(0))

    def _prepare(
        self, input: Tensor, states: tuple[Tensor, ...] | None, names: tuple[str, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Check dimensions as torch.nn's cells do; return x (B, I) and the states (B, H)."""
        kind = type(self).__name__
        if input.dim() not in (1, 2):
            raise ValueError(f"{kind}: Expected input to be 1D or 2D, got {input.dim()}D instead")
        if states is not None:
            if isinstance(states, Tensor):
                raise TypeError(
                    "lstm_cell(): argument 'hx' (position 2) must be tuple of Tensors, not Tensor"
                )
            if len(states) != len(names):
                raise RuntimeError("lstm_cell expects two hidden states")
            for name, state in zip(names, states, strict=True):
                if state.dim() not in (1, 2):
                    raise ValueError(
                        f"{kind}: Expected {name} to be 1D or 2D, got {state.dim()}D instead"
                    )
        x = input if input.dim() == 2 else input.unsqueeze(0)
        width, hidden = self.input_size, self.hidden_size
        if isinstance(width, Tensor):  # torch.nn's cells never look
            width = self.weight_ih.shape[1]
        if isinstance(hidden, Tensor):
            hidden = self.weight_hh.shape[1]
        if x.shape[1] != width:
            raise RuntimeError(
                f"input has inconsistent input_size: got {x.shape[1]} expected {width}"
            )
        if states is None:
            zeros = x.new_zeros(x.shape[0], hidden)
            return x, (zeros,) * len(names)
        if input.dim() == 1:
            states = tuple(state.unsqueeze(0) for state in states)
        for i, state in enumerate(states):
            if state.dim() != 2:
                raise RuntimeError(
                    f"Expected 2D hidden{i} (batch x hidden_size), but got {state.dim()}D tensor"
                )
            if state.shape[0] != x.shape[0]:
                raise RuntimeError(
                    f"Input batch size {x.shape[0]} doesn't match hidden{i} batch size "
                    f"{state.shape[0]}"
                )
            if state.shape[1] != hidden:
                raise RuntimeError(
                    f"hidden{i} has inconsistent hidden_size: got {state.shape[1]}, expected "
                    f"{hidden}"
                )
        return x, states


class LSTMCell(_Cell, nn.LSTMCell):
    """Drop-in for ``torch.nn.LSTMCell``.

    Args:
        input_size: I.
        hidden_size: H.
        bias: with b_ih and b_hh.
        device: of the parameters.
        dtype: of the parameters.

    Shapes:
        input (B, I) or (I,); hx (h, c) of (B, H) or (H,), zeros by default; returns (h', c').

    Raises:
        ValueError, RuntimeError: as ``torch.nn.LSTMCell`` does.

    Example:
        >>> h, c = fastseq.LSTMCell(28, 128)(torch.randn(64, 28))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        self._build(input_size, hidden_size, bias, num_chunks=4, device=device, dtype=dtype)

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return (h', c')."""
        made = quick.step(self, 0, input, hx)
        if made is not None:
            return made
        return self._step(Cell.LSTM, input, hx, ("hx[0]", "hx[1]"))


class GRUCell(_Cell, nn.GRUCell):
    """Drop-in for ``torch.nn.GRUCell``: arguments and shapes as ``LSTMCell``, with one state."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        self._build(input_size, hidden_size, bias, num_chunks=3, device=device, dtype=dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """Return h'."""
        states = None if hx is None else (hx,)
        made = quick.step(self, 1, input, states)
        return (made or self._step(Cell.GRU, input, states, ("hidden",)))[0]


class RNNCell(_Cell, nn.RNNCell):
    """Drop-in for ``torch.nn.RNNCell``: as ``GRUCell``, with ``nonlinearity`` "tanh" or "relu"."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        self._build(input_size, hidden_size, bias, num_chunks=1, device=device, dtype=dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """Return h'."""
        if self.nonlinearity not in ("tanh", "relu"):  # nn.RNNCell finds out here, too
            raise RuntimeError(f"Unknown nonlinearity: {self.nonlinearity}")
        cell = Cell.RNN_TANH if self.nonlinearity == "tanh" else Cell.RNN_RELU
        states = None if hx is None else (hx,)
        made = quick.step(self, cell.value, input, states)
        return (made or self._step(cell, input, states, ("hidden",)))[0]
