"""Replace torch.nn's modules by fastseq's in a model that exists, and back.

A module stays the object it is and changes its class: whatever refers to it (a second place in the
model, a list, a hook's handle, an optimizer's parameters) goes on to do so. Everything is found out
first, in a plan with its report, and done after.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

from torch import nn

from fastseq.nn import ReLULRNMaxPool2d
from fastseq.swap.fuse import Fused, fusions, restore, splits
from fastseq.swap.places import Only, chooser, places
from fastseq.swap.report import Swapped, kind_of, title
from fastseq.swap.twins import BACK, TWINS, become, target_of

__all__ = ["Fused", "Swapped", "swap", "swap_report"]
_log = logging.getLogger("fastseq")
_Model = TypeVar("_Model", bound=nn.Module)


class _Plan(NamedTuple):
    steps: list[Callable[[], None]]
    report: Swapped


def swap(
    model: _Model,
    back: bool = False,
    *,
    fuse: bool = True,
    only: Only = None,
    subclasses: bool = False,
    verbose: bool = False,
) -> _Model:
    """Replace torch.nn's recurrent, LRN and max-pool modules by fastseq's, in place.

    A module stays the same object, in all places that it is used in: its class changes, and nothing
    else. Parameters, parametrizations, buffers, hooks, device, dtype, training mode and
    ``requires_grad`` are untouched, and so are the keys of ``state_dict``.

    In every ``nn.Sequential``, ReLU, LRN and max-pool in a row become one ``ReLULRNMaxPool2d`` and
    two identities, so that positions stay too. What is seen between the three is then the pooled
    result: for a model that takes features out of the middle there is ``fuse=False``. A ReLU that
    works in place is fused where it follows a convolution or the like, whose result nobody else
    sees, as the fused module leaves its input alone.

    Args:
        model: any module.
        back: put torch.nn's modules in the places of fastseq's instead.
        fuse: make ReLU, LRN and max-pool one module.
        only: which modules: a class, a pattern of names (``"encoder.*"``), a function of name and
            module, or several of these, of which any will do. All by default.
        subclasses: also take subclasses of torch.nn's modules. Each gets a class made for it, in
            which fastseq's stands before torch.nn's, so that its ``super().forward`` runs ours.
        verbose: print the report; the logger "fastseq" has it in any case, at level INFO.

    Returns:
        The model.

    Raises:
        ValueError: ``only`` has a pattern that fits no module.
        TypeError: ``model`` is no module.

    Example:
        >>> model = fastseq.swap(torchvision.models.googlenet(weights="DEFAULT"), verbose=True)
    """
    plan = _plan(model, back, fuse, only, subclasses)
    for step in plan.steps:
        step()
    for line in plan.report.lines():
        _log.info(line)
        if verbose:
            print(line)
    return model


def swap_report(
    model: nn.Module,
    back: bool = False,
    *,
    fuse: bool = True,
    only: Only = None,
    subclasses: bool = False,
) -> Swapped:
    """What ``swap`` would do, which changes nothing; the arguments are the same.

    Example:
        >>> print(fastseq.swap_report(model))
        lstm: torch.nn.LSTM -> fastseq.LSTM
    """
    return _plan(model, back, fuse, only, subclasses).report


def _plan(model: nn.Module, back: bool, fuse: bool, only: Only, subclasses: bool) -> _Plan:
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a torch.nn.Module to swap, got {type(model).__name__}")
    plan = _Plan([], Swapped())
    chosen = chooser(model, only, {**BACK, **TWINS})
    to_be: dict[tuple[nn.Module | None, str], nn.Module] = {}  # where one module becomes another
    if back:
        for change in splits(model, chosen, plan.report):
            trio = next(iter(change.modules))
            stood = change.owner._modules[trio]
            assert isinstance(stood, ReLULRNMaxPool2d)
            plan.steps.append(partial(restore, change, stood))
            to_be.update({(change.owner, key): m for key, m in change.modules.items()})
    elif fuse:
        for change in fusions(model, chosen, plan.report):
            plan.steps.append(change.apply)
            to_be.update({(change.owner, key): m for key, m in change.modules.items()})
    seen: dict[nn.Module, tuple[str, str] | None] = {}
    for name, owner, key, stands in places(model):
        module = to_be.get((owner, key), stands)
        if not chosen(name, stands):
            continue
        if module not in seen:
            seen[module] = _replacement(module, name, back, subclasses, plan)
        kinds = seen[module]
        if kinds is not None:
            plan.report.replaced.append((name, *kinds))
    return plan


def _replacement(
    module: nn.Module, name: str, back: bool, subclasses: bool, plan: _Plan
) -> tuple[str, str] | None:
    """Plan a new class for the module: what it is and will be; or say why it is left."""
    before = kind_of(module)
    target, why = target_of(module, back, subclasses)
    if why:
        plan.report.left.append((name, before, why))
    if target is None:
        return None
    plan.steps.append(partial(become, module, target))
    ours = "swapped_from" in vars(target)
    return before, f"{before} on fastseq's kernels" if ours else title(target)
