"""ReLU, LRN and max-pool in a row as one module, and apart again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch import nn
from torch.jit import ScriptModule
from torch.nn.modules import module as every_module
from torch.nn.utils import parametrize

from fastseq.nn import LocalResponseNorm, MaxPool2d, ReLULRNMaxPool2d
from fastseq.swap.places import join, owners
from fastseq.swap.report import Swapped, kind_of

_Chosen = Callable[[str, nn.Module], bool]
# Their results are new tensors, whatever the input.
_FRESH = (
    nn.Bilinear,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.Linear,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.conv._ConvNd,
)
_WINDOW = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
_NORM = ("size", "alpha", "beta", "k")


class Fused(nn.Identity):
    """The place of a module whose work the ``ReLULRNMaxPool2d`` before it does."""


class Change(NamedTuple):
    """New modules for neighbouring places of a Sequential."""

    owner: nn.Module
    modules: dict[str, nn.Module]

    def apply(self) -> None:
        """Put them there; keys keep their order."""
        self.owner._modules.update(self.modules)


def fusions(model: nn.Module, chosen: _Chosen, report: Swapped) -> Iterator[Change]:
    """Every ReLU, LRN and max-pool in a row of an ``nn.Sequential`` that can be one module."""
    for owner_name, owner in owners(model):
        if isinstance(owner, ScriptModule) or type(owner).forward is not nn.Sequential.forward:
            continue
        keys = list(owner._modules)
        for place in range(len(keys) - 2):
            relu, lrn, pool = three = [owner._modules[key] for key in keys[place : place + 3]]
            names = [join(owner_name, key) for key in keys[place : place + 3]]
            if not (isinstance(lrn, nn.Module) and isinstance(pool, nn.Module)):
                continue
            if not (chosen(names[1], lrn) and chosen(names[2], pool)):
                continue
            before = owner._modules[keys[place - 1]] if place else None
            why = _fusible(before, relu, lrn, pool)
            if why is None:
                continue
            assert isinstance(relu, nn.ReLU)
            if why:
                report.left.append((names[0], kind_of(relu), why))
                continue
            trio = _trio(relu, lrn, pool)
            blanks = [Fused().train(relu.training) for _ in range(2)]
            old = " + ".join(kind_of(module) for module in three if module is not None)
            report.replaced.append((names[0], old, kind_of(trio)))
            new: list[nn.Module] = [trio, *blanks]
            yield Change(owner, dict(zip(keys[place : place + 3], new, strict=True)))


def _fusible(before: Any, relu: Any, lrn: Any, pool: Any) -> str | None:
    """None if the three are not the pattern, "" if they can be fused, else why not."""
    if not (
        type(relu) is nn.ReLU
        and type(lrn) in (nn.LocalResponseNorm, LocalResponseNorm)
        and type(pool) in (nn.MaxPool2d, MaxPool2d)
    ):
        return None
    if getattr(lrn, "within_channel", False):
        return "not fused: its LRN is within a channel"
    if any(True for _ in lrn.parameters()):
        return "not fused: its LRN has parameters"
    if pool.return_indices:
        return "not fused: its pooling returns indices"
    if hooked(relu, lrn, pool) or _hooked_everywhere():
        return "not fused: a hook looks between ReLU, LRN and pooling"
    if relu.inplace and not _fresh(before):
        return (
            "not fused: it works in place, on a tensor that others may read, and the fused module "
            "would leave that as it is"
        )
    return ""


def _fresh(before: nn.Module | None) -> bool:
    """Whether nobody but the next module sees what this one returns."""
    if before is None or hooked(before):
        return False
    kind = parametrize.type_before_parametrizations(before)
    return issubclass(kind, _FRESH) and kind.__module__.startswith("torch.nn.")


def hooked(*modules: nn.Module) -> bool:
    """Whether anybody wants to see what goes in or out of one of these modules."""
    return any(
        value
        for module in modules
        for name, value in module.__dict__.items()
        if name.endswith("_hooks") and "state_dict" not in name
    )


def _hooked_everywhere() -> bool:
    """Whether a hook looks at every module there is."""
    return any(
        value
        for name, value in vars(every_module).items()
        if name.startswith(("_global_forward", "_global_backward")) and name.endswith("_hooks")
    )


def _trio(relu: nn.Module, lrn: nn.Module, pool: nn.Module) -> ReLULRNMaxPool2d:
    numbers = {name: getattr(lrn, name) for name in _NORM}
    window = {name: getattr(pool, name) for name in _WINDOW}
    trio = ReLULRNMaxPool2d(**numbers, **window)
    trio.train(relu.training)
    # In a tuple, so that they are no submodules and add nothing to the state_dict.
    vars(trio)["fused_from"] = (relu, lrn, pool)
    return trio


def splits(model: nn.Module, chosen: _Chosen, report: Swapped) -> Iterator[Change]:
    """The three modules for each that ``fusions`` made, with the numbers that it has now."""
    for owner_name, owner in owners(model):
        if isinstance(owner, ScriptModule):
            continue
        keys = list(owner._modules)
        for place, key in enumerate(keys):
            trio = owner._modules[key]
            name = join(owner_name, key)
            if not isinstance(trio, ReLULRNMaxPool2d) or not chosen(name, trio):
                continue
            where = keys[place : place + 3]
            why = _whole(trio, [owner._modules[key] for key in where])
            if why:
                report.left.append((name, kind_of(trio), why))
                continue
            parts = _parts(trio)
            report.replaced.append((name, kind_of(trio), " + ".join(map(kind_of, parts))))
            yield Change(owner, dict(zip(where, parts, strict=True)))


def _whole(trio: ReLULRNMaxPool2d, stand: list[nn.Module | None]) -> str:
    """Why a fused module cannot be taken apart, or nothing."""
    if "fused_from" not in vars(trio):
        return "swap() did not put it there"
    if [type(module) for module in stand[1:]] != [Fused, Fused]:
        return "its two identities were moved"
    if hooked(*(module for module in stand if module is not None)):
        return "a hook looks at it"
    return "it has parameters now" if any(True for _ in trio.parameters()) else ""


def _parts(trio: ReLULRNMaxPool2d) -> tuple[nn.Module, ...]:
    parts: tuple[nn.Module, ...] = vars(trio)["fused_from"]
    return parts


def restore(change: Change, trio: ReLULRNMaxPool2d) -> None:
    """Put the parts back, with the mode and the numbers of the module that stood for them."""
    _, lrn, pool = parts = _parts(trio)
    for module, names in ((lrn, _NORM), (pool, _WINDOW)):
        for name in names:
            setattr(module, name, getattr(trio, name))
    for part in parts:
        part.train(trio.training)
    change.apply()
