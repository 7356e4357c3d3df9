"""Replace torch.nn's modules by fastseq's in a model that exists, and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import nn

from fastseq.nn import (
    GRU,
    LSTM,
    RNN,
    GRUCell,
    LocalResponseNorm,
    LSTMCell,
    MaxPool2d,
    ReLULRNMaxPool2d,
    RNNCell,
)

_TWINS: dict[type[nn.Module], type[nn.Module]] = {
    nn.LSTM: LSTM,
    nn.GRU: GRU,
    nn.RNN: RNN,
    nn.LSTMCell: LSTMCell,
    nn.GRUCell: GRUCell,
    nn.RNNCell: RNNCell,
    nn.LocalResponseNorm: LocalResponseNorm,
    nn.MaxPool2d: MaxPool2d,
}
_BACK = {ours: native for native, ours in _TWINS.items()}
M = TypeVar("M", bound=nn.Module)


class Fused(nn.Identity):
    """The place of a module whose work the ``ReLULRNMaxPool2d`` before it does."""


@dataclass
class Swapped:
    """What ``swap`` did to a model; print it.

    Attributes:
        replaced: name in the model, what stood there, what stands there now.
        left: name in the model, what stands there, why it was left.
    """

    replaced: list[tuple[str, str, str]] = field(default_factory=list)
    left: list[tuple[str, str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        """One line a module."""
        lines = [f"{name}: {old} -> {new}" for name, old, new in self.replaced]
        lines += [f"{name}: {kind} left, {why}" for name, kind, why in self.left]
        return "\n".join(lines) or "nothing to replace"


def swap(model: nn.Module, back: bool = False) -> Swapped:
    """Replace torch.nn's recurrent, LRN and max-pool modules by fastseq's, in place.

    Parameters, buffers, hooks, device, dtype, training mode and ``requires_grad`` stay: the new
    module shares the old one's attributes. A module used in several places is replaced by one in
    all of them. In every ``nn.Sequential``, ReLU, LRN and max-pool in a row become one
    ``ReLULRNMaxPool2d`` and two identities, so that positions and ``state_dict`` keys stay too.

    The model itself is not replaced: of ``swap(nn.LSTM(3, 4))`` the report says so.

    Args:
        model: any module.
        back: put torch.nn's modules in the places of fastseq's instead.

    Returns:
        What was replaced, and what was left and why.

    Example:
        >>> model = torchvision.models.googlenet(weights=None, init_weights=False)
        >>> print(fastseq.swap(model))
    """
    report = Swapped()
    if back:
        _split(model, report)
    else:
        _fuse(model, report)
    table = _BACK if back else _TWINS
    twins: dict[nn.Module, nn.Module] = {}
    for owner_name, owner in list(model.named_modules()):
        for key, child in list(owner._modules.items()):
            if child is None:
                continue
            name = f"{owner_name}.{key}" if owner_name else key
            target = table.get(type(child))
            why = _obstacle(child, back)
            if target is not None and not why:
                if child not in twins:
                    twins[child] = _twin(child, target)
                owner._modules[key] = twins[child]
                report.replaced.append((name, _kind(child), _kind(twins[child])))
            elif why:
                report.left.append((name, _kind(child), why))
    if type(model) in table:
        report.left.append(("(the model)", _kind(model), "only modules inside it can be replaced"))
    return report


def _kind(module: nn.Module) -> str:
    library = type(module).__module__.partition(".")[0]
    return f"{library}.{'nn.' if library == 'torch' else ''}{type(module).__name__}"


def _obstacle(module: nn.Module, back: bool) -> str:
    """Why a module that looks like one of ours to replace is not replaced, or nothing."""
    if back:
        if isinstance(module, LocalResponseNorm) and module.within_channel:
            return "torch.nn has no LRN within a channel"
        return ""
    if type(module) in _TWINS or type(module) in _BACK:
        return ""
    if isinstance(module, tuple(_TWINS)):
        return "a subclass may do something else"
    return ""


def _twin(module: nn.Module, kind: type[M]) -> M:
    """A module of another class with the same attributes: parameters, hooks and all."""
    twin = kind.__new__(kind)
    twin.__dict__.update(module.__dict__)
    if isinstance(twin, LocalResponseNorm):
        twin.__dict__.setdefault("within_channel", False)
    return twin


def _hooked(module: nn.Module) -> bool:
    """Whether anybody wants to see what goes in or out of this module."""
    return any(
        value
        for name, value in module.__dict__.items()
        if name.endswith("_hooks") and "state_dict" not in name
    )


def _fusible(relu: Any, lrn: Any, pool: Any) -> str | None:
    """None if the three are not the pattern, "" if they can be fused, else why not."""
    if not (
        type(relu) is nn.ReLU
        and type(lrn) in (nn.LocalResponseNorm, LocalResponseNorm)
        and type(pool) in (nn.MaxPool2d, MaxPool2d)
    ):
        return None
    if getattr(lrn, "within_channel", False):
        return "not fused: its LRN is within a channel"
    if pool.return_indices:
        return "not fused: its pooling returns indices"
    if any(_hooked(module) for module in (relu, lrn, pool)):
        return "not fused: a hook looks between ReLU, LRN and pooling"
    return ""


def _fuse(model: nn.Module, report: Swapped) -> None:
    for owner_name, owner in list(model.named_modules()):
        if type(owner) is not nn.Sequential:
            continue
        keys = list(owner._modules)
        for place in range(len(keys) - 2):
            three = [owner._modules[key] for key in keys[place : place + 3]]
            name = f"{owner_name}.{keys[place]}" if owner_name else keys[place]
            why = _fusible(*three)
            if why:
                report.left.append((name, _kind(three[0] or nn.Identity()), why))
            if why != "":
                continue
            relu, lrn, pool = three
            assert isinstance(relu, nn.ReLU)
            assert isinstance(lrn, nn.LocalResponseNorm)
            assert isinstance(pool, nn.MaxPool2d)
            window = (pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode)
            trio = ReLULRNMaxPool2d(lrn.size, lrn.alpha, lrn.beta, lrn.k, *window)
            trio.train(relu.training)
            # In a tuple, so that they are no submodules and add nothing to the state_dict.
            trio.__dict__["fused_from"] = (relu, lrn, pool)
            owner._modules[keys[place]] = trio
            for key in keys[place + 1 : place + 3]:
                owner._modules[key] = Fused().train(relu.training)
            old = " + ".join(_kind(module) for module in (relu, lrn, pool))
            report.replaced.append((name, old, _kind(trio)))


def _split(model: nn.Module, report: Swapped) -> None:
    for owner_name, owner in list(model.named_modules()):
        keys = list(owner._modules)
        for place, key in enumerate(keys):
            trio = owner._modules[key]
            name = f"{owner_name}.{key}" if owner_name else key
            if not isinstance(trio, ReLULRNMaxPool2d):
                continue
            parts = trio.__dict__.get("fused_from")
            if parts is None:
                report.left.append((name, _kind(trio), "swap() did not put it there"))
                continue
            for offset, part in enumerate(parts):
                owner._modules[keys[place + offset]] = part.train(trio.training)
            new = " + ".join(_kind(module) for module in parts)
            report.replaced.append((name, _kind(trio), new))
