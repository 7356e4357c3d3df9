"""Which module takes the place of which, when it may, and how it changes its class."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.jit import ScriptModule
from torch.nn.utils import parametrize

from fastseq import _library
from fastseq._fx import mark
from fastseq.nn import (
    GRU,
    LSTM,
    RNN,
    GRUCell,
    LocalResponseNorm,
    LSTMCell,
    MaxPool2d,
    RNNCell,
)
from fastseq.swap import subclasses
from fastseq.swap.report import title

Table = dict[type[nn.Module], type[nn.Module]]
TWINS: Table = {
    nn.LSTM: LSTM,
    nn.GRU: GRU,
    nn.RNN: RNN,
    nn.LSTMCell: LSTMCell,
    nn.GRUCell: GRUCell,
    nn.RNNCell: RNNCell,
    nn.LocalResponseNorm: LocalResponseNorm,
    nn.MaxPool2d: MaxPool2d,
}
BACK: Table = {ours: native for native, ours in TWINS.items()}
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def target_of(
    module: nn.Module, back: bool, with_subclasses: bool
) -> tuple[type[nn.Module] | None, str]:
    """The class that a module should have; None if it has no twin or, for a reason, keeps its own.

    Returns:
        The class or None, and the reason or nothing.
    """
    if isinstance(module, ScriptModule):
        return None, _compiled(module)
    kind = parametrize.type_before_parametrizations(module)
    target: type[nn.Module] | None = (BACK if back else TWINS).get(kind)
    if back and target is None:
        target = vars(kind).get("swapped_from")
    if target is None:
        target, why = _of_a_subclass(kind, back, with_subclasses)
        if why or target is None:
            return None, why
    why = _obstacle(module, back)
    return (None, why) if why else (target, "")


def _of_a_subclass(
    kind: type[nn.Module], back: bool, with_subclasses: bool
) -> tuple[type[nn.Module] | None, str]:
    ours = issubclass(kind, tuple(BACK))
    for base, twin in (BACK if back else TWINS).items():
        if not issubclass(kind, base) or ours != back:
            continue
        if back or not with_subclasses:
            hint = "" if back else "; subclasses=True takes it"
            return None, f"a subclass of {title(base)} may do something else{hint}"
        why = subclasses.obstacle(kind, base)
        return (None, why) if why else (subclasses.made_of(kind, base, twin), "")
    return None, ""


def _compiled(module: ScriptModule) -> str:
    """Why what torch.jit compiled is left, if anything in it would be replaced."""
    names = {kind.__name__ for kind in TWINS}
    inside = [getattr(part, "original_name", "") for part in module.modules()]
    found = [name for name in inside if name in names]
    return f"torch.jit has compiled it, with {found[0]} in it; swap before that" if found else ""


def _obstacle(module: nn.Module, back: bool) -> str:
    """Why a module that looks like one to replace is not replaced, or nothing."""
    if isinstance(module, LocalResponseNorm) and module.within_channel:
        return "torch.nn has no LRN within a channel"
    if back:
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


def become(module: nn.Module, target: type[nn.Module]) -> None:
    """Change the module's class and nothing else."""
    kind = parametrize.type_before_parametrizations(module)
    if type(module) is not kind:
        # parametrize made a subclass for this one module, with its weights as properties.
        own = {k: v for k, v in vars(type(module)).items() if k not in ("__dict__", "__weakref__")}
        make: Any = type(target)
        module.__class__ = make(f"Parametrized{target.__name__}", (target,), own)
    else:
        module.__class__ = target
    mark(module, target in BACK)
    if issubclass(target, LocalResponseNorm):
        vars(module)["within_channel"] = False
    elif isinstance(module, nn.LocalResponseNorm):
        vars(module).pop("within_channel", None)
    if isinstance(module, (LSTM, GRU, RNN)):
        module._init_flat_weights()  # instead of torch.nn's, which may hold the graph of a call
    elif isinstance(module, nn.RNNBase):
        module.flatten_parameters()  # for cuDNN, as nn.RNNBase does when weights have moved
