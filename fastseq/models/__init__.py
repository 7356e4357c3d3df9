"""Architectures built from fastseq's public modules, one a file."""

from fastseq.models.row_rnn import RowRNN

__all__ = ["RowRNN"]
