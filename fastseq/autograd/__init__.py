"""One ``torch.autograd.Function`` per op, and one for its gradient."""

from fastseq.autograd import layer_vmap as layer_vmap  # registers its rules
from fastseq.autograd.extended_layer import ExtendedLayer, ExtendedLayerBackward
from fastseq.autograd.layer import Layer, LayerBackward
from fastseq.autograd.linear import Linear
from fastseq.autograd.lrn import LocalResponseNorm, LocalResponseNormBackward
from fastseq.autograd.pool import MaxPool2d, MaxPool2dBackward
from fastseq.autograd.trio import ReLULRNMaxPool2d, ReLULRNMaxPool2dBackward

__all__ = [
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
]
