"""An op is written on several floors, and its arguments are the same on each, in name and order."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._library.simple_registry import singleton

from fastseq import ops, reference
from fastseq.ops import Extras, Window
from fastseq.ops.persistent import PersistentBackward

RAW = torch.ops.fastseq
NAMES = [
    "layer", "layer_backward", "extended_layer", "extended_layer_backward", "recurrence",
    "recurrence_backward", "recurrence_persistent", "recurrence_persistent_backward", "step",
    "packed_stack", "linear", "local_response_norm", "local_response_norm_backward", "max_pool2d",
    "max_pool2d_backward", "relu_lrn_max_pool2d", "relu_lrn_max_pool2d_backward",
]  # fmt: skip
TOGETHER = {"window": Window._fields, "extras": Extras._fields}  # arguments in one
REST = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def arguments(name: str) -> list[str]:
    return [a.name for a in getattr(RAW, name).default._schema.arguments]


def parameters(call: Callable[..., Any]) -> list[str]:
    """Names, those that stand together taken apart; what a star takes is left out."""
    found: list[str] = []
    for p in inspect.signature(call).parameters.values():
        if p.kind not in REST:
            found += TOGETHER.get(p.name, (p.name,))
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("floor", ["face", "fake", "reference"])
def test_arguments_are_those_of_the_schema(name: str, floor: str) -> None:
    if floor == "fake":
        call: Any = singleton.find(f"fastseq::{name}").fake_impl.kernel.func
    else:
        call = getattr(ops if floor == "face" else reference, name, None)
    if call is None:  # no face, or a formula elsewhere: test_every_floor_is_there counts them
        return
    found = parameters(call)
    assert found == arguments(name)[: len(found)]
    stars = any(p.kind in REST for p in inspect.signature(call).parameters.values())
    assert stars or len(found) == len(arguments(name))


def test_every_floor_is_there() -> None:
    """All ops but those without derivatives; and who has no face or formula of its name."""
    every = {a.split("::")[1].split(".")[0] for a in torch._C._dispatch_get_all_op_names()
             if a.startswith("fastseq::")}  # fmt: skip
    assert every == {*NAMES, "step_", "pack_layer", "empty_cache"}
    loops = {"recurrence_persistent", "recurrence_persistent_backward"}  # twins of others
    assert {n for n in NAMES if not hasattr(ops, n)} == {"extended_layer_backward", *loops}
    assert {n for n in NAMES if not hasattr(reference, n)} == {
        "step", "packed_stack", "linear", *loops,
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_results_have_the_names_of_the_schema(name: str) -> None:
    """Where they are a NamedTuple of ``fastseq.ops``."""
    returns = [r.name for r in getattr(RAW, name).default._schema.returns]
    made: Any = {
        "layer": ops.Forward,
        "recurrence": ops.Forward,
        "recurrence_persistent": ops.Forward,
        "extended_layer": ops.ExtendedForward,
        "layer_backward": ops.LayerBackward,
        "recurrence_backward": ops.Backward,
        "recurrence_persistent_backward": PersistentBackward,
        "extended_layer_backward": ops.ExtendedBackward,
        "max_pool2d": ops.Pooled,
        "relu_lrn_max_pool2d": ops.Pooled,
    }.get(name)
    if made is not None:
        assert list(made._fields) == returns
