"""Every op with its derivatives, callable; and the ``torch.autograd.Function`` behind each."""

from fastseq.autograd import layer_vmap as layer_vmap  # registers its rules
from fastseq.autograd._op import below_autograd, direct, forward_mode, overwritten, wants_graph
from fastseq.autograd.bidirectional import Bidirectional, bidirectional
from fastseq.autograd.cudnn import Shape, lay_out, whole_stack
from fastseq.autograd.extended_layer import (
    ExtendedLayer,
    ExtendedLayerBackward,
    extended_layer,
)
from fastseq.autograd.layer import Layer, LayerBackward, layer, step
from fastseq.autograd.linear import Linear, linear
from fastseq.autograd.lrn import (
    LocalResponseNorm,
    LocalResponseNormBackward,
    local_response_norm,
)
from fastseq.autograd.packed_stack import packed_stack
from fastseq.autograd.pool import MaxPool2d, MaxPool2dBackward, max_pool2d
from fastseq.autograd.trio import ReLULRNMaxPool2d, ReLULRNMaxPool2dBackward, relu_lrn_max_pool2d

__all__ = [
    "Bidirectional",
    "ExtendedLayer",
    "ExtendedLayerBackward",
    "Layer",
    "LayerBackward",
    "Linear",
    "LocalResponseNorm",
    "LocalResponseNormBackward",
    "MaxPool2d",
    "MaxPool2dBackward",
    "ReLULRNMaxPool2d",
    "ReLULRNMaxPool2dBackward",
    "Shape",
    "below_autograd",
    "bidirectional",
    "direct",
    "extended_layer",
    "forward_mode",
    "lay_out",
    "layer",
    "linear",
    "local_response_norm",
    "max_pool2d",
    "overwritten",
    "packed_stack",
    "relu_lrn_max_pool2d",
    "step",
    "wants_graph",
    "whole_stack",
]
