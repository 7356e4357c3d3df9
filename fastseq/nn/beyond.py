"""What ``LSTM``, ``GRU`` and ``RNN`` do beyond torch.nn's: their options, checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastseq.functional import Options
from fastseq.functional.options import PLAIN

_States = tuple[Tensor, ...]


def _option(name: str, check: Callable[[Any, Any], Any]) -> Any:
    """An option as an attribute: checked when it is assigned, so that a call need not look.

    Args:
        name: of the attribute; its default is the class attribute _name.
        check: makes the value of the module and what was assigned, or raises.
    """
    kept = f"_{name}"

    def get(module: Beyond) -> Any:
        return getattr(module, kept)

    def put(module: Beyond, value: Any) -> None:
        setattr(module, kept, check(module, value))
        module._plain = not any((*module._zoneout, *(getattr(module, k) for k in _SWITCHES)))

    return property(get, put)


# What makes a module more than torch.nn's where it is not zero, beside zoneout.
_SWITCHES = (
    "_layer_norm",
    "_recurrent_dropout",
    "_weight_dropout",
    "_recompute",
    "_return_cell_states",
)


class Beyond(nn.RNNBase):
    """The options of a recurrent module, and of its calls, that torch.nn has not.

    Args:
        layer_norm: normalize W_ih x, W_hh h' and, in an LSTM, c on its way to h, each with a gain
            of its own (Ba, Kiros & Hinton, 2016). Parameters ``norm_ih_l0``, ``norm_hh_l0`` (G*H,)
            and ``norm_c_l0``, ``norm_c_bias_l0`` (H,), and so on.
        recurrent_dropout: probability of zeroing a unit of h' where W_hh reads it, the same units
            at all steps (Gal & Ghahramani, 2016).
        zoneout: probability that a unit keeps its value of the step before (Krueger et al., 2016);
            of h, and in an LSTM of c as well, or a pair for the two.
        weight_dropout: probability of zeroing an element of W_hh (Wan et al., 2013).
        recompute: save only the layers' inputs, and run them again in backward.
        return_cell_states: LSTM: return the last layer's cell states of all steps as well.

    The regularisers draw from torch's generator, once for a call, and are inactive in evaluation.

    A call takes these keywords beside input and hx:

    - ``lengths``: (B,) integers, steps of each row of a padded batch, in any order, 0 to T. The
      output beyond them is zero, final states are those at the lengths, the reverse direction
      starts there. On a device other than the CPU nothing waits for it, and what is out of range
      counts as the nearest bound; on the CPU it raises.
    - ``reset``: (T, B) booleans, (B, T) with ``batch_first``, (T,) unbatched: the states of every
      layer and direction are replaced before a marked step, as if the sequence were cut there and
      its pieces run apart. The reverse direction crosses the same cuts from the other side, so a
      mark at step 0 replaces the first state of the forward direction and nothing in reverse.
    - ``reset_state``: what replaces them, shaped like hx; zeros by default. It has a gradient.

    Raises:
        ValueError: an option is out of range, or does not belong to this kind of cell.
    """

    # Defaults, which a swapped module has.
    _layer_norm = False
    _recurrent_dropout = 0.0
    _zoneout: tuple[float, float] = (0.0, 0.0)
    _weight_dropout = 0.0
    _recompute = False
    _return_cell_states = False
    _plain = True  # none of them is in use

    layer_norm = _option("layer_norm", lambda module, yes: _with_gains(module, yes))
    recurrent_dropout = _option(
        "recurrent_dropout", lambda _, p: _probability("recurrent_dropout", p)
    )
    zoneout = _option("zoneout", lambda module, p: _zones(module.mode, p))
    weight_dropout = _option("weight_dropout", lambda _, p: _probability("weight_dropout", p))
    recompute = _option("recompute", lambda _, yes: bool(yes))
    return_cell_states = _option(
        "return_cell_states", lambda module, yes: _with_cell_states(module.mode, yes)
    )

    def __init__(
        self,
        mode: str,
        *args: Any,
        layer_norm: bool = False,
        recurrent_dropout: float = 0.0,
        zoneout: float | Sequence[float] = 0.0,
        weight_dropout: float = 0.0,
        recompute: bool = False,
        return_cell_states: bool = False,
        **kwargs: Any,
    ) -> None:
        nn.RNNBase.__init__(self, mode, *args, **kwargs)
        self.return_cell_states = return_cell_states
        self.recurrent_dropout = recurrent_dropout
        self.weight_dropout = weight_dropout
        self.zoneout = zoneout
        self.recompute = recompute
        if layer_norm:
            weight = self.weight_ih_l0
            where: Any = {"device": weight.device, "dtype": weight.dtype}
            for suffix in self._suffixes():
                for name, size in self._norm_sizes():
                    setattr(self, f"{name}_{suffix}", nn.Parameter(torch.empty(size, **where)))
            self.layer_norm = True
            self.reset_parameters()

    def _suffixes(self) -> list[str]:
        ends = ("", "_reverse") if self.bidirectional else ("",)
        return [f"l{layer}{end}" for layer in range(self.num_layers) for end in ends]

    def _norm_sizes(self) -> list[tuple[str, int]]:
        hidden = self.hidden_size
        width = {"LSTM": 4, "GRU": 3}.get(self.mode, 1) * hidden
        sizes = [("norm_ih", width), ("norm_hh", width)]
        return sizes + [("norm_c", hidden), ("norm_c_bias", hidden)] * (self.mode == "LSTM")

    def reset_parameters(self) -> None:
        """Draw the weights as torch.nn does; gains are one and their biases zero."""
        super().reset_parameters()
        if self.layer_norm:
            for suffix in self._suffixes():
                for name, _ in self._norm_sizes():
                    value = getattr(self, f"{name}_{suffix}", None)
                    if value is not None:  # the base class calls this before they exist
                        nn.init.constant_(value, 0.0 if name == "norm_c_bias" else 1.0)

    def beyond(self) -> list[str]:
        """The options in use that torch.nn has not, as they are written."""
        used = [f"{n}=True" for n in ("layer_norm", "recompute", "return_cell_states")
                if getattr(self, n)]  # fmt: skip
        for name in ("recurrent_dropout", "weight_dropout"):
            if getattr(self, name):
                used.append(f"{name}={getattr(self, name)}")
        if any(self.zoneout):
            used.append(f"zoneout={self.zoneout if self.mode == 'LSTM' else self.zoneout[0]}")
        return used

    def extra_repr(self) -> str:
        """Name the options that are in use."""
        return ", ".join([super().extra_repr(), *self.beyond()])

    def _explain(self) -> str:
        """The options in use that the plain layer's kernels do not have."""
        used = {
            "layer_norm": self.layer_norm,
            "recurrent_dropout": self.training and self.recurrent_dropout,
            "zoneout": self.training and any(self.zoneout),
        }
        return " and ".join(name for name, on in used.items() if on)

    def _module_options(self) -> Options:
        if self._plain:
            return PLAIN
        norms: list[list[Tensor]] = []
        if self.layer_norm:
            names = [name for name, _ in self._norm_sizes()]
            norms = [[getattr(self, f"{n}_{suffix}") for n in names] for suffix in self._suffixes()]
        return Options(
            recurrent_dropout=self.recurrent_dropout,
            zoneout=self.zoneout,
            weight_dropout=self.weight_dropout,
            norms=norms,
            cell_states=self.return_cell_states,
            recompute=self.recompute,
        )

    def _packed_options(
        self, lengths: Tensor | None, reset: Tensor | None, reset_state: _States | None
    ) -> Options:
        for name, value in (("lengths", lengths), ("reset", reset), ("reset_state", reset_state)):
            if value is not None:
                raise ValueError(
                    f"{name} was passed with a PackedSequence, which has lengths of its own; "
                    "pass the padded input and lengths"
                )
        return self._module_options()

    def _padded_options(
        self,
        input: Tensor,  # batched
        states: _States,
        batched: bool,
        lengths: Tensor | None,
        reset: Tensor | None,
        reset_state: _States | None,
    ) -> Options:
        options = self._module_options()
        if lengths is None and reset is None and reset_state is None:
            return options
        batch, steps = (0, 1) if self.batch_first else (1, 0)
        rows, length = input.shape[batch], input.shape[steps]
        if lengths is not None:
            lengths = torch.as_tensor(lengths)
            if lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool:
                raise TypeError(f"lengths should be integers, got {lengths.dtype}")
            whole: tuple[int, ...] = (rows,) if batched else ()
            if lengths.shape != whole:
                raise ValueError(
                    f"lengths should have shape {whole}, a number for every row of the batch, "
                    f"got {tuple(lengths.shape)}"
                )
            # Never waits: this goes to the input's device, and stays there.
            lengths = lengths.reshape(rows).to(input.device, torch.int64, non_blocking=True)
        if reset_state is not None and reset is None:
            raise ValueError("reset_state was passed without reset, the mask that says where")
        if reset is not None:
            reset = torch.as_tensor(reset)
            if reset.dtype != torch.bool:
                raise TypeError(f"reset should be a bool tensor, got {reset.dtype}")
            shape = (rows, length) if self.batch_first else (length, rows)
            wanted: tuple[int, ...] = shape if batched else (length,)
            if reset.shape != wanted:
                raise ValueError(
                    f"reset should have shape {tuple(wanted)}, a mark for every step and row, "
                    f"got {tuple(reset.shape)}"
                )
            reset = reset.reshape(shape).to(input.device, non_blocking=True)
            reset = reset.transpose(0, 1) if self.batch_first else reset
        if reset_state is not None:
            pair = isinstance(reset_state, tuple) and len(reset_state) == len(states)
            if not pair or not all(isinstance(state, Tensor) for state in reset_state):
                like = "a pair of tensors" if len(states) == 2 else "a tensor"
                raise TypeError(f"reset_state should be {like}, shaped like hx")
            if not batched:
                reset_state = tuple(state.unsqueeze(1) for state in reset_state)
            for by, state in zip(reset_state, states, strict=True):
                if by.shape != state.shape:
                    raise RuntimeError(
                        f"Expected reset_state size {tuple(state.shape)}, got {tuple(by.shape)}"
                    )
        return options._replace(lengths=lengths, reset=reset, reset_state=reset_state)


