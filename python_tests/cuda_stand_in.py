"""The CPU in the place of a GPU with cuDNN: torch's own layers stand in for cuDNN's.

``torch.lstm`` is one function for both devices. What cuDNN does otherwise is done here to its
result: no second and no batched derivatives, none at all without training mode, weights in one
buffer or a warning, contiguous states, autocast within.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastseq.functional import cuda_route, cuda_stack
from fastseq.functional.prepare import NATIVE
from fastseq.ops import persistent

CONTIGUOUS = "RNN module weights are not part of single contiguous chunk of memory"


def flatten(
    weights: Sequence[Tensor], each: int, input: int, mode: int, hidden: int, *rest: Any
) -> Tensor:
    """``torch._cudnn_rnn_flatten_weight``: matrices first, then biases, with room at the end."""
    order = sorted(range(len(weights)), key=lambda i: (weights[i].dim() == 1, i))
    buffer = weights[0].new_zeros(sum(w.numel() for w in weights) + 3)
    at = 0
    for i in order:
        part = buffer[at : at + weights[i].numel()].view(weights[i].shape)
        part.copy_(weights[i])
        at += part.numel()
        weights[i].set_(part)
    return buffer


class _Once(torch.autograd.Function):
    """A call whose gradients are torch's, once, and in training mode alone."""

    @staticmethod
    def forward(ctx: Any, run: Callable[..., Any], train: bool, *tensors: Tensor) -> Any:
        ctx.set_materialize_grads(False)
        ctx.train = train
        with torch.enable_grad():
            leaves = [t.detach().requires_grad_(t.requires_grad) for t in tensors]
            made = run(*leaves)
        ctx.inner = made, leaves
        ctx.save_for_backward(made[0].detach())
        return tuple(t.detach().clone() if i else t.detach() for i, t in enumerate(made))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        if all(g is None for g in grads):
            return (None,) * (2 + len(ctx.inner[1]))
        legacy = torch._C._functorch.is_legacy_batchedtensor
        batched = any(g is not None and legacy(g) for g in grads)
        if batched or torch._C._are_functorch_transforms_active():
            raise RuntimeError("Batching rule not implemented for aten::_cudnn_rnn_backward")
        assert ctx.train, "cudnn RNN backward can only be called in training mode"
        _ = ctx.saved_tensors  # notices that somebody wrote to the output, and that they are gone
        made, leaves = ctx.inner
        wanted = [t for t in leaves if t.requires_grad]
        asked = [(m, g) for m, g in zip(made, grads, strict=True) if g is not None]
        outs, given = zip(*asked, strict=True)
        found = iter(torch.autograd.grad(outs, wanted, given, retain_graph=True, allow_unused=True))
        return (None, None, *(next(found) if t.requires_grad else None for t in leaves))


class Calls(list[dict[str, Any]]):
    """What the stand-in was called with."""


def _like_cudnn(native: Callable[..., Any], calls: Calls) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        packed = args[1] if isinstance(args[1], Tensor) and args[1].dim() == 1 else None
        input, hx, weights, biases, layers, dropout, train, both, *tail = (
            args if packed is None else (args[0], *args[2:])
        )
        calls.append({"dropout": dropout, "train": train, "dtype": input.dtype, "packed": packed})
        if len({w.untyped_storage().data_ptr() for w in weights}) > 1:
            warnings.warn(CONTIGUOUS, UserWarning, stacklevel=2)
        states = hx if isinstance(hx, tuple) else (hx,)
        assert all(state.is_contiguous() for state in states), "rnn: hx is not contiguous"

        def run(input: Tensor, *rest: Tensor) -> Any:
            if torch.is_autocast_enabled("cpu"):
                dtype = torch.get_autocast_dtype("cpu")
                input, rest = input.to(dtype), tuple(t.to(dtype) for t in rest)
            own = rest[: len(states)] if len(states) == 2 else rest[0]
            numbers = (list(rest[len(states) :]), biases, layers, dropout, train, both, *tail)
            with torch.autocast("cpu", enabled=False):
                return native(input, *([] if packed is None else [packed]), own, *numbers)

        if not torch.is_grad_enabled():
            return run(input, *states, *weights)
        return _Once.apply(run, train, input, *states, *weights)

    return call


@contextmanager
def persistent_kernels(seen: bool = True) -> Iterator[None]:
    """As if a GPU had run the persistent kernels, or none had."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(persistent, "SEEN_ON_A_GPU", seen)
        for cache in (persistent._taken, cuda_route.plan):
            cache.cache_clear()
        yield
    for cache in (persistent._taken, cuda_route.plan):
        cache.cache_clear()


@contextmanager
def gpu(capability: tuple[int, int] = (9, 0), room: bool = True) -> Iterator[Calls]:
    """Take the CPU for a GPU with cuDNN; yields what "cuDNN" is called with."""
    calls = Calls()
    library = torch.library.Library("aten", "IMPL")
    with pytest.MonkeyPatch.context() as patch:
        library.impl("_cudnn_rnn_flatten_weight", flatten, "CPU")
        patch.setattr(cuda_stack, "DEVICES", {"cpu"})
        patch.setattr(persistent, "capability", lambda device: capability)
        patch.setattr(persistent, "_room", lambda *layer: room)
        patch.setattr(cuda_route, "cudnn_enabled", lambda: True)
        patch.setattr(torch.backends.cudnn.rnn, "get_cudnn_mode", lambda mode: 0)
        for cell, (layer, step) in list(NATIVE.items()):
            patch.setitem(NATIVE, cell, (_like_cudnn(layer, calls), step))
        try:
            yield calls
        finally:
            library._destroy()
