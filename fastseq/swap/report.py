"""What swap() does to a model, in words."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn
from torch.nn.utils import parametrize


@dataclass
class Swapped:
    """What ``swap`` does to a model; print it.

    Attributes:
        replaced: name in the model, what stands there, what stands there after.
        left: name in the model, what stands there, why it is left.
    """

    replaced: list[tuple[str, str, str]] = field(default_factory=list)
    left: list[tuple[str, str, str]] = field(default_factory=list)

    def lines(self) -> list[str]:
        """One line a module."""
        lines = [f"{name}: {old} -> {new}" for name, old, new in self.replaced]
        lines += [f"{name}: {kind} left, {why}" for name, kind, why in self.left]
        return lines or ["nothing to replace"]

    def __str__(self) -> str:
        """One line a module."""
        return "\n".join(self.lines())


def kind_of(module: nn.Module) -> str:
    """The name of a module's class, whatever parametrize has made of it."""
    return title(parametrize.type_before_parametrizations(module))


def title(kind: type) -> str:
    """A class as a user would write it."""
    library = kind.__module__.partition(".")[0]
    return f"{library}.{'nn.' if library == 'torch' else ''}{kind.__name__}"
