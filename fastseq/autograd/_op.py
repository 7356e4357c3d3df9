"""An op with its derivatives: every way into it meets the same questions, in the same order.

Does an argument carry a tangent? Then the op is computed by its formula, whose parts are PyTorch's
own operators and know forward mode. Does one require a gradient? Then the op is a node of the
graph. Else it is the kernel alone.

The questions stand in a kernel of the dispatcher's Autograd key, so that they are asked of a raw
``torch.ops.fastseq`` call, an exported program and a traced function, too. From Python, where
nobody but autograd looks at what is called, the round through the dispatcher is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction
from torch.compiler import is_compiling

_LIBRARY = torch.library.Library("fastseq", "FRAGMENT")
_transforming = torch._C._are_functorch_transforms_active
_tracing = torch._C._get_tracing_state

below_autograd = torch._C._AutoDispatchBelowAutograd


def forward_mode() -> bool:
    """Whether there may be tangents: within ``forward_ad.dual_level`` or ``torch.func.jvp``."""
    return forward_ad._current_level >= 0


def direct(autocast: bool = False) -> bool:
    """Whether nobody but autograd looks at the ops that are called.

    Compilers, export and ``torch.jit.trace`` record them, the transforms of ``torch.func`` and
    forward mode interpret them: they must see the op itself.

    Args:
        autocast: that no dtype is to be changed, either, on any device.
    """
    return not (
        is_compiling()
        or forward_ad._current_level >= 0
        or _transforming()
        or _tracing() is not None
        or (autocast and torch._C._is_any_autocast_enabled())
    )


def wants_graph(tensors: tuple[Any, ...]) -> bool:
    """Whether autograd asks for gradients of one of these tensors, of which some may be None."""
    if torch.is_grad_enabled():
        for t in tensors:
            if t is not None and t.requires_grad:
                return True
    return False


def _has_tangent(tensors: tuple[Any, ...]) -> bool:
    return forward_mode() and any(
        t is not None and forward_ad.unpack_dual(t).tangent is not None for t in tensors
    )


def _refuse_old_onnx() -> None:
    """Say what does instead, where torch.onnx would speak of an unrecognized namespace."""
    if not is_compiling() and _tracing() is not None and torch.onnx.is_in_onnx_export():
        raise RuntimeError(
            "torch.onnx.export(dynamo=False) has no nodes for fastseq's ops. Export with "
            "dynamo=True and custom_translation_table=fastseq.onnx_translation_table(), or put "
            "torch.nn's modules back first: fastseq.swap(model, back=True)."
        )


def as_torch_says(error: RuntimeError) -> None:
    """Raise what torch would, where that is another type: the stable ABI lets this one through."""
    if "CUDA out of memory" in str(error):
        raise torch.OutOfMemoryError(str(error)) from None


class Op:
    """An op of ``torch.ops.fastseq`` with derivatives of every order and mode.

    Args:
        name: of the op, whose tensor arguments come first in its schema.
        function: the ``torch.autograd.Function`` that takes the op's arguments; None where the
            formula serves.
        formula: the op in PyTorch's operators, with the op's arguments and results.
    """

    def __init__(
        self,
        name: str,
        function: type[torch.autograd.Function] | None,
        formula: Callable[..., Any],
    ) -> None:
        self.op = getattr(torch.ops.fastseq, name).default
        self.formula = formula
        self.count = sum("Tensor" in str(a.type) for a in self.op._schema.arguments)
        self.apply: Callable[..., Any] = formula if function is None else _node(function)
        self._one_level = self.apply if function is None else _one_level(function)
        _LIBRARY.impl(name, self._kernel, "Autograd")

    def __call__(self, *args: Any) -> Any:
        """Call the op, by the shortest way."""
        if not direct():
            _refuse_old_onnx()
            return self.op(*args)
        try:
            if wants_graph(args[: self.count]):
                return self.apply(*args)
            with below_autograd():
                return self.op(*args)
        except RuntimeError as error:
            as_torch_says(error)
            raise

    def _kernel(self, *args: Any) -> Any:
        tensors = args[: self.count]
        if _has_tangent(tensors):
            return self.formula(*args)
        if wants_graph(tensors):
            # A transform hands the tensors of its level to this kernel: it is that level's node.
            return self._one_level(*args) if _transforming() else self.apply(*args)
        with below_autograd():
            return self.op(*args)


def _node(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """``function.apply`` where no transform is at work, without what it does for transforms.

    Where there is a ``setup_context``, arguments are bound to the signature of ``forward`` to fill
    in defaults: a third of a training step at tiny sizes.
    """

    def forward(ctx: Any, *args: Any) -> Any:
        made = function.forward(*args)
        function.setup_context(ctx, args, made)
        return made

    methods = {"forward": staticmethod(forward), "backward": vars(function)["backward"]}
    twin: Any = type(function.__name__, (torch.autograd.Function,), methods)
    apply: Callable[..., Any] = twin.apply
    return apply


def _one_level(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """``function.apply`` for the tensors of a single level of ``torch.func``'s transforms."""

    def forward(*args: Any) -> Any:
        # Functions run with both modes off; the levels below this one have modes of their own.
        with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
            return function.forward(*args)

    methods = {key: vars(function)[key] for key in ("setup_context", "backward")}
    methods["forward"] = staticmethod(forward)
    twin: Any = type(function.__name__, (_SingleLevelFunction,), methods)

    def apply(*args: Any) -> Any:
        with enable_single_level_autograd_function():
            return twin.apply(*args)

    return apply


def in_place(name: str) -> None:
    """Let an op that has no derivatives and overwrites its arguments say both to autograd."""
    op = getattr(torch.ops.fastseq, name).default
    arguments = op._schema.arguments
    count = sum("Tensor" in str(a.type) for a in arguments)
    written = [i for i, a in enumerate(arguments) if a.alias_info and a.alias_info.is_write]

    def kernel(*args: Any) -> Any:
        if wants_graph(args[:count]) or _has_tangent(args[:count]):
            raise RuntimeError(
                f"torch.ops.fastseq.{name} overwrites its arguments and has no derivatives, and "
                "one is asked for. Call the module, or this under torch.no_grad()."
            )
        with below_autograd():
            made = op(*args)
        overwritten([args[i] for i in written if args[i] is not None])
        return made

    _LIBRARY.impl(name, kernel, "Autograd")


class Inference:
    """An op that has no derivatives, and says so where one is asked for.

    Args:
        name: of the op, whose tensor arguments come first in its schema.
        instead: what to do, for the error.
    """

    def __init__(self, name: str, instead: str) -> None:
        self.op = getattr(torch.ops.fastseq, name).default
        self.instead = instead
        self.count = sum("Tensor" in str(a.type) for a in self.op._schema.arguments)
        _LIBRARY.impl(name, self._kernel, "Autograd")

    def __call__(self, *args: Any) -> Any:
        """Call the op, by the shortest way."""
        return self._kernel(*args) if direct() else self.op(*args)

    def _kernel(self, *args: Any) -> Any:
        tensors = args[: self.count]
        if wants_graph(tensors) or _has_tangent(tensors):
            raise RuntimeError(
                f"{self.op} has no derivatives, and one is asked for. {self.instead}"
            )
        with below_autograd():
            return self.op(*args)


def overwritten(tensors: list[Tensor]) -> None:
    """Tell autograd that tensors have changed, which only its own operators do by themselves."""
    torch._C._increment_version(tensors)
