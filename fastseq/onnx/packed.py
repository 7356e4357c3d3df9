"""Packed batches in an export: the padded ones that they were made of, and their lengths."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from fastseq.nn import ragged


class packed_as_lengths(TorchFunctionMode):
    """A context in which ``torch.export`` can follow ``pack_padded_sequence``.

    While a model is exported within it, the batches that ``pack_padded_sequence`` makes stay
    padded: fastseq's recurrent modules run them with ``lengths=``, and ``pad_packed_sequence``
    gives their outputs back, as long as the longest row. In ONNX the lengths are the nodes'
    ``sequence_lens``. (With ``enforce_sorted=False`` those of the sorted rows, as torch.nn sorts.)
    Outside of an export nothing changes.

    Two errors of ``pack_padded_sequence`` are not in the exported program: for rows out of order
    with ``enforce_sorted=True``, which are computed, and for lengths below 1.

    Raises:
        NotImplementedError: from the export, where something other than fastseq's modules
            reads a packed batch, such as an operation on its ``data``.

    Example:
        >>> with fastseq.onnx.packed_as_lengths():
        ...     program = torch.onnx.export(
        ...         model,
        ...         (x, n),
        ...         dynamo=True,
        ...         custom_translation_table=fastseq.onnx_translation_table(),
        ...     )
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Replace torch's own packing while a model is being exported."""
        packing = func is torch._VF._pack_padded_sequence  # type: ignore[attr-defined]
        if packing and torch.compiler.is_exporting():
            return ragged.pack(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))
