"""Stacks of layers and directions on the layer op, with autocast, checks and options.

``fastseq.functional.recurrence`` names them; the modules of ``fastseq.nn`` call those.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.nn.functional import dropout as _dropout
from torch.utils.checkpoint import checkpoint

from fastseq import autograd, reference
from fastseq.autograd import direct, wants_graph
from fastseq.functional import cuda_stack
from fastseq.functional.bidirectional import in_one_launch
from fastseq.functional.options import PLAIN, Options, extras, normed_input
from fastseq.functional.prepare import NATIVE, autocast, autocast_dtype, prepared, type_name
from fastseq.ops import KERNEL_DEVICES, Cell, Extras
from fastseq.ops.extended_layer_cuda import has_kernels


def _layer(
    cell: Cell,
    x: Tensor,  # (T, B, I) or (N, I)
    h0: Tensor,  # (B, R)
    c0: Tensor | None,  # (B, H)
    params: Sequence[Tensor],  # w_ih, w_hh[, b_ih, b_hh][, w_hr]
    has_biases: bool,
    batch_sizes: Tensor | None,
    reverse: bool,
    cells: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One layer in one direction: y, h_n, c_n, and the cell states of all steps if asked for."""
    weight_ih, weight_hh, *rest = params
    bias_ih, bias_hh = rest[:2] if has_biases else (None, None)
    weight_hr = rest[-1] if len(rest) == (3 if has_biases else 1) else None
    y, h_n, c_n, _, c = autograd.layer(
        x,
        h0,
        c0,
        weight_ih,
        weight_hh,
        bias_ih,
        bias_hh,
        weight_hr,
        batch_sizes,
        int(cell),
        reverse,
        cells,
    )
    return y, h_n, c_n, c


