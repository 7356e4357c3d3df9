"""What is done to the arguments of a recurrence before it runs: autocast, and torch's checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastseq.ops import Cell

# torch's own layer and cell, for what the kernels do not take: complex numbers, no units.
NATIVE: dict[Cell, tuple[Callable[..., Any], Callable[..., Any]]] = {
    Cell.LSTM: (torch.lstm, torch.lstm_cell),
    Cell.GRU: (torch.gru, torch.gru_cell),
    Cell.RNN_TANH: (torch.rnn_tanh, torch.rnn_tanh_cell),
    Cell.RNN_RELU: (torch.rnn_relu, torch.rnn_relu_cell),
}


def autocasts(device_type: str) -> bool:
    """Whether autocast is on for this type of device; "meta" has none."""
    # Into torch.amp.is_autocast_available the Dynamo of torch 2.11 cannot look.
    return device_type != "meta" and torch.is_autocast_enabled(device_type)


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """What autocast casts to on this type of device; None where it is off."""
    return torch.get_autocast_dtype(device_type) if autocasts(device_type) else None


def check(input: Tensor, states: Sequence[Tensor], params: Sequence[Tensor]) -> None:
    """What ATen checks before an RNN runs, in its words."""
    device, dtype = input.device, input.dtype
    for t in (*states, *params):
        if t.dtype is not dtype or t.device != device:
            break
    else:
        return
    for name, tensors in (("hidden", states), ("parameter", params)):
        for t in tensors:
            if t.device != device:
                raise RuntimeError(
                    f"Input and {name} tensors are not at the same device, found input tensor at "
                    f"{device} and {name} tensor at {t.device}"
                )
            if t.dtype != dtype:
                raise RuntimeError(
                    f"Input and {name} tensors are not the same dtype, found input tensor with "
                    f"{type_name(dtype)} and {name} tensor with {type_name(t.dtype)}"
                )


def type_name(dtype: torch.dtype) -> str:
    """A dtype as ATen's errors name it."""
    return {
        torch.float32: "Float",
        torch.float64: "Double",
        torch.bfloat16: "BFloat16",
        torch.float16: "Half",
    }.get(dtype, str(dtype))


def prepared(
    input: Tensor,
    states: tuple[Tensor, ...],
    params: Sequence[Tensor],
    dtype: torch.dtype | None,
) -> tuple[Tensor, tuple[Tensor, ...], Sequence[Tensor]]:
    """Autocast to a dtype, if there is one, and checks."""
    if dtype is not None:
        input = autocast(input, dtype)
        states = tuple(autocast(s, dtype) for s in states)
        params = [autocast(p, dtype) for p in params]
    check(input, states, params)
    return input, states, params


def autocast(t: Tensor, dtype: torch.dtype) -> Tensor:
    """What autocast makes of an argument: float64 is for those who asked for it, and stays."""
    return t.to(dtype) if t.is_floating_point() and t.dtype != torch.float64 else t