def _probability(name: str, p: Any) -> float:
    if isinstance(p, bool) or not isinstance(p, (int, float)) or not 0.0 <= p < 1.0:
        raise ValueError(f"{name} should be a probability, at least 0 and less than 1, got {p!r}")
    return float(p)


def _zones(mode: str, zoneout: Any) -> tuple[float, float]:
    """Probabilities for h and c."""
    if isinstance(zoneout, Sequence):
        if mode != "LSTM" and tuple(zoneout[1:]) == (0.0,):  # as it is kept
            zoneout = zoneout[0]
        elif mode != "LSTM" or len(zoneout) != 2:
            raise ValueError(
                f"zoneout should be one number, or for an LSTM a pair for h and c, "
                f"got {zoneout!r} for {mode}"
            )
    if isinstance(zoneout, Sequence):
        h, c = zoneout
    else:
        h, c = zoneout, zoneout if mode == "LSTM" else 0.0
    return _probability("zoneout", h), _probability("zoneout", c)


def _with_cell_states(mode: str, yes: Any) -> bool:
    if yes and mode != "LSTM":
        raise ValueError(f"return_cell_states belongs to LSTM; {mode} has no cell states")
    return bool(yes)


def _with_gains(module: Beyond, yes: Any) -> bool:
    if yes and not hasattr(module, "norm_ih_l0"):
        raise AttributeError(
            "layer_norm=True was assigned to a module that was built without its parameters; "
            "pass it to the constructor"
        )
    return bool(yes)
