"""Architectures built from fastseq's public modules, one a file."""

from fastseq.models.alexnet import AlexNet
from fastseq.models.char_rnn import CharRNN
from fastseq.models.conv_transpose import ConvTransposeNet
from fastseq.models.conv_upsample import ConvUpsampleNet
from fastseq.models.googlenet import GoogLeNet, GoogLeNetOutput
from fastseq.models.inception import Inception, NaiveInception
from fastseq.models.lenet5 import LeNet5
from fastseq.models.resnet_deeplab import ResNetDeepLab
from fastseq.models.row_rnn import RowRNN
from fastseq.models.seq2seq import Seq2Seq
from fastseq.models.sequence_tagger import SequenceTagger
from fastseq.models.unet import UNet

__all__ = [
    "AlexNet",
    "CharRNN",
    "ConvTransposeNet",
    "ConvUpsampleNet",
    "GoogLeNet",
    "GoogLeNetOutput",
    "Inception",
    "LeNet5",
    "NaiveInception",
    "ResNetDeepLab",
    "RowRNN",
    "Seq2Seq",
    "SequenceTagger",
    "UNet",
]
