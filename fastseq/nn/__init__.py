"""Drop-in modules for those of torch.nn."""

from fastseq.nn.cells import GRUCell, LSTMCell, RNNCell
from fastseq.nn.recurrent import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell"]
