"""Which way a recurrent stack takes on a GPU: the routes, the rules, and how to force one.

The routes stand in a table, in the order in which they are tried; a faster one is one more entry in
front. What a route cannot do is a fact of the library behind it. What it does slowly is an
**estimate**, from what others have published and from counting launches: nothing here has been
measured on a GPU yet (``benchmarks/gpu.py`` does).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import torch

from fastseq.ops import Cell, persistent, routes
from fastseq.ops.precision import cudnn_enabled as cudnn_enabled
from fastseq.ops.routes import AUTO, Rule
from fastseq.ops.routes import CUDNN as CUDNN
from fastseq.ops.routes import PERSISTENT as PERSISTENT
from fastseq.ops.routes import STEP as STEP
from fastseq.ops.routes import cuda_rnn as cuda_rnn


class Facts(NamedTuple):
    """What the choice depends on: the call, what is asked of it, and the device.

    Attributes:
        cell: which.
        steps: T.
        batch: B; of a packed batch the rows of the first step.
        input: I.
        hidden: H.
        layers: L.
        directions: D.
        dtype: in which it is computed; that of autocast where it is on.
        projected: whether h is a projection.
        packed: whether the batch is ragged.
        options: whether something is asked for that torch.nn has not.
        observed: whether a compiler, a transform of torch.func, forward mode or a mode of dispatch
            follows the ops.
        deterministic: whether ``torch.use_deterministic_algorithms`` is on.
        cudnn: whether torch has cuDNN and may use it (``torch.backends.cudnn.enabled``).
        tf32: whether float32 may be multiplied as TF32.
        capability: of the device, as in (9, 0).
        room: whether the device holds at once all blocks of the persistent kernel that there is.
    """

    cell: Cell
    steps: int
    batch: int
    input: int
    hidden: int
    layers: int
    directions: int
    dtype: torch.dtype
    projected: bool
    packed: bool
    options: bool
    observed: bool
    deterministic: bool
    cudnn: bool
    tf32: bool
    capability: tuple[int, int]
    room: bool


class Route(NamedTuple):
    """A way to compute a stack.

    Attributes:
        cannot: what it has not; nothing forces it there.
        slow: estimates of where another one is faster.
        chosen: why it is taken where neither holds, in a sentence or none.
    """

    cannot: tuple[Rule, ...]
    slow: tuple[Rule, ...]
    chosen: tuple[str, ...]


class Choice(NamedTuple):
    """A route's name, and why."""

    route: str
    why: str


CUDNN_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_FAST_SMALL = 128  # units up to which cuDNN's small-H kernel, forward, is a good choice
_SMALL = 192  # units up to which torch chooses it for LSTM and GRU
_SMALL_BATCH = 32  # rows from which it is slow in between


def _slow_small_h(f: Facts) -> bool:
    gated = f.cell in (Cell.LSTM, Cell.GRU)
    small = _FAST_SMALL < f.hidden <= _SMALL and f.batch >= _SMALL_BATCH
    persists = not f.packed and not f.projected and f.dtype != torch.float64
    return gated and small and persists


OBSERVED = Rule(
    lambda f: f.observed,
    "a compiler, a transform of torch.func or a mode of torch's follows the ops",
)
ROUTES: Mapping[str, Route] = {
    PERSISTENT: Route(
        cannot=(
            *persistent.CANNOT,
            Rule(lambda f: not (f.steps and f.batch and f.input and f.hidden), "there is no work"),
        ),
        slow=persistent.SLOW,
        chosen=("one launch is faster than one or more a step (an estimate)",),
    ),
    CUDNN: Route(
        cannot=(
            Rule(lambda f: f.options, "torch.nn, and so cuDNN, has not what the call asks for"),
            OBSERVED,
            Rule(lambda f: not f.cudnn, "torch has no cuDNN here, or it is disabled"),
            Rule(lambda f: f.dtype not in CUDNN_DTYPES, "cuDNN has not this dtype"),
            Rule(
                lambda f: f.dtype == torch.bfloat16 and f.capability < (8, 0),
                "cuDNN's bfloat16 needs compute capability 8.0",
            ),
            Rule(lambda f: not (f.steps and f.batch and f.input and f.hidden), "there is no work"),
            Rule(
                lambda f: f.deterministic,
                "deterministic algorithms are asked for, which cuDNN's are not everywhere",
            ),
        ),
        slow=(
            # Published for H100, forward, us a step: (H=160, B=44) 33, (168, 62) 76.
            Rule(_slow_small_h, "cuDNN's kernel for few units is slow at this H and B (estimate)"),
            Rule(lambda f: f.steps == 1, "of a single step there is no loop to make (estimate)"),
        ),
        chosen=("it launches its steps faster than we do ours (an estimate)",),
    ),
    STEP: Route(cannot=(), slow=(), chosen=()),
}


@lru_cache(maxsize=4096)
def plan(facts: Facts, forced: str = AUTO, by: str = "") -> Choice:
    """Choose a route.

    Args:
        facts: of the call.
        forced: a route that is taken wherever it can be; "auto" for the rules.
        by: who forces it, for the reason.
    """
    wanted = ROUTES.get(forced)
    if wanted is not None:
        if (why := _first(wanted.cannot, facts)) is None:
            return Choice(forced, f"{by} asks for it")
        return Choice(STEP, f"{by} asks for {forced}, but {why}")
    reasons: list[str] = []
    for name, route in ROUTES.items():
        why = _first((*route.cannot, *route.slow), facts)
        if why is None:
            return Choice(name, "; ".join([*reasons, *route.chosen]))
        reasons.append(why)
    raise AssertionError("the last route takes everything")


def once(facts: Facts) -> Choice:
    """The choice for what has kernels in one launch, and PyTorch's operators: lengths, resets."""
    forced, by = routes.forced()
    route = ROUTES[PERSISTENT]
    rules = route.cannot if forced == PERSISTENT else (*route.cannot, *route.slow)
    if forced not in (AUTO, PERSISTENT):
        return Choice(STEP, f"{by} asks for {forced}")
    if facts.observed:
        return Choice(STEP, OBSERVED.why)
    if (why := _first(rules, facts)) is not None:
        return Choice(STEP, why)
    return Choice(PERSISTENT, f"{by} asks for it" if forced == PERSISTENT else route.chosen[0])


def _first(rules: tuple[Rule, ...], facts: Facts) -> str | None:
    return next((rule.why for rule in rules if rule.applies(facts)), None)


def chosen(facts: Facts) -> Choice:
    """The route of a call here and now: by ``cuda_rnn``, the environment, or the rules."""
    return plan(facts, *routes.forced())
