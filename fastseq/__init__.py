"""fastseq: drop-in recurrent, normalization and pooling layers for PyTorch on fused kernels.

``fastseq.LSTM`` takes the place of ``torch.nn.LSTM``, ``fastseq.LocalResponseNorm`` of
``torch.nn.LocalResponseNorm``, and so on: the same arguments, parameters and results.
"""

from fastseq import _flops as _flops
from fastseq import _library as _library  # loads the kernels, or says why it cannot
from fastseq import functional, reference
from fastseq._version import __version__
from fastseq.explain import explain
from fastseq.functional.cuda_route import cuda_rnn
from fastseq.info import info
from fastseq.invariance import batch_invariant
from fastseq.memory import empty_cache
from fastseq.nn import (
    GRU,
    LSTM,
    RNN,
    GRUCell,
    LocalResponseNorm,
    LSTMCell,
    MaxPool2d,
    ReLULRNMaxPool2d,
    RNNCell,
    freeze,
)
from fastseq.onnx import onnx_translation_table
from fastseq.swap import swap, swap_report

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "GRUCell",
    "LSTMCell",
    "LocalResponseNorm",
    "MaxPool2d",
    "RNNCell",
    "ReLULRNMaxPool2d",
    "__version__",
    "batch_invariant",
    "cuda_rnn",
    "empty_cache",
    "explain",
    "freeze",
    "functional",
    "info",
    "onnx_translation_table",
    "reference",
    "swap",
    "swap_report",
]
