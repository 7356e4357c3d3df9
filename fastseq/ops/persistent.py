"""Which time loops on a GPU run in one launch, and the ops that do so.

``csrc/kernels/cuda/persistent.h`` says what there are kernels for. That they are faster than a
launch or two a step is an **estimate**: it stands beside each kernel, and no GPU has measured it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from fastseq import _native
from fastseq.ops._common import fake
from fastseq.ops.precision import tf32
from fastseq.ops.recurrence import Cell, _recurrence_backward_fake, _recurrence_fake
from fastseq.ops.routes import AUTO, PERSISTENT, Rule, forced

DEVICES = {"cuda"}
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
TILE = 8  # rows of a batch that go together
# A tile a block: beyond so many, blocks take turns on every GPU that there is, and the steps of
# others, which are large products then, no longer cost much beside their work.
MANY_ROWS = 2048
# A wrong number, or a launch that never ends, in somebody's training would be worse than a slower
# route: no rule chooses these kernels before a GPU has run them. True as soon as
# ``benchmarks/gpu.py``, its tests and timings of this route included, has passed on one and its
# rows are committed.
SEEN_ON_A_GPU = False


def kernel(cell: Cell, dtype: torch.dtype, hidden: int) -> str:
    """The name of the kernel for layers of such a cell, dtype and size; "" where there is none."""
    return _native.persistent_kernel(cell, dtype.itemsize, hidden) if dtype in DTYPES else ""


@lru_cache(maxsize=64)
def capability(device: torch.device) -> tuple[int, int]:
    """The compute capability of a GPU."""
    return torch.cuda.get_device_capability(device)


@lru_cache(maxsize=1024)
def _room(
    device: torch.device, cell: Cell, itemsize: int, hidden: int, tiles: int, directions: int
) -> bool:
    with torch.cuda.device(device):
        return _native.persistent_room(cell, itemsize, hidden, tiles * TILE, directions)


def room(
    device: torch.device,
    cell: Cell,
    dtype: torch.dtype,
    hidden: int,
    batch: int,
    directions: int = 1,
) -> bool:
    """Whether the device holds at once, forward and backward, all blocks that wait for each other.

    Those of the mailbox do, in each of the ``directions`` of a launch. Where there is no such
    kernel for a layer, no room is wanted.
    """
    if not batch or capability(device) < (8, 0) or kernel(cell, dtype, hidden) != "mailbox":
        return True
    return _room(device, cell, dtype.itemsize, hidden, -(-batch // TILE), directions)


# Of a ``Loop``, and of the planner's ``Facts``, which name these the same.
CANNOT = (
    Rule(lambda f: f.projected, "there is no persistent kernel with a projection"),
    Rule(lambda f: f.dtype not in DTYPES, "there is no persistent kernel of this dtype"),
    Rule(
        lambda f: f.dtype == torch.float32 and not f.tf32,
        "the persistent kernels multiply float32 as TF32, which is off",
    ),
    Rule(
        lambda f: f.capability < (8, 0),
        "the persistent kernels need compute capability 8.0",
    ),
    Rule(
        lambda f: f.dtype in DTYPES and not kernel(f.cell, f.dtype, f.hidden),
        "no persistent kernel has registers for so many units",
    ),
    Rule(lambda f: not f.room, "the device has no room for the kernel's blocks at once"),
)
UNSEEN = Rule(
    lambda f: not SEEN_ON_A_GPU,
    "no GPU has run the persistent kernels yet: FASTSEQ_CUDA_RNN=persistent asks for them",
)
SLOW = (
    UNSEEN,
    Rule(
        lambda f: f.batch > MANY_ROWS,
        "of so many rows the persistent kernel's blocks take turns (estimate)",
    ),
)


def part(t: Tensor | None, direction: int) -> Tensor | None:
    """A direction's, of a tensor of both, (2, ...); empty ones are of no direction."""
    return t if t is None or t.dim() == 1 else t[direction]


def both(one: Tensor, two: Tensor) -> Tensor:
    """A tensor of both directions, (2, ...); of empty ones an empty one."""
    return torch.stack([one, two]) if one.dim() > 1 else one


