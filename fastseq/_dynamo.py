"""Let ``torch.compile`` see fastseq's recurrent modules as what they are: a few ops.

Dynamo refuses every instance of ``nn.LSTM``, ``nn.GRU`` and ``nn.RNN`` while its setting
``allow_rnn`` is off, since it would unroll theirs over time. fastseq's are instances, too, and are
one op a layer. So for them alone, and only while Dynamo looks at such a module, the setting is on;
torch.nn's own modules meet it as the user left it.

The method wrapped here is private to Dynamo. Where it is missing nothing is done, and Dynamo says
in its own words that the setting is to be turned on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from torch import nn

from fastseq._imports import once_imported


def allow(kinds: tuple[type[nn.Module], ...]) -> None:
    """Let Dynamo take instances of these."""
    once_imported("torch._dynamo.variables.builder", functools.partial(_allow_in, kinds=kinds))


def _allow_in(builder: ModuleType, kinds: tuple[type[nn.Module], ...]) -> None:
    kind, config = getattr(builder, "VariableBuilder", None), getattr(builder, "config", None)
    if not hasattr(kind, "wrap_module") or not hasattr(config, "allow_rnn"):
        return
    wrap: Callable[..., Any] = kind.wrap_module  # type: ignore[union-attr]

    @functools.wraps(wrap)
    def wrap_module(self: Any, value: nn.Module) -> Any:
        if not isinstance(value, kinds) or config.allow_rnn:  # type: ignore[union-attr]
            return wrap(self, value)
        with config.patch(allow_rnn=True):  # type: ignore[union-attr]
            return wrap(self, value)

    kind.wrap_module = wrap_module  # type: ignore[union-attr]
