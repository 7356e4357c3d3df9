"""A whole recurrent stack by torch's own call, which on a GPU is cuDNN's.

The node that autograd sees is torch's: dropout between the layers, the reserve that backward
needs and its freeing are torch's business. Two things stand around it. Weights are gathered in the
one buffer that cuDNN wants where they do not lie in one already, so that torch neither does it
again nor warns. And a second derivative, which cuDNN has not, goes by our kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastseq.autograd._op import _transforming, wants_graph
from fastseq.ops import Cell

_is_batched = torch._C._functorch.is_legacy_batchedtensor


class Shape(NamedTuple):
    """A stack, as cuDNN describes it."""

    cell: Cell
    input: int
    hidden: int
    project: int  # R, or 0 without a projection
    layers: int
    bidirectional: bool
    biases: bool

    @property
    def each(self) -> int:
        """Weights of one layer and direction."""
        return 2 + 2 * self.biases + bool(self.project)

    def sizes(self) -> list[tuple[int, ...]]:
        """The shapes of all weights, in torch.nn's order."""
        state, rows = self.project or self.hidden, self.cell.gates * self.hidden
        directions = 2 if self.bidirectional else 1
        found: list[tuple[int, ...]] = []
        for layer in range(self.layers):
            width = state * directions if layer else self.input
            own: list[tuple[int, ...]] = [(rows, width), (rows, state)]
            own += [(rows,), (rows,)] * self.biases
            own += [(self.project, self.hidden)] * bool(self.project)
            found += own * directions
        return found


class _Layout(NamedTuple):
    offsets: tuple[int, ...]  # bytes from the start of the buffer to each weight
    size: int  # of the buffer, in bytes


_layouts: dict[tuple[Shape, torch.dtype, torch.device], _Layout] = {}


def lay_out(shape: Shape, weights: Sequence[Tensor]) -> None:
    """Move weights, in place, into one buffer such as cuDNN reads, if they are not in one."""
    if gathered(shape, weights):
        return
    first = weights[0]
    with torch.no_grad(), torch.cuda.device_of(first):
        buffer = torch._cudnn_rnn_flatten_weight(
            list(weights),
            shape.each,
            shape.input,
            torch.backends.cudnn.rnn.get_cudnn_mode(shape.cell.name),
            shape.hidden,
            shape.project,
            shape.layers,
            False,  # batch_first, which is nothing to the weights
            shape.bidirectional,
        )
    start = buffer.data_ptr()
    _layouts[shape, first.dtype, first.device] = _Layout(
        tuple(w.data_ptr() - start for w in weights), buffer.numel() * buffer.element_size()
    )


