"""Real handwritten digits that need no download: scikit-learn's copy of the UCI test set."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.utils.data import TensorDataset

from fastseq.recipes.shared.splits import Splits, stratified_split

TEST_SHARE = 0.20
VALIDATION_SHARE = 0.15
# The parts stay the same whatever the seed of the training, so that accuracies compare.
SPLIT_SEED = 0


def digits_datasets(size: int = 28, split_seed: int = SPLIT_SEED) -> Splits:
    """Load 1797 handwritten digits, resized from 8x8 to ``size`` x ``size``.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, as shipped
    in `sklearn.datasets.load_digits`.

    Args:
        size: Height and width of the images.
        split_seed: Seed of the stratified split.

    Returns:
        1169 training, 269 validation and 359 test samples: float32 images ``(1, size, size)`` in
        [0, 1] and int64 labels.

    Example:
        >>> from fastseq.recipes.shared.digits import digits_datasets
        >>> image, label = digits_datasets().train[0]
        >>> image.shape
        torch.Size([1, 28, 28])
    """
    if size < 8:
        raise ValueError(f"size is {size}, expected at least 8, the width of the originals")
    # scikit-learn belongs to the train extra, and takes a second to import.
    from sklearn.datasets import load_digits

    raw = load_digits()
    small = torch.from_numpy(raw.images).float().div(16.0).unsqueeze(1)  # (N, 1, 8, 8), [0, 1]
    images = F.interpolate(small, size=(size, size), mode="bilinear", align_corners=False)
    labels = torch.from_numpy(raw.target).long()  # (N,)

    rest, test = stratified_split(labels, TEST_SHARE, split_seed)
    within = VALIDATION_SHARE / (1.0 - TEST_SHARE)
    # Another seed: the same one would draw the same order of each class a second time.
    train, validation = stratified_split(labels[rest], within, split_seed + 1)
    parts = (rest[train], rest[validation], test)
    return Splits(*(TensorDataset(images[part], labels[part]) for part in parts))
