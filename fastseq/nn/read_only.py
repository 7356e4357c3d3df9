"""Parameters that can be read and not written to: those of a frozen module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_without = torch._C.DisableTorchFunctionSubclass


class ReadOnly(nn.Parameter):
    """A parameter whose functions that write raise before they do.

    What shares its memory (a view, ``.data``) is read-only as well; ``detach()``, and so what
    ``state_dict()`` holds, is a copy and an ordinary tensor.

    Raises:
        RuntimeError: something writes to it, or asks for its gradient.
    """

    @classmethod
    def of(cls, tensor: Tensor) -> ReadOnly:
        """The same memory, read-only."""
        return torch.Tensor._make_subclass(cls, tensor.detach(), False)

    @classmethod
    def __torch_function__(  # type: ignore[override]
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call what does not write."""
        kwargs = kwargs or {}
        if _writes(func, args, kwargs):
            raise RuntimeError(
                f"{func.__name__} would write to a weight of a frozen module. Change the module "
                "that fastseq.freeze was given, and freeze it again; or take a copy by clone()."
            )
        with _without():
            made = func(*args, **kwargs)
            if func is torch.Tensor.detach:
                return made.clone()
            if isinstance(made, Tensor) and any(_shares(made, a) for a in args):
                return cls.of(made)
        return made


def _writes(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a function writes to a read-only argument, by the names that PyTorch gives those."""
    name = func.__name__
    if isinstance(kwargs.get("out"), ReadOnly):
        return True
    if not args or not isinstance(args[0], ReadOnly):
        return False
    if name in ("__set__", "__setitem__", "__delete__"):  # p.data = ..., p.requires_grad = ...
        return True
    if name.startswith("__"):
        return name.startswith("__i") and name[3:] in _IN_PLACE
    return name.endswith("_")


_OPERATORS = "add sub mul div truediv floordiv mod pow matmul and or xor lshift rshift"
_IN_PLACE = {f"{name}__" for name in _OPERATORS.split()}


def _shares(made: Tensor, other: Any) -> bool:
    if not isinstance(other, ReadOnly) or made.layout != torch.strided or not made.numel():
        return False
    return made.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