def gather(shape: Shape, weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Copies of weights, in one buffer such as cuDNN reads."""
    with torch.no_grad():
        made = tuple(_upon(w.contiguous()) for w in weights)
        lay_out(shape, made)
    return made


def _upon(weight: Tensor) -> Tensor:
    """A tensor of its own upon the memory of another; it is the one that can be moved."""
    memory, place = weight.untyped_storage(), weight.storage_offset()
    return weight.new_empty(0).set_(memory, place, weight.shape, weight.stride())


def gathered(shape: Shape, weights: Sequence[Tensor]) -> bool:
    """Whether weights lie as cuDNN wants them; no, as long as its layout has not been seen."""
    first = weights[0]
    layout = _layouts.get((shape, first.dtype, first.device))
    if layout is None:
        return False
    start = first.data_ptr() - layout.offsets[0]
    for weight, offset in zip(weights, layout.offsets, strict=True):
        if weight.data_ptr() - start != offset or not weight.is_contiguous():
            return False
    memory = first.untyped_storage()
    return memory.data_ptr() == start and memory.nbytes() >= layout.size


class Gathered(torch.autograd.Function):
    """``gather`` with gradients, which are those of the weights themselves."""

    @staticmethod
    def forward(ctx: Any, shape: Shape, *weights: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Copy the weights into a buffer."""
        ctx.set_materialize_grads(False)
        return gather(shape, weights)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Hand the gradients on."""
        return (None, *grads)


def batched(grads: tuple[Tensor | None, ...]) -> bool:
    """Whether gradients come many at a time: by torch.func, or by ``is_grads_batched``."""
    return _transforming() or any(g is not None and _is_batched(g) for g in grads)


class TwiceDifferentiable(torch.autograd.Function):
    """A second derivative for results of torch's call, by other means.

    The first derivative passes through to torch's node. Where the gradients themselves must be
    differentiable (``create_graph``), or are batched, torch's node gets nothing; ``again`` makes
    the results once more, and their gradients come of that.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        again: Callable[..., tuple[Tensor, ...]],
        count: int,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        """Keep what the results were made of.

        Args:
            ctx: autograd's.
            again: makes the results of the inputs.
            count: of the results.
            *tensors: results, then inputs.
        """
        ctx.save_for_backward(*tensors[count:])
        ctx.again, ctx.count = again, count
        ctx.set_materialize_grads(False)
        return tuple(t.detach() for t in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Send gradients to torch's node, or make those of the inputs here."""
        need = ctx.needs_input_grad[2 + ctx.count :]
        if not (torch.is_grad_enabled() or batched(grads)):
            return (None, None, *grads, *(None for _ in need))
        found: list[Tensor | None] = [None] * len(need)
        given = [g for g in grads if g is not None]
        twice = torch.is_grad_enabled()
        if given:
            with torch.enable_grad():
                # Views, so that a weight which the input was made of counts for itself alone.
                inputs = [
                    t.view_as(t) if needed else t
                    for t, needed in zip(ctx.saved_tensors, need, strict=True)
                ]
                made = ctx.again(*inputs)
                asked = [t for t, g in zip(made, grads, strict=True) if g is not None]
                pulled = torch.autograd.grad(
                    asked,
                    [t for t, needed in zip(inputs, need, strict=True) if needed],
                    given,
                    create_graph=twice,
                    allow_unused=True,
                )
            places = [i for i, needed in enumerate(need) if needed]
            for i, grad in zip(places, pulled, strict=True):
                found[i] = grad
        return (None, None, *(None for _ in range(ctx.count)), *found)


def whole_stack(
    native: Callable[..., tuple[Tensor, ...]],
    shape: Shape,
    input: Tensor,
    states: tuple[Tensor, ...],
    weights: Sequence[Tensor],
    dropout: float,
    batch_first: bool,
    batch_sizes: Tensor | None,
    again: Callable[..., tuple[Tensor, ...]],
) -> tuple[Tensor, ...]:
    """All layers and directions in one call of torch's.

    Args:
        native: ``torch.lstm``, ``torch.gru``, ``torch.rnn_tanh`` or ``torch.rnn_relu``.
        shape: of the stack.
        input: (T, B, I), (B, T, I) with ``batch_first``, or packed rows (N, I).
        states: h_0, and c_0 for LSTM; (L*D, B, .).
        weights: as torch.nn lists them.
        dropout: between the layers; 0 where it is not active. A call with dropout has no second
            derivative: nobody can make cuDNN's mask again.
        batch_first: how ``input`` and the output are laid out.
        batch_sizes: rows of each step, for packed rows.
        again: makes the same results of (input, *states, *weights) with derivatives of all orders.

    Returns:
        The output, h_n, and c_n for LSTM.
    """
    tensors = (input, *states, *weights)
    differentiated = wants_graph(tensors)
    drops = dropout > 0 and shape.layers > 1
    if not gathered(shape, weights):
        weights = Gathered.apply(shape, *weights) if differentiated else gather(shape, weights)
    states = tuple(state.contiguous() for state in states)  # cuDNN insists
    hx = states if len(states) == 2 else states[0]
    # cuDNN differentiates in training mode alone, which without dropout computes the same.
    training = differentiated or drops
    numbers = (shape.biases, shape.layers, dropout if drops else 0.0, training, shape.bidirectional)
    if batch_sizes is None:
        made = native(input, hx, weights, *numbers, batch_first)
    else:
        made = native(input, batch_sizes, hx, weights, *numbers)
    if not differentiated or drops:
        return tuple(made)
    again_made: tuple[Tensor, ...] = TwiceDifferentiable.apply(again, len(made), *made, *tensors)
    return again_made
