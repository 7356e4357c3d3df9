"""Every op in plain PyTorch, to be read beside its formula: oracle and higher derivatives.

Slow, and the same on every device. Arguments and results are those of ``fastseq.ops``.
"""

from fastseq.reference.extended_layer import extended_layer, extended_layer_backward, layer_norm
from fastseq.reference.layer import layer, layer_backward
from fastseq.reference.lrn import local_response_norm, local_response_norm_backward
from fastseq.reference.pool import max_pool2d, max_pool2d_backward
from fastseq.reference.recurrence import recurrence, recurrence_backward
from fastseq.reference.trio import relu_lrn_max_pool2d, relu_lrn_max_pool2d_backward

__all__ = [
    "extended_layer",
    "extended_layer_backward",
    "layer",
    "layer_backward",
    "layer_norm",
    "local_response_norm",
    "local_response_norm_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "recurrence",
    "recurrence_backward",
    "relu_lrn_max_pool2d",
    "relu_lrn_max_pool2d_backward",
]
