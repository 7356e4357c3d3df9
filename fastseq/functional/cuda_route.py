"""Which way a recurrent stack takes on a GPU: the routes, the rules, and how to force one.

The routes stand in a table, in the order in which they are tried; a faster one is one more entry in
front. What a route cannot do is a fact of the library behind it. What it does slowly is an
**estimate**, from what others have published and from counting launches: nothing here has been
measured on a GPU yet (``benchmarks/gpu.py`` does).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import NamedTuple

import torch

from fastseq.ops import Cell
from fastseq.ops.precision import cudnn_enabled as cudnn_enabled

CUDNN, STEP, AUTO = "cudnn", "step", "auto"
VARIABLE = "FASTSEQ_CUDA_RNN"


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
        options: whether lengths, resets, layer norm... are asked for, which torch.nn has not.
        observed: whether a compiler, a transform of torch.func, forward mode or a mode of dispatch
            follows the ops.
        deterministic: whether ``torch.use_deterministic_algorithms`` is on.
        cudnn: whether torch has cuDNN and may use it (``torch.backends.cudnn.enabled``).
        capability: of the device, as in (9, 0).
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
    capability: tuple[int, int]


class Rule(NamedTuple):
    """When a route is not taken, and why, in words that follow "because"."""

    applies: Callable[[Facts], bool]
    why: str


class Route(NamedTuple):
    """A way to compute a stack.

    Attributes:
        cannot: what it has not; nothing forces it there.
        slow: estimates of where another one is faster.
        chosen: why it is taken where neither holds.
    """

    cannot: tuple[Rule, ...]
    slow: tuple[Rule, ...]
    chosen: str


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


ROUTES: Mapping[str, Route] = {
    CUDNN: Route(
        cannot=(
            Rule(lambda f: f.options, "torch.nn, and so cuDNN, has not what the call asks for"),
            Rule(
                lambda f: f.observed,
                "a compiler, a transform of torch.func or a mode of torch's follows the ops",
            ),
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
        chosen="it launches its steps faster than we do ours (an estimate)",
    ),
    STEP: Route(cannot=(), slow=(), chosen="no other route is faster"),
}
NAMES = (AUTO, *ROUTES)


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
            return Choice(name, "; ".join(reasons) or route.chosen)
        reasons.append(why)
    raise AssertionError("the last route takes everything")


def _first(rules: tuple[Rule, ...], facts: Facts) -> str | None:
    return next((rule.why for rule in rules if rule.applies(facts)), None)


def _from_environment() -> str:
    name = os.environ.get(VARIABLE) or AUTO
    if name not in NAMES:
        raise ImportError(
            f"{VARIABLE} is {name!r}, and the routes of a recurrence on a GPU are "
            f"{', '.join(NAMES)}. Unset the variable for {AUTO}."
        )
    return name


_environment = _from_environment()
# Of a thread, and of an asynchronous task: what one forces is nothing to the others.
_forced: ContextVar[str | None] = ContextVar("fastseq_cuda_rnn", default=None)


@contextmanager
def cuda_rnn(route: str) -> Iterator[None]:
    """Force the route of ``LSTM``, ``GRU`` and ``RNN`` on a GPU, in this thread; or a decorator.

    The environment variable ``FASTSEQ_CUDA_RNN`` does so for a process. What a route cannot do goes
    by the step kernels all the same, and ``fastseq.explain`` says which and why.

    Args:
        route: "cudnn": torch's own call of cuDNN, all layers and directions at once; "step": our
            kernels, one product and one cell kernel a step; "auto": by the rules, whatever is
            forced around it.

    Raises:
        ValueError: there is no such route.

    Example:
        >>> with fastseq.cuda_rnn("step"):
        ...     y, state = lstm(x)
    """
    if route not in NAMES:
        raise ValueError(f"there is no route {route!r}; there are {', '.join(NAMES)}")
    token = _forced.set(route)
    try:
        yield
    finally:
        _forced.reset(token)


def chosen(facts: Facts) -> Choice:
    """The route of a call here and now: by ``cuda_rnn``, the environment, or the rules."""
    forced = _forced.get()
    if forced is not None:
        return plan(facts, forced, "fastseq.cuda_rnn")
    return plan(facts, _environment, VARIABLE)


@lru_cache(maxsize=64)
def capability(device: torch.device) -> tuple[int, int]:
    """The compute capability of a GPU."""
    return torch.cuda.get_device_capability(device)
