"""Data sets for the recipes; `fastseq.data.module` wraps them for Lightning."""

from fastseq.data.digits import digits_datasets
from fastseq.data.mnist import mnist_datasets

__all__ = ["digits_datasets", "mnist_datasets"]
