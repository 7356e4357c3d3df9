"""fastseq's modules in ``torch.fx``: leaves of a graph, as torch.nn's are.

A Tracer takes for a leaf what says ``m.__module__.startswith("torch.nn")``, and runs the forward of
any other module on Proxies, which no recurrence survives. So each instance says that it is one of
torch.nn's, whose place it takes. The class says where it is from, and pickling asks the class; a
user's subclass is traced into, as one of a class of torch.nn's would be.
"""

from __future__ import annotations

from typing import Any

from torch import nn

_KEY = "__module__"


def mark(module: nn.Module, ours: bool = True) -> None:
    """Make a module a leaf, or take the mark off one that is a class of torch.nn's again."""
    if ours:
        vars(module)[_KEY] = "torch.nn"
    else:
        vars(module).pop(_KEY, None)


def leaves(*kinds: type[nn.Module]) -> None:
    """Have every new instance of these classes marked: built, copied or unpickled."""

    def new(cls: type[nn.Module], *args: Any, **kwargs: Any) -> nn.Module:
        module: nn.Module = object.__new__(cls)
        if cls in kinds:
            mark(module)
        return module

    for kind in kinds:
        kind.__new__ = staticmethod(new)  # type: ignore[method-assign, assignment]
