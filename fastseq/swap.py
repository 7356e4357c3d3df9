"""Replace torch.nn's modules by fastseq's in a model that exists, and back.

A module stays the object it is and changes its class: whatever refers to it (a second place in the
model, a list, a hook's handle, an optimizer's parameters) goes on to do so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from fastseq import _library
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

_Table = dict[type[nn.Module], type[nn.Module]]
_TWINS: _Table = {
    nn.LSTM: LSTM,
    nn.GRU: GRU,
    nn.RNN: RNN,
    nn.LSTMCell: LSTMCell,
    nn.GRUCell: GRUCell,
    nn.RNNCell: RNNCell,
    nn.LocalResponseNorm: LocalResponseNorm,
    nn.MaxPool2d: MaxPool2d,
}
_BACK: _Table = {ours: native for native, ours in _TWINS.items()}
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


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


def swap(model: nn.Module, back: bool = False, *, fuse: bool = True) -> Swapped:
    """Replace torch.nn's recurrent, LRN and max-pool modules by fastseq's, in place.

    A module stays the same object, in all places that it is used in: its class changes, and nothing
    else. Parameters, parametrizations, buffers, hooks, device, dtype, training mode and
    ``requires_grad`` are untouched, and so are the keys of ``state_dict``.

    In every ``nn.Sequential``, ReLU, LRN and max-pool in a row become one ``ReLULRNMaxPool2d`` and
    two identities, so that positions stay too. What is seen between the three is then the pooled
    result: for a model that takes features out of the middle there is ``fuse=False``.

    Args:
        model: any module.
        back: put torch.nn's modules in the places of fastseq's instead.
        fuse: make ReLU, LRN and max-pool one module.

    Returns:
        What was replaced, and what was left and why.

    Example:
        >>> model = torchvision.models.googlenet(weights=None, init_weights=False)
        >>> print(fastseq.swap(model))
    """
    report = Swapped()
    if back:
        _split(model, report)
    elif fuse:
        _fuse(model, report)
    table = _BACK if back else _TWINS
    seen: dict[nn.Module, tuple[str, str] | None] = {}
    for name, module in _places(model):
        if module not in seen:
            seen[module] = _replace(module, table, name, report)
        kinds = seen[module]
        if kinds is not None:
            report.replaced.append((name, *kinds))
    return report


def _places(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every place in the model and what stands there; shared modules more than once."""
    yield "(the model)", model
    for owner_name, owner in list(model.named_modules()):
        for key, child in list(owner._modules.items()):
            if child is not None:
                yield f"{owner_name}.{key}" if owner_name else key, child


def _replace(
    module: nn.Module, table: _Table, name: str, report: Swapped
) -> tuple[str, str] | None:
    """Change the module's class if it has a twin: what it was and is; or say why it was left."""
    before = _kind(module)
    kind = parametrize.type_before_parametrizations(module)
    target = table.get(kind)
    why = _obstacle(module, kind, table)
    if why:
        report.left.append((name, before, why))
    if why or target is None:
        return None
    if type(module) is not kind:
        # parametrize made a subclass for this one module, with its weights as properties.
        own = {k: v for k, v in vars(type(module)).items() if k not in ("__dict__", "__weakref__")}
        module.__class__ = type(f"Parametrized{target.__name__}", (target,), own)
    else:
        module.__class__ = target
    if target is LocalResponseNorm:
        vars(module)["within_channel"] = False
    elif target is nn.LocalResponseNorm:
        del vars(module)["within_channel"]
    if isinstance(module, (LSTM, GRU, RNN)):
        module._init_flat_weights()  # instead of torch.nn's, which may hold the graph of a call
    elif isinstance(module, nn.RNNBase):
        module.flatten_parameters()  # for cuDNN, as nn.RNNBase does when weights have moved
    return before, _kind(module)


def _kind(module: nn.Module) -> str:
    return _title(parametrize.type_before_parametrizations(module))


def _title(kind: type) -> str:
    library = kind.__module__.partition(".")[0]
    return f"{library}.{'nn.' if library == 'torch' else ''}{kind.__name__}"


def _obstacle(module: nn.Module, kind: type[nn.Module], table: _Table) -> str:
    """Why a module that looks like one to replace is not replaced, or nothing."""
    if kind not in table:
        ours = issubclass(kind, tuple(_BACK))
        for base in table:
            if issubclass(kind, base) and ours == (table is _BACK):
                return f"a subclass of {_title(base)} may do something else"
        return ""
    if isinstance(module, LocalResponseNorm) and module.within_channel:
        return "torch.nn has no LRN within a channel"
    if table is _BACK:
        options = module.beyond() if isinstance(module, (LSTM, GRU, RNN)) else []
        return f"torch.nn has no {', '.join(options)}" if options else ""
    for tensor in module.parameters():
        if tensor.device.type == "cuda" and _library.cuda_status != "loaded":
            return f"its weights are on a GPU, and the CUDA kernels are {_library.cuda_status}"
        if tensor.device.type not in ("cpu", "cuda", "meta"):
            return f"there are no kernels for its device, {tensor.device.type}"
        if tensor.dtype not in _DTYPES:
            return f"there are no kernels for its dtype, {tensor.dtype}"
    return ""


def _hooked(*modules: nn.Module) -> bool:
    """Whether anybody wants to see what goes in or out of one of these modules."""
    return any(
        value
        for module in modules
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
    if _hooked(relu, lrn, pool):
        return "not fused: a hook looks between ReLU, LRN and pooling"
    return ""


def _fuse(model: nn.Module, report: Swapped) -> None:
    for owner_name, owner in list(model.named_modules()):
        if type(owner).forward is not nn.Sequential.forward:
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
            places = keys[place : place + 3]
            stand = [owner._modules[key] for key in places]
            if parts is None:
                report.left.append((name, _kind(trio), "swap() did not put it there"))
                continue
            if [type(module) for module in stand[1:]] != [Fused, Fused]:
                report.left.append((name, _kind(trio), "its two identities were moved"))
                continue
            if _hooked(*(module for module in stand if module is not None)):
                report.left.append((name, _kind(trio), "a hook looks at it"))
                continue
            for key, part in zip(places, parts, strict=True):
                owner._modules[key] = part.train(trio.training)
            new = " + ".join(_kind(module) for module in parts)
            report.replaced.append((name, _kind(trio), new))
