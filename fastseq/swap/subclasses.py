"""Subclasses of torch.nn's modules on fastseq's kernels, by a class made for each of them."""

from __future__ import annotations

from typing import Any

from torch import nn


def obstacle(kind: type[nn.Module], base: type[nn.Module]) -> str:
    """Why a subclass of torch.nn's ``base`` would not run our forward, or nothing."""
    for owner in kind.__mro__[: kind.__mro__.index(base)]:
        forward = vars(owner).get("forward")
        if forward is not None and "super" not in getattr(
            getattr(forward, "__code__", None), "co_names", ()
        ):
            return f"the forward of {owner.__name__} does not call that of torch.nn.{base.__name__}"
    return ""


_made: dict[type[nn.Module], type[nn.Module]] = {}  # one class for each


def made_of(kind: type[nn.Module], base: type[nn.Module], ours: type[nn.Module]) -> type[nn.Module]:
    """``kind`` with our module before torch.nn's wherever its methods look for the next one.

    What the subclass overrides stays: its ``super().forward`` finds ours instead of torch.nn's.
    The ordinary order of bases cannot say that, as torch.nn's would come first.
    """
    if kind not in _made:
        _made[kind] = _make(kind, base, ours)
    return _made[kind]


def _make(kind: type[nn.Module], base: type[nn.Module], ours: type[nn.Module]) -> type[nn.Module]:

    class Inserting(type(kind)):  # type: ignore[misc]
        def mro(cls) -> list[type]:
            order = list(kind.__mro__)
            at = order.index(base)
            added = [c for c in ours.__mro__ if c not in order]
            return [cls, *order[:at], *added, *order[at:]]

    def reduce(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
        return _restored, (kind, base, ours), self.__getstate__()

    body = {"swapped_from": kind, "__reduce_ex__": reduce, "__module__": kind.__module__}
    name = kind.__name__
    made: type[nn.Module] = Inserting(name, (kind, ours), body)
    return made


def _restored(kind: type[nn.Module], base: type[nn.Module], ours: type[nn.Module]) -> nn.Module:
    cls = made_of(kind, base, ours)
    module: nn.Module = cls.__new__(cls)
    return module
