"""Random extended layers: the arguments of ``autograd.ExtendedLayer``, in any combination."""

from typing import Any

import torch
from recurrence_cases import numbers, whole_layer
from torch import Tensor

from fastseq.ops import Cell, Extras

FEATURES = ["lengths", "reset", "reset_state", "drop", "zone", "norm", "project", "packed"]


def bits(*shape: int, seed: int, p: float, dtype: torch.dtype) -> Tensor:
    """Independent ones, of probability p, and zeros."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator) < p).to(dtype)


def extended(
    cell: Cell,
    features: str,
    *,
    steps: int = 6,
    batch: int = 5,
    hidden: int = 7,
    width: int = 3,
    reverse: bool = False,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> list[Any]:
    """The arguments of ``ExtendedLayer``, with whatever ``features`` names."""
    on = set(features.split())
    sizes = [batch, batch, batch - 1, 2, 2, 1][:steps] if "packed" in on else None
    project = 4 if "project" in on and cell == Cell.LSTM else None
    made = whole_layer(
        cell, width=width, steps=steps, batch=batch, hidden=hidden, project=project, sizes=sizes,
        dtype=dtype,
    )  # fmt: skip
    x, h0, c0 = made["x"], made["h0"], made["c0"]
    rows, state, lstm = x.shape[:-1], h0.shape[1], cell == Cell.LSTM
    width = cell.gates * hidden

    def number(*shape: int, seed: int) -> Tensor:
        return numbers(*shape, seed=seed, dtype=dtype)

    lengths = torch.tensor([steps, 0, steps // 2, 1, steps] * batch)[:batch]
    norm = "norm" in on
    bias_ih, bias_hh, weight_ih = made["bias_ih"], made["bias_hh"], made["weight_ih"]
    if norm:
        x = number(*rows, width, seed=30 + seed)
        weight_ih = bias_ih = None
        bias_hh = number(hidden, seed=31) if cell == Cell.GRU else None
    extras = Extras(
        lengths if "lengths" in on else None,
        bits(steps, batch, seed=40 + seed, p=0.4, dtype=torch.bool) if "reset" in on else None,
        number(batch, state, seed=41) if "reset_state" in on else None,
        number(batch, hidden, seed=42) if "reset_state" in on and lstm else None,
        2 * bits(batch, state, seed=43, p=0.5, dtype=dtype) if "drop" in on else None,
        bits(*rows, state, seed=44, p=0.3, dtype=dtype) if "zone" in on else None,
        bits(*rows, hidden, seed=45, p=0.3, dtype=dtype) if "zone" in on and lstm else None,
        1 + 0.3 * number(width, seed=46) if norm else None,
        1 + 0.3 * number(hidden, seed=47) if norm and lstm else None,
        0.3 * number(hidden, seed=48) if norm and lstm else None,
    )
    tensors = [x, h0, c0, weight_ih, made["weight_hh"], bias_ih, bias_hh, made["weight_hr"]]
    return [*tensors, made["batch_sizes"], *extras, int(cell), reverse]
