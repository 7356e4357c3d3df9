"""A packed batch that is still padded: what an export makes of ``pack_padded_sequence``.

How many rows a packed batch has at a step depends on the numbers in ``lengths``, which an export
does not know. So within ``fastseq.onnx.packed_as_lengths`` the two tensors of a PackedSequence are
stand-ins that hold the padded batch and its lengths. fastseq's modules and ``pad_packed_sequence``
take those out again; to everybody else a stand-in is closed, and says so.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Lengths(NamedTuple):
    """What the stand-ins of one packed batch share."""

    rows: Tensor  # (B,) int64: steps of each row
    longest: Any  # an int that only the run will know: the output has so many steps


class StandIn(Tensor):
    """A tensor of a packed batch in name only: no memory, and all but a few questions raise."""

    lengths: Lengths

    @classmethod
    def _of(cls, lengths: Lengths, dtype: torch.dtype, device: torch.device) -> Any:
        made = Tensor._make_wrapper_subclass(cls, (0,), dtype=dtype, device=device)  # type: ignore[attr-defined]
        made.lengths = lengths
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"{type(self).__name__}()"

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch._VF._pad_packed_sequence and not kwargs:  # type: ignore[attr-defined]
            return _padded(*args)
        if func is Tensor.size and isinstance(args[0], BatchSizes) and args[1:] == (0,):
            return args[0].lengths.longest
        if func in _ANSWERED:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args)
        raise refusal(_name(func))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise refusal(f"a call of {func}")


_ANSWERED = (Tensor.device.__get__, Tensor.dtype.__get__, Tensor.is_cuda.__get__)  # type: ignore[attr-defined]


def _name(func: Any) -> str:
    """Of a function, or of the attribute that a getter gets."""
    name: str = getattr(func, "__name__", str(func))
    return f"a use of .{func.__self__.__name__}" if name == "__get__" else f"a call of {name}"


class Data(StandIn):
    """In the place of ``PackedSequence.data``."""

    _padded: Tensor
    _batch_first: bool
    _cleared: bool  # zero beyond the lengths

    @classmethod
    def make(cls, padded: Tensor, batch_first: bool, lengths: Lengths, cleared: bool) -> Data:
        """Stand in for a padded batch, (T, B, .), or (B, T, .) with batch_first."""
        made: Data = cls._of(lengths, padded.dtype, padded.device)
        made._padded, made._batch_first, made._cleared = padded, batch_first, cleared
        return made

    def padded(self, batch_first: bool) -> Tensor:
        """The padded batch, (T, B, .), or (B, T, .) with batch_first."""
        if batch_first == self._batch_first:
            return self._padded
        return self._padded.transpose(0, 1)

    def cleared(self, batch_first: bool, value: float) -> Tensor:
        """The padded batch with a value in what lies beyond the lengths."""
        x, rows = self.padded(batch_first), self.lengths.rows.to(self._padded.device)
        if self._cleared and value == 0.0:
            return x
        time = 1 if batch_first else 0
        step = torch.arange(x.shape[time], device=x.device)
        inside = step < rows.unsqueeze(1) if batch_first else step.unsqueeze(1) < rows
        inside = inside.reshape(*inside.shape, *(1 for _ in x.shape[2:]))
        return torch.where(inside, x, torch.full((), value, dtype=x.dtype, device=x.device))


class BatchSizes(StandIn):
    """In the place of ``PackedSequence.batch_sizes``."""

    @classmethod
    def make(cls, lengths: Lengths) -> BatchSizes:
        """Stand in for the rows of each step."""
        made: BatchSizes = cls._of(lengths, torch.int64, torch.device("cpu"))
        return made


def pack(input: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Data, BatchSizes]:
    """What ``torch._VF._pack_padded_sequence`` is within an export: the stand-ins.

    Args:
        input: (T, B, .), or (B, T, .) with batch_first.
        lengths: (B,) int64.
        batch_first: the order of the input's dimensions.

    Raises:
        RuntimeError: as torch.nn's, for another number of lengths than rows.
    """
    batch, time = (0, 1) if batch_first else (1, 0)
    if lengths.shape != input.shape[batch : batch + 1]:
        raise RuntimeError(
            f"Expected `len(lengths)` to be equal to batch_size, but got {lengths.shape[0]} "
            f"(batch_size={input.shape[batch]})"
        )
    # Copies: what the model writes on its tensors later does not reach a packed batch.
    input, lengths = input.clone(), lengths.clone()
    longest = lengths.max().item()
    torch._check(longest >= 0)
    torch._check(longest <= input.shape[time])
    shared = Lengths(lengths, longest)
    return Data.make(input, batch_first, shared, cleared=False), BatchSizes.make(shared)


def _padded(
    data: Any, batch_sizes: Any, batch_first: bool, value: float, total: Any
) -> tuple[Tensor, Tensor]:
    """``torch._VF._pad_packed_sequence`` of the stand-ins."""
    from torch.fx.experimental.symbolic_shapes import statically_known_true  # imports sympy

    lengths = matched(data, batch_sizes)
    time = 1 if batch_first else 0
    output = data.cleared(batch_first, value)
    if statically_known_true(total == lengths.longest):
        output = output.narrow(time, 0, lengths.longest)
    elif not statically_known_true(total == output.shape[time]):
        raise refusal("pad_packed_sequence with another total_length than the padded input's steps")
    return output, lengths.rows.clone()


def matched(data: Any, batch_sizes: Any) -> Lengths:
    """The lengths of a packed batch, both of whose tensors stand in for the same padded one."""
    if not isinstance(data, Data) or not isinstance(batch_sizes, BatchSizes):
        raise refusal("a PackedSequence with data or batch_sizes from elsewhere")
    if data.lengths is not batch_sizes.lengths:
        raise refusal("a PackedSequence with the data of one batch and the batch_sizes of another")
    return data.lengths


def refusal(what: str) -> NotImplementedError:
    """The error, with the way out, for what has no counterpart on a padded batch."""
    return NotImplementedError(
        f"Between pack_padded_sequence and pad_packed_sequence an export follows fastseq's own "
        f"recurrent modules only, and found {what}. Give the module the padded batch, "
        "module(x, lengths=n): its output is padded, too, and zero beyond the lengths."
    )