class Masks(NamedTuple):
    """What the loops take beside a padded batch; ``None``: they do not."""

    lengths: Tensor | None = None  # (B,) int64, on the device: steps of each row
    reset: Tensor | None = None  # (T, B) bool: the state is replaced before this step ...
    reset_h: Tensor | None = None  # (B, H) ... by this, or by zeros
    reset_c: Tensor | None = None  # (B, H); LSTM

    def of(self, direction: int) -> Masks:
        """Those of a direction, of ``reset_h`` and ``reset_c`` that are of both: (2, B, H)."""
        return Masks(self.lengths, self.reset, *(part(t, direction) for t in self[2:]))


PLAIN = Masks()


class PersistentBackward(NamedTuple):
    """What ``recurrence_persistent_backward`` returns: ``Backward``, and what resets add."""

    grad_pre: Tensor  # (..., G*H)
    grad_aux: Tensor  # GRU: (..., H) of q = W_hn h + b_hn, or empty
    grad_h0: Tensor  # (B, H)
    grad_c0: Tensor  # (B, H), empty but for LSTM
    grad_reset_h: Tensor  # (B, H), empty unless there is a reset_h to a reset
    grad_reset_c: Tensor  # (B, H), likewise


class Loop(NamedTuple):
    """What the choice depends on."""

    cell: Cell
    dtype: torch.dtype
    batch: int
    hidden: int
    projected: bool
    tf32: bool
    capability: tuple[int, int]
    room: bool


@lru_cache(maxsize=4096)
def _taken(loop: Loop, route: str) -> bool:
    if route not in (AUTO, PERSISTENT):
        return False
    rules = CANNOT if route == PERSISTENT else (*CANNOT, *SLOW)
    return not any(rule.applies(loop) for rule in rules)


def considered() -> bool:
    """Whether these kernels can be chosen at all, by what is forced or else by the rules."""
    route = forced()[0]
    return route == PERSISTENT or (route == AUTO and SEEN_ON_A_GPU)


def taken(
    cell: Cell,
    x: Tensor,
    h0: Tensor,
    weight_hh: Tensor,
    weight_hr: Tensor | None,
    directions: int = 1,
) -> bool:
    """Whether the time loop of a layer runs in one launch, by the rules and by what is forced.

    Args:
        cell: which.
        x: the layer's input, (T, B, I) or packed rows (N, I).
        h0: (B, R), or that of each direction, (2, B, R).
        weight_hh: (G*H, R), of one direction.
        weight_hr: of a projection.
        directions: 2: whether both run in one launch.
    """
    if x.device.type not in DEVICES or not considered():
        return False
    batch, hidden = h0.shape[-2], weight_hh.shape[0] // cell.gates
    loop = Loop(
        cell,
        x.dtype,
        batch,
        hidden,
        weight_hr is not None,
        tf32(single=x.dim() == 3 and x.shape[0] == 1),
        capability(x.device),
        room(x.device, cell, x.dtype, hidden, batch, directions),
    )
    return x.numel() > 0 and _taken(loop, forced()[0])


@fake("recurrence_persistent")
def _fake(
    pre: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    weight_hh: Tensor,
    bias_hn: Tensor | None,
    weight_hr: Tensor | None,
    batch_sizes: Tensor | None,
    lengths: Tensor | None,
    reset: Tensor | None,
    reset_h: Tensor | None,
    reset_c: Tensor | None,
    cell: int,
    reverse: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    made: tuple[Tensor, Tensor, Tensor, Tensor, Tensor] = _recurrence_fake(
        pre, h0, c0, weight_hh, bias_hn, weight_hr, batch_sizes, cell, reverse, save
    )
    return made


@fake("recurrence_persistent_backward")
def _backward_fake(
    grad_y: Tensor | None,
    grad_h_n: Tensor | None,
    grad_c_n: Tensor | None,
    grad_gates: Tensor | None,
    grad_cells: Tensor | None,
    y: Tensor,
    gates: Tensor,
    cells: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    weight_hh: Tensor,
    weight_hr: Tensor | None,
    batch_sizes: Tensor | None,
    lengths: Tensor | None,
    reset: Tensor | None,
    reset_h: Tensor | None,
    reset_c: Tensor | None,
    cell: int,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    def like(t: Tensor | None) -> Tensor:
        return y.new_empty([0] if t is None or reset is None else t.shape)

    return (
        *_recurrence_backward_fake(
            grad_y, grad_h_n, grad_c_n, grad_gates, grad_cells, y, gates, cells, h0, c0,
            weight_hh, weight_hr, batch_sizes, cell, reverse,
        ),
        like(reset_h),
        like(reset_c),
    )  # fmt: skip
