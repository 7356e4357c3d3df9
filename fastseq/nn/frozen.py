"""``fastseq.freeze``: recurrent layers for serving, whose weights are packed once.

At every call the CPU kernels copy the weights into the order in which they read them, since
nothing tells whether somebody wrote to them through ``.data`` in between. At one step of one row
that copy is the call. A frozen module has made it already: its weights can't be written to, and say
so.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import PackedSequence

from fastseq import autograd, ops
from fastseq.autograd import direct
from fastseq.nn.read_only import ReadOnly
from fastseq.nn.recurrent import GRU, LSTM, RNN, _permuted, _Recurrent

_States = tuple[Tensor, ...]
_REFUSALS = (RuntimeError, ValueError, TypeError, IndexError)


class _Frozen(_Recurrent):
    """What is different in a module that is frozen."""

    _packed: Tensor | None = None  # bytes; None where the kernels of another device read weights
    _weights: list[Tensor] | None = None  # the parameters' memory, for those kernels; if frozen

    def _seal(self) -> None:
        """Make the parameters read-only, and pack them where the CPU kernels will read them."""
        own = {name: p.detach().clone() for name, p in self._named_weights()}
        self._parameters.update({name: ReadOnly.of(p) for name, p in own.items()})
        vars(self)["_weights"] = [own[name] for name in self._flat_weights_names]
        self._init_flat_weights()
        vars(self)["_packed"] = self._pack()

    def _unseal(self) -> None:
        self._parameters.update(self._ordinary())
        vars(self)["_weights"] = None

    def _named_weights(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in self._parameters.items() if p is not None]

    def _ordinary(self) -> dict[str, nn.Parameter]:
        return {n: nn.Parameter(p.detach(), requires_grad=False) for n, p in self._named_weights()}

    def _params(self) -> list[Tensor]:
        return super()._params() if self._weights is None else self._weights

    def _pack(self) -> Tensor | None:
        params = self._params()
        if params[0].device.type != "cpu" or params[0].dtype not in _DTYPES:
            return None
        rows = self.num_layers * (2 if self.bidirectional else 1)
        each = len(params) // rows
        parts = []
        for i in range(rows):
            w_ih, w_hh, *rest = params[i * each : (i + 1) * each]
            b_ih, b_hh = rest[:2] if self.bias else (None, None)
            w_hr = rest[-1] if self.proj_size else None
            parts.append(ops.pack_layer(w_ih, w_hh, b_ih, b_hh, w_hr, self._cell()))
        return torch.cat(parts)

    def _run(
        self,
        input: Tensor | PackedSequence,
        hx: _States | None,
        lengths: Tensor | None,
        reset: Tensor | None,
        reset_state: _States | None,
    ) -> tuple[Any, ...]:
        if lengths is None and reset is None and reset_state is None:
            made = self._run_packed_weights(input, hx)
            if made is not None:
                return made
        return super()._run(input, hx, lengths, reset, reset_state)

    def _run_packed_weights(self, input: Any, hx: _States | None) -> tuple[Any, _States] | None:
        """The call on packed weights; None where it goes the long way, or gets its error there."""
        packed = self._packed
        if packed is None or not (direct(autocast=True) or torch.compiler.is_compiling()):
            return None
        if torch.is_autocast_enabled("cpu"):
            return None
        sizes = order = back = None
        x = input
        if isinstance(input, PackedSequence):
            x, sizes, order, back = input
            if type(x) is not Tensor:
                return None
        elif not isinstance(input, Tensor) or input.dim() != 3:
            return None
        elif self.batch_first:
            x = input.transpose(0, 1)
        if x.device.type != "cpu" or x.shape[-1] != self.input_size:
            return None
        state = self.proj_size or self.hidden_size
        h = c = None
        if hx is not None:
            h = _permuted(hx[0], order)
            c = _permuted(hx[1], order) if len(hx) == 2 else None
        elif sizes is not None and torch.compiler.is_compiling():
            return None
        try:
            y, h_n, c_n = autograd.packed_stack(
                x, h, c, packed, sizes, int(self._cell()), self.hidden_size, state,
                self.num_layers, 2 if self.bidirectional else 1,
            )  # fmt: skip
        except _REFUSALS as error:
            if "has no derivatives" in str(error):
                raise
            return None
        finals = (h_n, c_n) if self.mode == "LSTM" else (h_n,)
        if sizes is not None:
            made = PackedSequence(y, sizes, order, back)
            return made, tuple(_permuted(final, back) for final in finals)
        return (y.transpose(0, 1) if self.batch_first else y), finals

    def train(self, mode: bool = True) -> Any:
        """Refuse to be trained."""
        if mode:
            raise RuntimeError(
                "A frozen module can't be trained: its weights are packed. Train the module that "
                "fastseq.freeze was given, and freeze it again."
            )
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._unseal()
        try:
            return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        finally:
            self._seal()

    def __setattr__(self, name: str, value: Any) -> None:
        if self._weights is not None and (name in self._parameters or name in _FIXED):
            raise AttributeError(
                f"{name} of a frozen {self.mode.split('_')[0]} can't be assigned; assign it in the "
                "module that fastseq.freeze was given, and freeze it again."
            )
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(vars(self))
        for name in ("_packed", "_weights", "_flat_weight_refs"):
            state.pop(name, None)  # made anew, on that machine
        return {**state, "_parameters": self._ordinary(), "_flat_weights": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._seal()

    def extra_repr(self) -> str:
        """Say that it is frozen."""
        return f"{super().extra_repr()}, frozen"


_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# What the packed weights depend on.
_FIXED = frozenset(
    ("mode", "input_size", "hidden_size", "num_layers", "bias", "proj_size", "bidirectional")
)


class FrozenLSTM(_Frozen, LSTM):
    """An ``LSTM`` that ``fastseq.freeze`` made."""


class FrozenGRU(_Frozen, GRU):
    """A ``GRU`` that ``fastseq.freeze`` made."""


class FrozenRNN(_Frozen, RNN):
    """An ``RNN`` that ``fastseq.freeze`` made."""


_TWINS: dict[type[nn.Module], type[_Frozen]] = {LSTM: FrozenLSTM, GRU: FrozenGRU, RNN: FrozenRNN}


def freeze(model: nn.Module) -> Any:
    """Copy a model for serving: in evaluation mode, its recurrent weights packed and read-only.

    Every ``fastseq.LSTM``, ``GRU`` and ``RNN`` in the copy has its weights in the order in which
    the CPU kernels read them, so that a call copies none: what a short call of few rows spends its
    time on. A whole stack is one op. Results are the same bits. Weights that are parametrized are
    computed once. All else of the model is as it was; torch.nn's recurrent modules become fastseq's
    by ``fastseq.swap`` before.

    The copy can be called by any number of threads, copied, pickled (it is packed anew where it is
    loaded), moved, compiled, and exported (for machines with the same instruction set; others
    refuse the weights with a sentence). Writing to a recurrent weight raises, and so does training:
    ``train()``, and a gradient through a recurrence.

    On another device than the CPU nothing is packed, nor is it for calls with ``lengths`` or
    ``reset`` and under autocast: they run as before. Modules with ``layer_norm``, subclasses with a
    ``forward`` of their own, and those whose weights a hook computes stay as they are.

    Args:
        model: left as it is.

    Returns:
        The copy.

    Raises:
        TypeError: there is nothing to freeze in the model.

    Example:
        >>> served = fastseq.freeze(model)
        >>> with torch.inference_mode():
        ...     y, state = served(x)
    """
    made = copy.deepcopy(model)
    found = [m for m in made.modules() if isinstance(m, _Recurrent)]
    if not found:
        raise TypeError(
            f"freeze() was given a {type(model).__name__} without a fastseq.LSTM, GRU or RNN; "
            "fastseq.swap(model) puts them in the places of torch.nn's."
        )
    made.eval()
    for module in found:
        _compute_once(module)
        twin = _TWINS.get(type(module))
        names = module._flat_weights_names
        if twin is not None and module._plain and all(n in module._parameters for n in names):
            module.__class__ = twin
            twin._seal(module)  # type: ignore[arg-type]
    return made


def _compute_once(module: nn.Module) -> None:
    """Put the values of parametrized weights in their places.

    ``parametrize.remove_parametrizations`` would take them from the original too, which shares the
    class that was made for it.
    """
    if not parametrize.is_parametrized(module):
        return
    with torch.no_grad():
        values = {name: getattr(module, name) for name in module.parametrizations}  # type: ignore[union-attr]
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module._modules["parametrizations"]
    for name, value in values.items():
        module._parameters[name] = nn.Parameter(value.detach().clone(), requires_grad=False)
