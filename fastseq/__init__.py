"""fastseq: drop-in LSTM, GRU and RNN for PyTorch on fused C++/CUDA kernels.

``fastseq.LSTM`` takes the place of ``torch.nn.LSTM``: the same arguments, parameters and results.
"""

from fastseq import _library as _library  # loads the kernels, or says why it cannot
from fastseq import functional, reference
from fastseq._info import explain, info
from fastseq._version import __version__
from fastseq.nn import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "__version__",
    "explain",
    "functional",
    "info",
    "reference",
]
