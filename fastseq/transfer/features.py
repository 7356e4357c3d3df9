"""Features of a trained network, for a classifier outside of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fastseq.models.shared import evaluating
from fastseq.transfer.freeze import layer_names
from fastseq.transfer.head import find_heads


@torch.no_grad()
def extract_features(
    model: nn.Module, loader: Iterable[Any], layer: str | None = None
) -> tuple[Tensor, Tensor]:
    """Return what the head reads, or what an earlier layer makes, of every image.

    The model runs in evaluation mode, on the device where it is, and is left as it was.

    Args:
        model: A classifier; see `find_heads`.
        loader: Batches whose first two elements are images and labels.
        layer: Name of a layer, as in `layer_names`; its maps are averaged over the image.
            ``None`` for the input of the head.

    Returns:
        Features ``(N, F)`` and labels ``(N,)``, on the CPU.

    Raises:
        ValueError: If there is no such layer, no head that can be found, or no batch.

    Example:
        >>> import torch
        >>> from sklearn.linear_model import LogisticRegression
        >>> from fastseq.models import LeNet5
        >>> from fastseq.transfer import extract_features
        >>> loader = [(torch.rand(8, 1, 28, 28), torch.arange(8) % 2) for _ in range(3)]
        >>> features, labels = extract_features(LeNet5(), loader)
        >>> features.shape
        torch.Size([24, 84])
        >>> classifier = LogisticRegression().fit(features.numpy(), labels.numpy())
    """
    seen: list[Tensor] = []

    def read(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.append(args[0])

    def made(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append(output.mean(dim=(2, 3)) if output.dim() == 4 else output)

    if layer is None:
        hook = next(iter(find_heads(model).values())).register_forward_pre_hook(read)
    else:
        try:
            hook = model.get_submodule(layer).register_forward_hook(made)
        except AttributeError as error:
            raise ValueError(
                f"{type(model).__name__} has no layer {layer!r}; it has "
                f"{', '.join(layer_names(model))}"
            ) from error
    device = next(model.parameters()).device
    features, labels = [], []
    try:
        with evaluating(model):
            for batch in loader:
                model(batch[0].to(device))
                features.append(seen.pop().flatten(1).cpu())
                labels.append(batch[1].cpu())
    finally:
        hook.remove()
    if not features:
        raise ValueError("the loader gave no batch; pass one with at least one image")
    return torch.cat(features), torch.cat(labels)
