"""The head of a network: found by its place, and replaced by one for other classes."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)

# Where torchvision's and fastseq's classifiers keep their last layer, or a Sequential around it.
PLACES = ("fc", "classifier", "head")
# Classifiers in the middle of a network, which are used in training.
AUXILIARY = ("aux1.fc2", "aux2.fc2", "AuxLogits.fc")


def find_heads(model: nn.Module) -> dict[str, nn.Linear]:
    """Return the last linear layer of a classifier by its name, then those of its helpers.

    Args:
        model: torchvision's mobilenet_v2, resnet, vgg, densenet, alexnet, googlenet and others
            like them, fastseq's classifiers, or any module whose last layer is a ``Linear`` named
            ``fc``, ``classifier`` or ``head``, or stands last in a ``Sequential`` of that name.

    Raises:
        ValueError: If there is no such layer.

    Example:
        >>> from fastseq.models import LeNet5
        >>> from fastseq.transfer import find_heads
        >>> find_heads(LeNet5())
        {'head': Linear(in_features=84, out_features=10, bias=True)}
    """
    for place in PLACES:
        for name, module in _ends(place, getattr(model, place, None)):
            heads = {name: module}
            for helper in AUXILIARY:
                layer = _submodule(model, helper)
                if isinstance(layer, nn.Linear):
                    heads[helper] = layer
            return heads
    raise ValueError(
        f"{type(model).__name__} has no head that can be found; expected a Linear, or a Sequential "
        f"that ends in one, named {', '.join(PLACES)}; rename its last layer"
    )


def replace_head(model: M, num_classes: int) -> M:
    """Give a network, in place, a last layer for other classes; the rest keeps its weights.

    Helpers in the middle (googlenet's) get new last layers too. Device and dtype stay.

    Args:
        model: A classifier; see `find_heads`.
        num_classes: Logits of the new head.

    Returns:
        The model itself.

    Raises:
        ValueError: If ``num_classes`` is below one, or the model has no head that can be found.

    Example:
        >>> import torchvision
        >>> from fastseq.transfer import replace_head
        >>> model = torchvision.models.mobilenet_v2(weights=None)  # or weights="DEFAULT"
        >>> replace_head(model, 10).classifier[-1]
        Linear(in_features=1280, out_features=10, bias=True)
    """
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}, expected at least 1; pass a positive one")
    for name, old in find_heads(model).items():
        new = nn.Linear(
            old.in_features,
            num_classes,
            bias=old.bias is not None,
            device=old.weight.device,
            dtype=old.weight.dtype,
        )
        owner, _, key = name.rpartition(".")
        setattr(model.get_submodule(owner), key, new.train(old.training))
    return model


def _ends(name: str, module: object) -> list[tuple[str, nn.Linear]]:
    if isinstance(module, nn.Linear):
        return [(name, module)]
    if isinstance(module, nn.Sequential) and len(module) > 0:
        return _ends(f"{name}.{len(module) - 1}", module[-1])
    return []


def _submodule(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None
