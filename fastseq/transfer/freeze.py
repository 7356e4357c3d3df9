"""What of a network is trained: the head alone, the last layers, the norms, or all."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import nn

from fastseq.transfer.head import find_heads

M = TypeVar("M", bound=nn.Module)

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
NORMS = (
    *BATCH_NORMS,
    nn.GroupNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.LayerNorm,
    nn.RMSNorm,
)
# Exactly these: a subclass, such as a block of torchvision's, is one layer.
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def layer_names(model: nn.Module) -> list[str]:
    """Return the names of the layers below the head, from first to last.

    A layer is a child of the model that has parameters; a plain container is opened and its
    children count. In a resnet these are ``conv1``, ``bn1`` and the residual blocks.

    Example:
        >>> from fastseq.models import LeNet5
        >>> from fastseq.transfer import layer_names
        >>> layer_names(LeNet5())
        ['features.0', 'features.3', 'features.7', 'features.9']
    """
    heads = set(find_heads(model).values())
    return _layers(model, heads, "")


def freeze_features(model: M) -> M:
    """Train the head only.

    Frozen batch norms also keep their running statistics: they stay in evaluation mode whatever
    ``model.train()`` says, until they are unfrozen. Otherwise the features would still change.

    Args:
        model: A classifier; see `find_heads`.

    Returns:
        The model itself.

    Raises:
        ValueError: If the model has no head that can be found.

    Example:
        >>> from fastseq.models import LeNet5
        >>> from fastseq.transfer import freeze_features
        >>> model = freeze_features(LeNet5())
        >>> [name for name, weight in model.named_parameters() if weight.requires_grad]
        ['head.weight', 'head.bias']
    """
    heads = find_heads(model)
    model.requires_grad_(False)
    for head in heads.values():
        head.requires_grad_(True)
    _hold_statistics(model)
    return model


def unfreeze(model: M, last: int | None = None) -> M:
    """Train the head and the last layers below it, or everything.

    Args:
        model: A classifier; see `find_heads`.
        last: How many layers, as `layer_names` counts them; ``None`` for all parameters.

    Returns:
        The model itself.

    Raises:
        ValueError: If there are not so many layers, or the model has no head that can be found.

    Example:
        >>> from fastseq.models import LeNet5
        >>> from fastseq.transfer import freeze_features, unfreeze
        >>> model = unfreeze(freeze_features(LeNet5()), last=1)
        >>> [name for name, weight in model.named_parameters() if weight.requires_grad]
        ['features.9.weight', 'features.9.bias', 'head.weight', 'head.bias']
    """
    names, heads = layer_names(model), find_heads(model)
    if last is not None and not 0 <= last <= len(names):
        raise ValueError(
            f"last is {last}, expected 0 to {len(names)}, the layers of {type(model).__name__}; "
            f"layer_names(model) lists them"
        )
    chosen = [model] if last is None else [model.get_submodule(n) for n in names[-last:] if last]
    for module in (*chosen, *heads.values()):
        module.requires_grad_(True)
    _hold_statistics(model)
    return model


def train_only_norms(model: M) -> M:
    """Train the scales and shifts of the normalization layers, and the head.

    Batch norms learn the statistics of the new data as well.

    Args:
        model: A classifier; see `find_heads`.

    Returns:
        The model itself.

    Raises:
        ValueError: If the model has no norm with weights, or no head that can be found.

    Example:
        >>> import torchvision
        >>> from fastseq.transfer import train_only_norms
        >>> model = train_only_norms(torchvision.models.mobilenet_v2(weights=None))
        >>> model.features[0][0].weight.requires_grad, model.features[0][1].weight.requires_grad
        (False, True)
    """
    norms = [module for module in model.modules() if isinstance(module, NORMS)]
    if not any(True for norm in norms for _ in norm.parameters()):
        raise ValueError(
            f"{type(model).__name__} has no normalization layer with weights; "
            f"use freeze_features() or unfreeze()"
        )
    freeze_features(model)
    for norm in norms:
        norm.requires_grad_(True)
    _hold_statistics(model)
    return model


def _layers(module: nn.Module, heads: set[nn.Linear], prefix: str) -> list[str]:
    names = []
    for key, child in module.named_children():
        name = f"{prefix}{key}"
        if type(child) in CONTAINERS:
            names += _layers(child, heads, f"{name}.")
        # A helper in the middle of the network is a head with some layers of its own.
        elif any(True for _ in child.parameters()) and not heads & set(child.modules()):
            names.append(name)
    return names


def _hold_statistics(model: nn.Module) -> None:
    """Keep frozen batch norms in evaluation mode, and let go of the others."""
    for module in model.modules():
        if not isinstance(module, BATCH_NORMS):
            continue
        held = [key for key, hook in module._forward_pre_hooks.items() if hook is _stay_still]
        if not _is_frozen(module):
            for key in held:
                del module._forward_pre_hooks[key]
                module.train(model.training)
        elif not held:
            module.register_forward_pre_hook(_stay_still)


def _stay_still(module: nn.Module, args: Any) -> None:
    """Undo what ``model.train()`` did to a frozen norm."""
    module.training = module.training and not _is_frozen(module)


def _is_frozen(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)
