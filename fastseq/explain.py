"""What a module will do with an input, and why."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from fastseq import _native
from fastseq.functional import cuda_route, cuda_stack
from fastseq.functional.bidirectional import masks_alone
from fastseq.functional.cuda_route import Facts
from fastseq.functional.lrn import DTYPES
from fastseq.functional.options import PLAIN
from fastseq.functional.prepare import autocast_dtype
from fastseq.nn import GRU, LSTM, RNN, LocalResponseNorm, MaxPool2d, ReLULRNMaxPool2d
from fastseq.ops import Cell, persistent
from fastseq.ops._common import channels_last

_CELLS = {
    "LSTM": Cell.LSTM,
    "GRU": Cell.GRU,
    "RNN_TANH": Cell.RNN_TANH,
    "RNN_RELU": Cell.RNN_RELU,
}


def explain(
    module: nn.Module,
    input: Tensor | PackedSequence,
    *,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
) -> str:
    """Say which path a module takes for an input, and why.

    Args:
        module: a ``fastseq.LSTM``, ``GRU``, ``RNN``, ``LocalResponseNorm``, ``MaxPool2d`` or
            ``ReLULRNMaxPool2d``.
        input: what it would be called with.
        lengths: as a recurrent module would be called with; only whether there are any counts.
        reset: likewise.

    Raises:
        TypeError: the module is not one of these.
        ValueError, RuntimeError: the module would not take the input, in its words.
    """
    if isinstance(module, (LocalResponseNorm, MaxPool2d, ReLULRNMaxPool2d)):
        if not isinstance(input, Tensor):
            raise TypeError(f"expected an image, got {type(input).__name__}")
        return _explain_images(type(module).__name__, input)
    if not isinstance(module, (LSTM, GRU, RNN)):
        raise TypeError(
            f"explain() was given a {type(module).__name__}; it knows fastseq.LSTM, GRU, RNN, "
            "LocalResponseNorm, MaxPool2d and ReLULRNMaxPool2d."
        )
    masks = [n for n, t in (("lengths", lengths), ("reset", reset)) if t is not None]
    return _explain_recurrent(module, input, masks)


def _explain_images(name: str, input: Tensor) -> str:
    what = f"{name} {tuple(input.shape)}"
    if input.dtype not in DTYPES:
        return f"{what}: torch.nn, because fastseq has no kernel for {input.dtype}."
    layout = "channels_last" if channels_last(input) else "channels first"
    kernels = "CUDA kernels" if input.is_cuda else f"CPU kernels ({_native.cpu_capability()})"
    if input.is_cuda and name == "ReLULRNMaxPool2d" and layout == "channels_last":
        most = 852 if input.dtype == torch.float32 else 1024  # of three pixels in trio_rows.cuh
        if input.shape[-3] > most:
            kernels += f" for any window, because there are more than {most} channels"
    form = torch.channels_last_3d if input.dim() == 5 else torch.channels_last
    dense = input.is_contiguous(
        memory_format=form if layout == "channels_last" else torch.contiguous_format
    )
    copy = "" if dense else ", after a copy, because the input is not dense"
    return f"{what}: {kernels}, one pass over memory, {layout}{copy}."


def _explain_recurrent(
    module: LSTM | GRU | RNN, input: Tensor | PackedSequence, masks: list[str]
) -> str:
    packed, sizes = "", None
    if isinstance(input, PackedSequence):
        input, sizes, *_ = input
        module.check_input(input, sizes)
        steps, batch = len(sizes), int(sizes[0])
        packed = f", {len(input)} packed rows"
    else:
        if input.dim() not in (2, 3):
            raise ValueError(module._input_error.format(input.dim()))
        if input.dim() == 2:
            input = input.unsqueeze(0 if module.batch_first else 1)
        module.check_input(input, None)
        steps, batch = input.shape[:2]
        if module.batch_first:
            steps, batch = batch, steps
    state = module.proj_size or module.hidden_size
    shape = f"T={steps}, B={batch}, H={module.hidden_size}" + (
        f", R={state}" if module.proj_size else ""
    )
    shape += packed
    beyond = module._explain()
    if input.device.type in cuda_stack.DEVICES:
        if beyond:
            how = "PyTorch's own operators step by step"
            return f"{module.mode} {shape}: {how}, because of {beyond}."
        return f"{module.mode} {shape}: {_explain_route(module, input, sizes, masks)}"
    threads = torch.get_num_threads()
    plan = _native.plan_recurrence(
        _CELLS[module.mode], steps, batch, module.input_size, module.hidden_size, state, threads
    )
    why = _explain_plan(threads, *plan)
    beyond = " and ".join([*filter(None, [beyond]), *masks])
    with_ = f", with {beyond}" if beyond else ""
    if not masks and getattr(module, "_packed", None) is not None:
        with_ = ", weights packed before"
    return f"{module.mode} {shape}: CPU kernels ({_native.cpu_capability()}){with_}, {why}."


def _explain_route(
    module: LSTM | GRU | RNN, input: Tensor, sizes: Tensor | None, masks: list[str]
) -> str:
    """The route of a call on a GPU, here and now."""
    facts = cuda_stack.facts_of(
        cuda_stack.module_shape(module),
        input,
        module.batch_first,
        sizes,
        autocast_dtype(input.device.type),
        options=module._module_options() is not PLAIN,
        followed=cuda_stack.observed(),
    )
    if masks:
        route, why = cuda_route.once(facts)
        with_ = " and ".join(masks)
        if route != cuda_route.PERSISTENT:
            how = "PyTorch's own operators step by step"
            return f"{how}, because of {with_}: {why}."
        return (
            f"{_explain_launches(module, input, facts)}, with {with_}, because {why}. Second "
            "derivatives go by PyTorch's own operators."
        )
    route, why = cuda_route.chosen(facts)
    if route == cuda_route.CUDNN:
        return (
            f"cuDNN, the whole stack in one call, because {why}. Second derivatives go by the CUDA "
            "step kernels."
        )
    if route == cuda_route.PERSISTENT:
        return (
            f"{_explain_launches(module, input, facts)}, because {why}. Second derivatives go by "
            "the CUDA step kernels."
        )
    return f"CUDA step kernels, one product and one cell kernel a step, because {why}."


def _explain_launches(module: LSTM | GRU | RNN, input: Tensor, facts: Facts) -> str:
    """What a launch of the persistent kernels makes."""
    layer = facts.cell, facts.dtype, facts.hidden
    what = f"the CUDA kernel '{persistent.kernel(*layer)}', one launch for all steps of a layer"
    if facts.directions == 1:
        return f"{what} in a direction"
    alone = masks_alone(module._module_options(), module.training) and not facts.observed
    if alone and persistent.room(input.device, *layer, facts.batch, directions=2):
        return f"{what} in both directions"
    why = "no room for both at once" if alone else "other options ask for one at a time"
    return f"{what} in a direction ({why})"


def _explain_plan(allowed: int, threads: int, batches: int, units: int) -> str:
    if threads == 1:
        return (
            "one time loop: a single thread is allowed"
            if allowed == 1
            else "one time loop: too little work to wake a second thread"
        )
    slices = f"{batches} slices of the batch, each with its own time loop"
    if units == 1:
        return slices if batches > 1 else "one time loop; the gradients' products on all threads"
    split = f"{units} threads share the hidden units and meet after every step"
    return f"{slices}, in which {split}" if batches > 1 else f"one time loop, in which {split}"
