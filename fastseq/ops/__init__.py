"""Typed Python face of ``torch.ops.fastseq``: calls, output shapes for tracing, batching for vmap.

Their derivatives are registered by ``fastseq.autograd``.
"""

from fastseq import _library as _library  # registers the ops
from fastseq.ops import extended_layer_cuda as extended_layer_cuda  # registers its kernels
from fastseq.ops import layer_cuda as layer_cuda  # and these theirs
from fastseq.ops.extended_layer import (
    KERNEL_DEVICES,
    ExtendedBackward,
    ExtendedForward,
    Extras,
    extended_layer,
)
from fastseq.ops.layer import LAYER, LayerBackward, Wanted, layer, layer_backward
from fastseq.ops.linear import linear
from fastseq.ops.lrn import local_response_norm, local_response_norm_backward
from fastseq.ops.packed_stack import pack_layer, packed_stack
from fastseq.ops.pool import Pooled, Window, max_pool2d, max_pool2d_backward
from fastseq.ops.recurrence import Backward, Cell, Forward, recurrence, recurrence_backward
from fastseq.ops.step import STEP, STEP_, step
from fastseq.ops.trio import relu_lrn_max_pool2d, relu_lrn_max_pool2d_backward

__all__ = [
    "KERNEL_DEVICES",
    "LAYER",
    "STEP",
    "STEP_",
    "Backward",
    "Cell",
    "ExtendedBackward",
    "ExtendedForward",
    "Extras",
    "Forward",
    "LayerBackward",
    "Pooled",
    "Wanted",
    "Window",
    "extended_layer",
    "layer",
    "layer_backward",
    "linear",
    "local_response_norm",
    "local_response_norm_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "pack_layer",
    "packed_stack",
    "recurrence",
    "recurrence_backward",
    "relu_lrn_max_pool2d",
    "relu_lrn_max_pool2d_backward",
    "step",
]
