"""fastseq's ops as functions, with the arguments of torch.nn.functional's and torch's own."""

from fastseq.functional.lrn import local_response_norm
from fastseq.functional.options import Options
from fastseq.functional.pool import max_pool2d
from fastseq.functional.prepare import autocasts
from fastseq.functional.recurrence import gru, lstm, rnn
from fastseq.functional.stack import step
from fastseq.functional.trio import relu_lrn_max_pool2d

__all__ = [
    "Options",
    "autocasts",
    "gru",
    "local_response_norm",
    "lstm",
    "max_pool2d",
    "relu_lrn_max_pool2d",
    "rnn",
    "step",
]
