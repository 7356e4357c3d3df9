"""``LSTM``, ``GRU`` and ``RNN``: torch.nn's modules on fastseq's kernels.

They share constructor arguments, parameter names, initialisation, state_dict and errors with
torch.nn; what they do beyond it is in ``fastseq.nn.beyond``. Each is a subclass of its namesake, so
that code which asks ``isinstance(m, nn.LSTM)`` finds them (``fastseq._dynamo`` tells the compiler
that it need not fear these).
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_exporting
from torch.nn.utils.rnn import PackedSequence

from fastseq import functional
from fastseq.functional import Options, cuda_stack
from fastseq.nn import quick, ragged
from fastseq.nn.beyond import Beyond
from fastseq.nn.streaming import StreamState, advance, first_state
from fastseq.ops import Cell

_States = tuple[Tensor, ...]
_GONE = weakref.ref(nn.Parameter())  # tells nn.RNNBase, should it look, that weights have changed


class _Recurrent(Beyond):
    """What the three modules share: argument handling around one functional call."""

    # The words in which torch.nn's module of that name complains.
    _input_error: str
    _state_error = "hx should also be {0}-D but got {1}-D tensor"
    _assigned = False  # whether the list of weights is the caller's

    def flatten_parameters(self) -> None:
        """Move weights on a GPU where cuDNN reads them without a copy, as nn.RNNBase does.

        Moving, copying and loading a module do it. Our kernels read weights wherever they are.
        """
        cuda_stack.lay_out(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.flatten_parameters()

    def _init_flat_weights(self) -> None:
        # Nothing here reads nn.RNNBase's list. Of a weight that is computed it would hold a result,
        # which cannot be deep-copied, and to make which a spectral norm takes a step.
        own = vars(self)
        own["_flat_weights"] = [self._parameters.get(name) for name in self._flat_weights_names]
        own["_flat_weight_refs"] = [_GONE] * len(self._flat_weights_names)
        own.pop("_assigned", None)
        self.flatten_parameters()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "_flat_weights":  # by somebody who wants his own weights to be read
            self._assigned = True
        elif "_assigned" in vars(self) and name in self._flat_weights_names:
            del self._assigned  # nn.RNNBase, too, drops the list when a weight has changed

    def check_input(self, input: Tensor, batch_sizes: Tensor | None) -> None:
        """Raise as nn.RNNBase does, on the dtype of the weights as they are at this call."""
        dtype = self.weight_ih_l0.dtype
        if input.dtype != dtype and not functional.autocasts(input.device.type):
            raise ValueError(
                f"RNN input dtype ({input.dtype}) does not match weight dtype ({dtype}). "
                f"Convert input: input.to({dtype}), or convert model: model.to({input.dtype})"
            )
        expected = 2 if batch_sizes is not None else 3
        if input.dim() != expected:
            raise RuntimeError(f"input must have {expected} dimensions, got {input.dim()}")
        if self.input_size != input.size(-1):
            raise RuntimeError(
                "input.size(-1) must be equal to input_size. "
                f"Expected {self.input_size}, got {input.size(-1)}"
            )

    def _params(self) -> list[Tensor]:
        # Read at every call: a list kept from before goes stale under parametrize and pruning.
        if self._assigned:
            return self._flat_weights  # type: ignore[return-value]
        own = self._parameters
        try:
            return [own[name] for name in self._flat_weights_names]  # type: ignore[misc]
        except KeyError:  # where the quick way does not find them
            return [getattr(self, name) for name in self._flat_weights_names]

    def _state_sizes(self) -> tuple[int, ...]:
        return (self.hidden_size,)

    def _zeros(self, input: Tensor, batch: int) -> _States:
        rows = self.num_layers * (2 if self.bidirectional else 1)
        return tuple(input.new_zeros(rows, batch, size) for size in self._state_sizes())

    def _check_states(self, input: Tensor, states: _States, batch_sizes: Tensor | None) -> None:
        self.check_forward_args(input, states[0], batch_sizes)

    def _call(
        self, input: Tensor, states: _States, batch_sizes: Tensor | None, options: Options
    ) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def _run(
        self,
        input: Tensor | PackedSequence,
        hx: _States | None,
        lengths: Tensor | None,
        reset: Tensor | None,
        reset_state: _States | None,
    ) -> tuple[Any, ...]:
        """Output, and as many states as hx has, in a tuple; cell states if asked for."""
        beside = (lengths, reset, reset_state)
        if lengths is None and reset is None and reset_state is None:
            made = quick.layer(self, input, hx)
            if made is not None:
                return made
        if isinstance(input, PackedSequence):
            return self._run_packed(input, hx, self._packed_options(*beside))
        if input.dim() not in (2, 3):
            raise ValueError(self._input_error.format(input.dim()))
        batched = input.dim() == 3
        batch_dim = 0 if self.batch_first else 1
        if hx is not None:
            wanted = 3 if batched else 2
            if any(state.dim() != wanted for state in hx):
                what = self._state_error.format(wanted, *(state.dim() for state in hx))
                raise RuntimeError(f"For {'' if batched else 'un'}batched {wanted}-D input, {what}")
        if not batched:
            input = input.unsqueeze(batch_dim)
            hx = None if hx is None else tuple(state.unsqueeze(1) for state in hx)
        if hx is None:
            self.check_input(input, None)
            states = self._zeros(input, input.shape[batch_dim])
        else:
            states = hx
            self._check_states(input, states, None)
        options = self._padded_options(input, states, batched, *beside)
        output, *finals = self._call(input, states, None, options)
        cells = finals[len(states) :]
        finals = finals[: len(states)]
        if not batched:
            output = output.squeeze(batch_dim)
            cells = [c.squeeze(batch_dim) for c in cells]
            finals = [state.squeeze(1) for state in finals]
        return output, tuple(finals), *cells

    def _run_packed(
        self, packed: PackedSequence, hx: _States | None, options: Options
    ) -> tuple[Any, ...]:
        data, batch_sizes, sorted_indices, unsorted_indices = packed
        if isinstance(data, ragged.StandIn) or isinstance(batch_sizes, ragged.StandIn):
            return self._run_ragged(packed, hx)
        if batch_sizes.dim() != 1:
            raise RuntimeError(
                f"batch_sizes should be a 1-D int64 tensor, got shape {tuple(batch_sizes.shape)}"
            )
        if is_exporting() and batch_sizes.dtype != torch.int64:  # torch's shape function gives it
            raise NotImplementedError(
                "torch.export cannot follow pack_padded_sequence. Give the module the padded "
                "batch, module(x, lengths=n), or export within fastseq.onnx.packed_as_lengths()."
            )
        if hx is None:
            self.check_input(data, batch_sizes)
            states = self._zeros(data, int(batch_sizes[0]))
        else:
            states = tuple(_permuted(state, sorted_indices) for state in hx)
            self._check_states(data, states, batch_sizes)
        output, *finals = self._call(data, states, batch_sizes, options)
        cells = finals[len(states) :]
        return (
            PackedSequence(output, batch_sizes, sorted_indices, unsorted_indices),
            tuple(_permuted(state, unsorted_indices) for state in finals[: len(states)]),
            *(PackedSequence(c, batch_sizes, sorted_indices, unsorted_indices) for c in cells),
        )

    def _run_ragged(self, packed: PackedSequence, hx: _States | None) -> tuple[Any, ...]:
        """A packed batch that an export has left padded (``fastseq.nn.ragged``)."""
        data, batch_sizes, sorted_indices, unsorted_indices = packed
        lengths = ragged.matched(data, batch_sizes)
        padded = data.padded(self.batch_first)  # type: ignore[attr-defined]
        states = None if hx is None else tuple(_permuted(state, sorted_indices) for state in hx)
        output, finals, *cells = self._run(padded, states, lengths.rows, None, None)
        made = [
            PackedSequence(
                ragged.Data.make(y, self.batch_first, lengths, cleared=y is output),
                batch_sizes,
                sorted_indices,
                unsorted_indices,
            )
            for y in (output, *cells)
        ]
        return made[0], tuple(_permuted(state, unsorted_indices) for state in finals), *made[1:]

    def step(self, input: Tensor, state: Any = None) -> tuple[Tensor, StreamState]:
        """Advance a stream by one step: for inference as the input arrives.

        Without gradients the states are updated in place, and from the second step on nothing is
        allocated: **the output and the state that a step returned are overwritten by the next one
        with that state**; clone what you keep. Where a gradient is needed, each step makes tensors
        of its own, as a call of the module would.

        Args:
            input: (B, I), or (I,) for one stream.
            state: what the step before returned; or an hx as for a call, which is left as it is;
                or None for zeros.

        Returns:
            The last layer's output (B, R), and the state; ``state.hx()`` is a copy in the form
            that a call takes and returns.

        Raises:
            ValueError: the module is bidirectional, so that a step would need the whole future, or
                input or state do not fit.
            RuntimeError: a regulariser is active, whose mask belongs to a whole sequence.

        Example:
            >>> state = None
            >>> for x_t in x:
            ...     y_t, state = lstm.step(x_t, state)
        """
        if not isinstance(state, StreamState):
            state = first_state(self, input, state)
        return advance(self, input, state)

    def _cell(self) -> Cell:
        return Cell[self.mode]

    def _options(self) -> tuple[Any, ...]:
        return (
            self._params(),
            self.bias,
            self.num_layers,
            self.dropout,
            self.training,
            self.bidirectional,
            self.batch_first,
        )


def _two(hx: Any) -> _States | None:
    """The states of an LSTM, which torch.lstm takes as a tuple or a list."""
    if hx is None:
        return None
    if not isinstance(hx, (tuple, list)):
        raise TypeError(
            f"LSTM: hx should be a tuple of tensors (h_0, c_0), got {type(hx).__name__}"
        )
    if len(hx) != 2:
        raise RuntimeError("lstm expects two hidden states")
    return tuple(hx)


def _one(state: Tensor | None) -> _States | None:
    return None if state is None else (state,)


def _permuted(state: Tensor, order: Tensor | None) -> Tensor:
    return state if order is None else state.index_select(1, order)


class LSTM(_Recurrent, nn.LSTM):
    """Drop-in for ``torch.nn.LSTM``: the same arguments, parameters, results and errors.

    Args:
        input_size: I, features of the input.
        hidden_size: H, features of the cell state, and of the hidden state unless projected.
        num_layers: L, layers stacked on one another.
        bias: with b_ih and b_hh.
        batch_first: input and output are (B, T, .) instead of (T, B, .).
        dropout: probability of zeroing the outputs between layers in training.
        bidirectional: D = 2, with a second direction from the end.
        proj_size: R, size of a projected hidden state; 0 for none (R = H).
        device: of the parameters.
        dtype: of the parameters: float32, float64, bfloat16 or float16.
        layer_norm, recurrent_dropout, zoneout, weight_dropout, recompute, return_cell_states: what
            torch.nn has not; see ``fastseq.nn.beyond.Beyond``.

    Shapes:
        input (T, B, I), or (T, I) unbatched, or a PackedSequence; hx (h_0, c_0) of (L*D, B, R)
        and (L*D, B, H), zeros by default; output (T, B, D*R), and (h_n, c_n) shaped like hx; with
        ``return_cell_states`` also the last layer's cell states of all steps, (T, B, D*H).
        Keywords of a call: ``lengths`` (B,), ``reset`` (T, B) and ``reset_state`` like hx.

    Raises:
        ValueError, RuntimeError, TypeError: as ``torch.nn.LSTM`` does.

    Example:
        >>> lstm = fastseq.LSTM(28, 128, batch_first=True)
        >>> output, (h_n, c_n) = lstm(torch.randn(64, 28, 28))
        >>> output.shape
        torch.Size([64, 28, 128])
    """

    _input_error = "LSTM: Expected input to be 2D or 3D, got {}D instead"
    _state_error = "hx and cx should also be {0}-D but got ({1}-D, {2}-D) tensors"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", *args, **kwargs)

    def _state_sizes(self) -> tuple[int, ...]:
        return (self.proj_size or self.hidden_size, self.hidden_size)

    def _check_states(self, input: Tensor, states: _States, batch_sizes: Tensor | None) -> None:
        self.check_forward_args(input, (states[0], states[1]), batch_sizes)  # type: ignore[misc]

    def _call(
        self, input: Tensor, states: _States, batch_sizes: Tensor | None, options: Options
    ) -> tuple[Tensor, ...]:
        hx = (states[0], states[1])
        return functional.lstm(
            input, hx, *self._options(), batch_sizes=batch_sizes, options=options
        )

    def forward(
        self,
        input: Any,
        hx: tuple[Tensor, Tensor] | None = None,
        lengths: Tensor | None = None,
        reset: Tensor | None = None,
        reset_state: tuple[Tensor, Tensor] | None = None,
    ) -> Any:
        """Return (output, (h_n, c_n)); shapes as in the class's description."""
        return self._run(input, _two(hx), lengths, reset, reset_state)


