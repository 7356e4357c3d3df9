"""Data sets for the recipes; the modules named `..._module` wrap them for Lightning."""

from fastseq.data.digits import digits_datasets
from fastseq.data.mnist import mnist_datasets
from fastseq.data.scenes import DigitScenes
from fastseq.data.segmentation import pets_datasets, scene_datasets, voc_datasets

__all__ = [
    "DigitScenes",
    "digits_datasets",
    "mnist_datasets",
    "pets_datasets",
    "scene_datasets",
    "voc_datasets",
]
