"""Drop-in modules for those of torch.nn."""

from fastseq import _dynamo
from fastseq._fx import leaves
from fastseq._script import refuse
from fastseq.nn.cells import GRUCell, LSTMCell, RNNCell
from fastseq.nn.frozen import FrozenGRU, FrozenLSTM, FrozenRNN, freeze
from fastseq.nn.lrn import LocalResponseNorm
from fastseq.nn.pool import MaxPool2d
from fastseq.nn.recurrent import GRU, LSTM, RNN
from fastseq.nn.trio import ReLULRNMaxPool2d

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
    "freeze",
]

leaves(
    GRU,
    LSTM,
    RNN,
    GRUCell,
    LSTMCell,
    LocalResponseNorm,
    MaxPool2d,
    RNNCell,
    ReLULRNMaxPool2d,
    FrozenGRU,
    FrozenLSTM,
    FrozenRNN,
)
refuse(GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell)
_dynamo.allow((LSTM, GRU, RNN))