class GRU(_Recurrent, nn.GRU):
    """Drop-in for ``torch.nn.GRU``: the same arguments, parameters, results and errors.

    Args and Shapes: as ``LSTM``, without ``proj_size``, and with one state h (L*D, B, H).

    Example:
        >>> output, h_n = fastseq.GRU(28, 128)(torch.randn(28, 64, 28))
    """

    _input_error = "GRU: Expected input to be 2D or 3D, got {}D instead"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "proj_size" in kwargs:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        super().__init__("GRU", *args, **kwargs)

    def _call(
        self, input: Tensor, states: _States, batch_sizes: Tensor | None, options: Options
    ) -> tuple[Tensor, ...]:
        return functional.gru(
            input, states[0], *self._options(), batch_sizes=batch_sizes, options=options
        )

    def forward(
        self,
        input: Any,
        hx: Tensor | None = None,
        lengths: Tensor | None = None,
        reset: Tensor | None = None,
        reset_state: Tensor | None = None,
    ) -> Any:
        """Return (output, h_n)."""
        output, states = self._run(input, _one(hx), lengths, reset, _one(reset_state))
        return output, states[0]


class RNN(_Recurrent, nn.RNN):
    """Drop-in for ``torch.nn.RNN``: the same arguments, parameters, results and errors.

    Args and Shapes: as ``GRU``, with ``nonlinearity`` "tanh" or "relu" in fourth place.

    Example:
        >>> output, h_n = fastseq.RNN(28, 128, nonlinearity="relu")(torch.randn(28, 64, 28))
    """

    _input_error = "RNN: Expected input to be 2D or 3D, got {}D tensor instead"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "proj_size" in kwargs:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        if len(args) > 3:
            self.nonlinearity = args[3]
            args = args[:3] + args[4:]
        else:
            self.nonlinearity = kwargs.pop("nonlinearity", "tanh")
        if self.nonlinearity not in ("tanh", "relu"):
            raise ValueError(
                f"Unknown nonlinearity '{self.nonlinearity}'. Select from 'tanh' or 'relu'."
            )
        super().__init__(f"RNN_{self.nonlinearity.upper()}", *args, **kwargs)

    def _call(
        self, input: Tensor, states: _States, batch_sizes: Tensor | None, options: Options
    ) -> tuple[Tensor, ...]:
        return functional.rnn(
            input,
            states[0],
            *self._options(),
            nonlinearity="tanh" if self.mode == "RNN_TANH" else "relu",  # as nn.RNN decides
            batch_sizes=batch_sizes,
            options=options,
        )

    def forward(
        self,
        input: Any,
        hx: Tensor | None = None,
        lengths: Tensor | None = None,
        reset: Tensor | None = None,
        reset_state: Tensor | None = None,
    ) -> Any:
        """Return (output, h_n)."""
        output, states = self._run(input, _one(hx), lengths, reset, _one(reset_state))
        return output, states[0]
