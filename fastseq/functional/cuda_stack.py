"""A stack on a GPU: its facts for the choice of a route, and the route through torch's cuDNN."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from fastseq import autograd
from fastseq.autograd import Shape, direct
from fastseq.functional import cuda_route
from fastseq.functional.cuda_route import Facts
from fastseq.functional.prepare import NATIVE, check
from fastseq.ops import Cell, persistent
from fastseq.ops.precision import tf32

DEVICES = {"cuda"}  # whose stacks have routes to choose from
_PLAIN = (Tensor, nn.Parameter)  # and no subclass: who knows where its numbers are

_Result = tuple[Tensor, tuple[Tensor, ...], Tensor | None]
_sizes = lru_cache(maxsize=256)(Shape.sizes)


def observed() -> bool:
    """Whether others than autograd look at the ops that are called, and must see ours."""
    return not direct() or torch._C._len_torch_dispatch_stack() > 0


def shape_of(
    cell: Cell,
    input: Tensor,
    states: tuple[Tensor, ...],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    bidirectional: bool,
) -> Shape | None:
    """The stack that these plain tensors make; None if they are not, or do not fit together."""
    if any(type(t) not in _PLAIN for t in (input, *states, *params)):
        return None
    if any(state.dim() != 3 for state in states):
        return None
    hidden, width = states[-1].shape[-1], states[0].shape[-1]
    project = 0 if width == hidden else width
    made = Shape(cell, input.shape[-1], hidden, project, num_layers, bidirectional, has_biases)
    return made if [p.shape for p in params] == _sizes(made) else None


def facts_of(
    shape: Shape,
    input: Tensor,
    batch_first: bool,
    batch_sizes: Tensor | None,
    dtype: torch.dtype | None,
    options: bool = False,
    followed: bool = False,
) -> Facts:
    """What the choice of a route depends on.

    Args:
        shape: of the stack.
        input: as a call has it.
        batch_first: how a padded input is laid out.
        batch_sizes: of a packed one.
        dtype: of autocast, if it is on.
        options: whether something is asked for that torch.nn has not.
        followed: what ``observed`` says.
    """
    if batch_sizes is None:
        steps, batch = input.shape[:2]
        if batch_first:
            steps, batch = batch, steps
    else:
        steps, batch = len(batch_sizes), int(batch_sizes[0]) if len(batch_sizes) else 0
    computed = input.dtype if dtype is None or input.dtype == torch.float64 else dtype
    return Facts(
        shape.cell,
        steps,
        batch,
        shape.input,
        shape.hidden,
        shape.layers,
        2 if shape.bidirectional else 1,
        computed,
        shape.project > 0,
        batch_sizes is not None,
        options,
        followed,
        torch.are_deterministic_algorithms_enabled(),
        cuda_route.cudnn_enabled(),
        tf32(single=batch_sizes is None and steps == 1),
        persistent.capability(input.device),
        not persistent.considered()
        or persistent.room(input.device, shape.cell, computed, shape.hidden, batch),
    )


def _packs(batch_sizes: Tensor, rows: int) -> bool:
    """Whether these are the rows of each step, as ``pack_padded_sequence`` makes them."""
    if batch_sizes.dim() != 1 or batch_sizes.dtype != torch.int64 or batch_sizes.is_cuda:
        return False
    falling = not len(batch_sizes) or bool((batch_sizes[1:] <= batch_sizes[:-1]).all())
    return falling and int(batch_sizes.sum()) == rows


def module_shape(module: nn.RNNBase) -> Shape:
    """The stack that a module is."""
    return Shape(
        Cell[module.mode],
        module.input_size,
        module.hidden_size,
        module.proj_size,
        module.num_layers,
        module.bidirectional,
        module.bias,
    )


def lay_out(module: nn.RNNBase) -> None:
    """Move a module's weights, in place, where cuDNN reads them without a copy at each call.

    Nothing is done where no cuDNN will read them, and to weights that are not the module's own
    alone: computed ones, those of subclasses of tensors, two in the same memory.
    """
    shape = module_shape(module)
    weights: Sequence[Tensor | None] = module._flat_weights
    first = weights[0] if weights else None
    if first is None or first.device.type not in DEVICES or not cuda_route.cudnn_enabled():
        return
    found = [w for w in weights if w is not None and type(w) in _PLAIN]
    if len(found) < len(weights) or first.dtype not in cuda_route.CUDNN_DTYPES:
        return
    alike = [w for w in found if w.numel() and w.dtype == first.dtype and w.device == first.device]
    places = {w.data_ptr() for w in alike}
    if len(places) == len(weights) and [w.shape for w in found] == _sizes(shape):
        autograd.lay_out(shape, found)


def by_cudnn(
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
    dtype: torch.dtype | None,
    again: Callable[..., tuple[Tensor, ...]],
) -> _Result | None:
    """The stack by cuDNN, all layers and directions in one call; None if it goes another way.

    Arguments that do not fit together go another way, too: there they get their sentence.

    Args and Returns: as of ``stack``, of a call without options that nobody but autograd follows.
    ``dtype`` is autocast's, if it is on; ``again`` makes the results by our kernels, from (input,
    *states, *params), where they must be differentiated twice.
    """
    shape = shape_of(cell, input, states, params, has_biases, num_layers, bidirectional)
    if shape is None or input.dim() != (3 if batch_sizes is None else 2):
        return None
    if batch_sizes is not None and not _packs(batch_sizes, len(input)):
        return None
    facts = facts_of(shape, input, batch_first, batch_sizes, dtype)
    rows = (facts.layers * facts.directions, facts.batch)
    fit = all(state.shape[:2] == rows for state in states)
    if not fit or cuda_route.chosen(facts).route != cuda_route.CUDNN:
        return None
    if dtype is None:
        check(input, states, params)
    y, *final = autograd.whole_stack(
        NATIVE[cell][0],
        shape,
        input,
        states,
        params,
        dropout if train else 0.0,
        batch_first,
        batch_sizes,
        again,
    )
    return y, tuple(final), None