def _extended_layer(
    cell: Cell,
    x: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    params: Sequence[Tensor],
    has_biases: bool,
    batch_sizes: Tensor | None,
    reverse: bool,
    cells: bool,
    extras: Extras,
    gain_ih: Tensor | None,  # of the layer norm of W_ih x
    kernels: bool,  # whether there are any for this
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``_layer`` with extras."""
    weight_hh, *rest = params[1:]
    weight_ih: Tensor | None = params[0]
    bias_ih, bias_hh = rest[:2] if has_biases else (None, None)
    weight_hr = rest[-1] if len(rest) == (3 if has_biases else 1) else None
    if gain_ih is not None:
        x, bias_hh = normed_input(
            cell, x, params[0], bias_ih, bias_hh, gain_ih, extras.epsilon, extras.lengths
        )
        weight_ih = bias_ih = None
    tensors = (x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr)
    code = int(cell)
    made: tuple[Tensor, ...]
    if kernels:
        made = autograd.extended_layer(*tensors, batch_sizes, *extras, code, reverse, cells)
    else:
        made = reference.extended_layer(*tensors, batch_sizes, extras, code, reverse)
        made = (made[0], made[1].clone(), *made[2:])  # its node may have kept h_n for itself
    y, h_n, c_n, _, c, _ = made
    return y, h_n, c_n, c


def step(
    cell: Cell,
    input: Tensor,
    states: tuple[Tensor, ...],
    params: Sequence[Tensor],
    has_biases: bool,
) -> tuple[Tensor, Tensor]:
    """One step of a cell, for the modules ``LSTMCell``, ``GRUCell`` and ``RNNCell``.

    Args:
        cell: which.
        input: (B, I).
        states: h (B, H), and c (B, H) for LSTM.
        params: w_ih, w_hh, and b_ih, b_hh if ``has_biases``.
        has_biases: whether ``params`` hold biases.

    Returns:
        h' (B, H), and c' (B, H), empty but for LSTM.

    Raises:
        RuntimeError: dtypes, devices or shapes do not fit.
    """
    dtype = autocast_dtype(input.device.type)
    input, states, params = prepared(input, states, params, dtype)
    if input.is_complex() or not states[0].shape[-1]:
        made = NATIVE[cell][1](input, states if len(states) == 2 else states[0], *params)
        return made if len(states) == 2 else (made, made)
    c0 = states[1] if len(states) == 2 else None
    _, h, c, _ = _layer(
        cell, input.unsqueeze(0), states[0], c0, params, has_biases, None, reverse=False
    )
    return h, c


def stack(
    cell: Cell,
    input: Tensor,
    states: tuple[Tensor, ...],  # (h0,) or (h0, c0), each (L*D, B, .)
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
    batch_sizes: Tensor | None,
    options: Options,
) -> tuple[Tensor, tuple[Tensor, ...], Tensor | None]:
    """A stack: every layer reads the outputs of all directions of the layer below."""
    dtype = autocast_dtype(input.device.type)
    numbers = (has_biases, num_layers, dropout, train, bidirectional, batch_first, batch_sizes)
    # Asked first, and so what Dynamo sees of the choice.
    if input.device.type in cuda_stack.DEVICES and options is PLAIN and not cuda_stack.observed():
        again = partial(_again, cell, len(states), dtype, numbers)
        made = cuda_stack.by_cudnn(cell, input, states, params, *numbers, dtype, again)
        if made is not None:
            return made
    return _by_layers(cell, input, states, params, *numbers, options=options, dtype=dtype)


def _again(
    cell: Cell, count: int, dtype: torch.dtype | None, numbers: Any, *tensors: Tensor
) -> tuple[Tensor, ...]:
    """What ``cuda_stack.by_cudnn`` returns, by our kernels."""
    input, *rest = tensors
    states, params = tuple(rest[:count]), rest[count:]
    y, final, _ = _by_layers(cell, input, states, params, *numbers, options=PLAIN, dtype=dtype)
    return y, *final


def _by_layers(
    cell: Cell,
    input: Tensor,
    states: tuple[Tensor, ...],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
    batch_sizes: Tensor | None,
    *,
    options: Options,
    dtype: torch.dtype | None,  # of autocast
) -> tuple[Tensor, tuple[Tensor, ...], Tensor | None]:
    """``stack`` on our kernels, a layer and direction at a time."""
    casting = dtype is not None
    input, states, params = prepared(input, states, params, dtype)
    plain = direct()
    if options is not PLAIN:
        options = _cast(options, input, casting)
    elif input.is_complex():
        numbers = (params, has_biases, num_layers, dropout, train, bidirectional)
        hx = states if len(states) == 2 else states[0]
        where = (input, batch_sizes, hx) if batch_sizes is not None else (input, hx)
        tail = () if batch_sizes is not None else (batch_first,)
        y, *native = NATIVE[cell][0](*where, *numbers, *tail)
        return y, tuple(native), None
    if batch_sizes is None and batch_first:
        input = input.transpose(0, 1)
        if plain and wants_graph((input, *params)):
            input = input.contiguous()  # saved; what the caller does to his own is his own business
    if input.shape[0] == 0:
        raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
    directions = 2 if bidirectional else 1
    each = _each(params, has_biases, num_layers * directions)
    h0 = states[0].unbind(0)
    if len(h0) < num_layers * directions:
        raise IndexError(
            f"hx has states for {len(h0)} layers and directions, of {num_layers * directions}"
        )
    c0 = states[1].unbind(0) if len(states) == 2 else [None] * len(h0)
    h_n: list[Tensor] = []
    c_n: list[Tensor] = []
    cells: list[Tensor] = []
    x = input
    for layer in range(num_layers):
        outputs: list[Tensor] = []
        cells = []
        own = [
            params[i * each : (i + 1) * each]
            for i in range(layer * directions, (layer + 1) * directions)
        ]
        if directions == 2:
            both = (has_biases, batch_sizes, options, layer, train)
            made = in_one_launch(cell, x, states, own, *both)
            for results, of_both in zip((outputs, h_n, c_n), made, strict=False):
                results += of_both
        for direction in range(len(outputs), directions):
            i = layer * directions + direction
            args = (cell, x, h0[i], c0[i], own[direction], has_biases, batch_sizes, direction == 1)
            if options is PLAIN:
                y, h, c, c_all = _layer(*args)
            elif casting:  # the dtypes are chosen; a layer norm within would choose its own
                with torch.autocast(x.device.type, enabled=False):
                    y, h, c, c_all = _with_options(options, i, train, args)
            else:
                y, h, c, c_all = _with_options(options, i, train, args)
            outputs.append(y)
            h_n.append(h)
            c_n.append(c)
            cells.append(c_all)
        x = outputs[0] if directions == 1 else torch.cat(outputs, -1)
        if dropout != 0 and train and layer < num_layers - 1:
            if not 0 <= dropout <= 1:  # NaN, too
                raise RuntimeError(
                    f"dropout probability has to be between 0 and 1, but got {dropout}"
                )
            x = _dropout(x, dropout, training=True)
    c_seq = torch.cat(cells, -1).to(x.dtype) if options.cell_states else None
    turned = batch_sizes is None and batch_first
    if not plain:  # who follows the ops sees no view, and no writing
        if turned:
            x = x.transpose(0, 1)
            c_seq = None if c_seq is None else c_seq.transpose(0, 1)
        return x, tuple(torch.stack(f) for f in (h_n, c_n)[: len(states)]), c_seq
    if directions == 1 and x.requires_grad:
        # Backward needs y. Its memory is copied once the caller writes to it, and not before.
        x = torch._lazy_clone(x)
    if turned:
        x = x.transpose_(0, 1)
        c_seq = None if c_seq is None else c_seq.transpose_(0, 1)
    return x, tuple(_stacked(f) for f in (h_n, c_n)[: len(states)]), c_seq


def _each(params: Sequence[Tensor], has_biases: bool, layers: int) -> int:
    """The number of parameters of one layer and direction."""
    if layers < 1:
        raise RuntimeError("num_layers must be greater than zero")
    each, rest = divmod(len(params), layers)
    if rest or not 0 <= each - (4 if has_biases else 2) <= 1:  # one more if projected
        raise RuntimeError("got an incorrect number of RNN parameters")
    return each


def _stacked(states: list[Tensor]) -> Tensor:
    """Final states of all layers as the caller's own: (L*D, B, .), no view."""
    return states[0].unsqueeze_(0) if len(states) == 1 else torch.stack(states)


_Args = tuple[
    Cell, Tensor, Tensor, Tensor | None, Sequence[Tensor], bool, Tensor | None, bool
]  # of _layer
_Made = tuple[Tensor, Tensor, Tensor, Tensor]


def _with_options(options: Options, i: int, train: bool, args: _Args) -> _Made:
    """A layer in one direction, with whatever the options ask of it."""
    cell, x, h0, _, params, has_biases, *_ = args
    hidden = params[1].shape[0] // cell.gates
    if train and options.weight_dropout > 0:
        dropped = _dropout(params[1], options.weight_dropout, training=True)
        args = (*args[:4], [params[0], dropped, *params[2:]], *args[5:])
    beside = extras(options, i, cell, x, h0, hidden, train)
    gain = options.norms[i][0] if options.norms else None

    layer: Callable[..., _Made] = _layer
    if beside is not None:
        weight_hr = params[-1] if len(params) > (4 if has_biases else 2) else None
        # Asked here: a checkpoint runs the layer again, and must find the same.
        kernels = x.device.type in KERNEL_DEVICES or (
            not cuda_stack.observed() and has_kernels(cell, x, h0, params[1], weight_hr, beside)
        )
        layer = partial(_extended_layer, extras=beside, gain_ih=gain, kernels=kernels)
    if options.recompute and torch.is_grad_enabled() and (direct() or is_compiling()):
        # No random numbers are drawn within, so there is no generator to rewind. The transforms
        # of torch.func cannot run a checkpoint; there the option is without effect.
        made: _Made = checkpoint(
            layer,
            *args,
            cells=options.cell_states,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        return made
    return layer(*args, cells=options.cell_states)


def _cast(options: Options, like: Tensor, casting: bool) -> Options:
    """Tensors of the options in the dtype of the layers: by autocast, like all else, or as given.

    Gains of a layer norm are the module's own, and follow its weights.
    """
    by = options.reset_state
    if by is not None and casting:
        by = tuple(autocast(t, like.dtype) for t in by)
    for t in by or ():
        if t.dtype != like.dtype:
            raise RuntimeError(
                "Input and reset_state tensors are not the same dtype, found input tensor with "
                f"{type_name(like.dtype)} and reset_state tensor with {type_name(t.dtype)}"
            )
    return options._replace(
        reset_state=by, norms=[[t.to(like.dtype) for t in each] for each in options.norms]
    )
