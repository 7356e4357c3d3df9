"""The routes of a recurrence on a GPU by name, and which of them is forced, here and now.

The rules are above (``fastseq.functional.cuda_route``) and beside (``fastseq.ops.persistent``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Any, NamedTuple

PERSISTENT, CUDNN, STEP, AUTO = "persistent", "cudnn", "step", "auto"
NAMES = (AUTO, PERSISTENT, CUDNN, STEP)
VARIABLE = "FASTSEQ_CUDA_RNN"


class Rule(NamedTuple):
    """When a route is not taken, and why, in words that follow "because"."""

    applies: Callable[[Any], bool]
    why: str


def from_environment() -> str:
    """The route that ``FASTSEQ_CUDA_RNN`` names.

    Raises:
        ImportError: there is no such route.
    """
    name = os.environ.get(VARIABLE) or AUTO
    if name not in NAMES:
        raise ImportError(
            f"{VARIABLE} is {name!r}, and the routes of a recurrence on a GPU are "
            f"{', '.join(NAMES)}. Unset the variable for {AUTO}."
        )
    return name


environment = from_environment()
# Of a thread, and of an asynchronous task: what one forces is nothing to the others.
_forced: ContextVar[str | None] = ContextVar("fastseq_cuda_rnn", default=None)


def current() -> str | None:
    """What this thread forces; None where it leaves that to the environment."""
    return _forced.get()


def forced() -> tuple[str, str]:
    """The forced route, and who forces it."""
    route = _forced.get()
    return (environment, VARIABLE) if route is None else (route, "fastseq.cuda_rnn")


def resume(route: str | None) -> Token[str | None] | None:
    """Force what was forced when a call was made, for its backward, which may be another thread's.

    Returns:
        What ``leave`` takes; None where nothing is to be undone.
    """
    return None if _forced.get() == route else _forced.set(route)


def leave(token: Token[str | None] | None) -> None:
    """Undo ``resume``."""
    if token is not None:
        _forced.reset(token)


@contextmanager
def cuda_rnn(route: str) -> Iterator[None]:
    """Force the route of ``LSTM``, ``GRU`` and ``RNN`` on a GPU, in this thread; or a decorator.

    The environment variable ``FASTSEQ_CUDA_RNN`` does so for a process. What a route cannot do goes
    by the step kernels all the same, and ``fastseq.explain`` says which and why. The backward of a
    call goes its way, wherever it is called.

    Args:
        route: "persistent": our kernels, all steps of a layer in one launch, which no rule chooses
            before a GPU has run them; "cudnn": torch's own
            call of cuDNN, all layers and directions at once; "step": our kernels, one product and
            one cell kernel a step; "auto": by the rules, whatever is forced around it.

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
