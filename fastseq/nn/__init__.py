"""Drop-in modules for those of torch.nn."""

from fastseq import _dynamo
from fastseq.nn.cells import GRUCell, LSTMCell, RNNCell
from fastseq.nn.lrn import LocalResponseNorm
from fastseq.nn.pool import MaxPool2d
from fastseq.nn.recurrent import GRU, LSTM, RNN
from fastseq.nn.trio import ReLULRNMaxPool2d

_dynamo.allow((LSTM, GRU, RNN))

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
]
