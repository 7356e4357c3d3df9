"""Lengths and resets, and what comes of them by the reference implementation in float64."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastseq import reference
from fastseq.ops import Cell, Extras

Tensors = dict[str, Tensor | None]


class Masked(NamedTuple):
    """As ``fastseq.ops.persistent.Masks``."""

    lengths: Tensor | None
    reset: Tensor | None
    reset_h: Tensor | None
    reset_c: Tensor | None

    def within(self, rows: Tensor) -> Tensor:
        """The rows (T, B, n) that lie within the lengths, one after the other."""
        if self.lengths is None:
            return rows.flatten(0, 1)
        return rows[torch.arange(len(rows)).unsqueeze(-1) < self.lengths]

    def doubled(self) -> Masked:
        return self._replace(
            **{n: t.double() for n in self._fields[2:] if (t := getattr(self, n)) is not None}
        )


def draw_masks(
    steps: int,
    batch: int,
    hidden: int,
    cell: Cell,
    dtype: torch.dtype,
    kinds: str = "LRS",
    seed: int = 0,
) -> Masked:
    """Lengths, resets and what replaces the states, for each letter of ``kinds``.

    Rows are of all lengths in no order, some without a step, and the first of eight is not the
    longest; of the first rows one has marks at the first step alone, one at the last, one at every
    step, and one beyond its length. What replaces the states has a seed of its own: the other
    direction of a layer has other states.
    """
    generator = torch.Generator().manual_seed(steps)
    lengths = torch.tensor([1, steps, steps, 2, 0, steps, steps - 1, 0, 1, 2, 3] * batch)[:batch]
    reset = torch.rand(steps, batch, generator=generator) < 0.3
    reset[:, :4] = False
    reset[0, 0] = True
    reset[-1, 1:2] = True
    reset[:, 2:3] = True
    reset[2 % steps, 3:4] = True
    if seed:
        generator.manual_seed(seed)
    by = [torch.randn(batch, hidden, generator=generator).to(dtype) for _ in range(2)]
    return Masked(
        lengths.clamp(max=steps) if "L" in kinds else None,
        reset if "R" in kinds else None,
        by[0] if "S" in kinds else None,
        by[1] if "S" in kinds and cell == Cell.LSTM else None,
    )


def _layer(inputs: Tensors, masks: Masked, cell: Cell, reverse: bool) -> Any:
    pre, h0, c0, weight, bias_hn = (
        inputs.get(name) for name in ("pre", "h0", "c0", "weight_hh", "bias_hn")
    )
    layer: Any = (pre, h0, c0, None, weight, None, bias_hn, None, None, Extras(*masks))
    return reference.extended_layer(*layer, int(cell), reverse)


def masked_forward(inputs: Tensors, masks: Masked, cell: Cell, reverse: bool) -> Tensors:
    """y, h_n, c_n, gates and cells, of what the loop takes in float64."""
    return dict(_layer(inputs, masks.doubled(), cell, reverse)._asdict())


def masked_backward(inputs: Tensors, masks: Masked, cell: Cell, reverse: bool) -> Tensors:
    """Gradients of the loop's inputs, which are there beside those of its results."""
    masks = masks.doubled()
    leaves = {n: inputs[n] for n in ("pre", "h0", "c0") if inputs.get(n) is not None}
    leaves |= {n: t for n in masks._fields[2:] if (t := getattr(masks, n)) is not None}
    fresh = {n: t.detach().requires_grad_() for n, t in leaves.items() if t is not None}
    by = {n: t for n, t in fresh.items() if n.startswith("reset")}
    made = _layer({**inputs, **fresh}, masks._replace(**by), cell, reverse)
    asked = [(getattr(made, n), inputs.get(f"grad_{n}")) for n in ("y", "h_n", "c_n")]
    outputs, grads = zip(*[(o, g) for o, g in asked if g is not None], strict=True)
    pulled = torch.autograd.grad(outputs, list(fresh.values()), grads, allow_unused=True)
    found: Tensors = {
        f"grad_{n}": torch.zeros_like(t) if g is None else g
        for (n, t), g in zip(fresh.items(), pulled, strict=True)
    }
    if cell == Cell.GRU:  # of q = W_hn h' + b_hn, by the gate r that scales it
        pre, hidden = found["grad_pre"], made.y.shape[-1]
        assert pre is not None
        found["grad_aux"] = pre[..., 2 * hidden :] * made.gates[..., :hidden].detach()
    return found
