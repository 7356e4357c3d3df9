"""Where the modules of a model stand, and which of them a user means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import nn
from torch.jit import ScriptModule
from torch.nn.utils import parametrize

Which = type[nn.Module] | str | Callable[[str, nn.Module], bool]
Only = Which | Iterable[Which] | None


class Place(NamedTuple):
    """A place of a module in a model; a module that is shared has several."""

    name: str
    owner: nn.Module | None  # None: it is the model itself
    key: str
    module: nn.Module


def owners(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module once, and its name; of what torch.jit compiled the outermost alone."""
    seen: set[nn.Module] = set()
    waiting = [("", model)]
    while waiting:
        name, module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        yield name, module
        if not isinstance(module, ScriptModule):
            children = [(join(name, k), m) for k, m in module._modules.items() if m is not None]
            waiting += reversed(children)


def places(model: nn.Module) -> Iterator[Place]:
    """Every place in the model."""
    yield Place("(the model)", None, "", model)
    for owner_name, owner in owners(model):
        if isinstance(owner, ScriptModule):
            continue
        for key, child in owner._modules.items():
            if child is not None:
                yield Place(join(owner_name, key), owner, key, child)


def join(name: str, key: str) -> str:
    """The name of a child."""
    return f"{name}.{key}" if name else key


def chooser(
    model: nn.Module, only: Only, twins: dict[type[nn.Module], type[nn.Module]]
) -> Callable[[str, nn.Module], bool]:
    """Whether a module of that name is meant.

    Raises:
        ValueError: a pattern fits no name of the model.
        TypeError: something else than a class, a pattern or a function.
    """
    if only is None:
        return lambda name, module: True
    wanted = [only] if isinstance(only, (str, type)) or callable(only) else list(only)
    names = [place.name for place in places(model)]
    for which in wanted:
        if isinstance(which, str) and not any(fnmatchcase(name, which) for name in names):
            raise ValueError(f"only={which!r} fits the name of no module in this model")
        if not isinstance(which, (str, type)) and not callable(which):
            raise TypeError(
                "only takes classes, patterns of names and functions of name and module, "
                f"got {which!r}"
            )

    def chosen(name: str, module: nn.Module) -> bool:
        kind: type[nn.Module] = parametrize.type_before_parametrizations(module)
        twin = twins.get(kind, kind)
        for which in wanted:
            if isinstance(which, str):
                found = fnmatchcase(name, which)
            elif isinstance(which, type):
                found = issubclass(kind, which) or issubclass(twin, which)
            else:
                found = which(name, module)
            if found:
                return True
        return False

    return chosen
