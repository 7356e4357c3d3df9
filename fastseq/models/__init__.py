"""Architectures built from fastseq's public modules, one a file."""

from fastseq.models.char_rnn import CharRNN
from fastseq.models.row_rnn import RowRNN
from fastseq.models.seq2seq import Seq2Seq
from fastseq.models.sequence_tagger import SequenceTagger

__all__ = ["CharRNN", "RowRNN", "Seq2Seq", "SequenceTagger"]
