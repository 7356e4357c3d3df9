"""One model before and after ``fastseq.swap``: what the tests of other people's code share."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from recurrence_cases import leaves
from torch import nn

import fastseq
from fastseq.swap.twins import BACK

OURS = tuple(BACK)


def holding(**parts: nn.Module) -> nn.ModuleDict:
    """A model of these parts, with weights from a seed."""
    torch.manual_seed(0)
    for part in parts.values():
        for child in part.modules():
            if hasattr(child, "reset_parameters"):
                child.reset_parameters()
    return nn.ModuleDict(parts)


def swapped_copy(model: nn.Module, **options: Any) -> nn.Module:
    """A copy of the model after swap, in which at least one module is ours."""
    twin = fastseq.swap(copy.deepcopy(model), **options)
    assert any(isinstance(part, OURS) for part in twin.modules())
    return twin


def results(model: nn.Module, run: Callable[[Any], Any]) -> dict[str, Any]:
    """What ``run`` gives, and every parameter's gradient after one backward through all of it."""
    torch.manual_seed(3)
    outputs = leaves(run(model))
    losses = [(out * out).sum() for out in outputs if out.requires_grad]
    if losses:
        torch.stack(losses).sum().backward()
    found: dict[str, Any] = {f"output {i}": out.detach() for i, out in enumerate(outputs)}
    return found | {f"d {name}": p.grad for name, p in model.named_parameters()}


def assert_same_after_swap(
    model: nn.Module, run: Callable[[Any], Any], grads: bool = True, **options: Any
) -> nn.Module:
    """Run the model and its swapped copy; equal outputs and gradients. Returns the copy."""
    twin = swapped_copy(model, **options)
    expected, got = results(model, run), results(twin, run)
    assert sum(name.startswith("output") for name in expected)
    if grads:
        assert any(value is not None for name, value in expected.items() if name[0] == "d")
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    return twin
