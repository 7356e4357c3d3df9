"""Transfer learning: a trained network, a new task, few labels.

Weights are loaded by whoever made the network, for instance
``torchvision.models.resnet18(weights="DEFAULT")``; everything here works on the module itself.
"""

from fastseq.transfer.choice import Choice, choice_table, choose
from fastseq.transfer.features import extract_features
from fastseq.transfer.freeze import freeze_features, layer_names, train_only_norms, unfreeze
from fastseq.transfer.head import find_heads, replace_head
from fastseq.transfer.rates import param_groups

__all__ = [
    "Choice",
    "choice_table",
    "choose",
    "extract_features",
    "find_heads",
    "freeze_features",
    "layer_names",
    "param_groups",
    "replace_head",
    "train_only_norms",
    "unfreeze",
]
