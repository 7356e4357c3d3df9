"""fastseq's ops in ONNX: native LSTM, GRU, RNN, LRN and MaxPool nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fastseq.onnx.packed import packed_as_lengths

__all__ = ["onnx_translation_table", "packed_as_lengths"]


def onnx_translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What ``torch.onnx.export`` needs to know to export models with fastseq's modules.

    Every op becomes ONNX's own node, so the file runs wherever ONNX does and without fastseq:

    - LSTM, GRU and RNN: one node a layer and direction. A projection, which ONNX has not, is
      folded into the weights: the results are the same, and the recurrent product as large as
      without projection.
    - LRN: an LRN node for an odd size in float32 and the 16-bit types; otherwise, and within a
      channel, elementary nodes. (ONNX's window for an even size is longer to the other side.)
    - Max-pool: MaxPool; the fused trio: Relu, LRN and MaxPool.

    bfloat16 is computed in float32 between two casts. ONNX Runtime's CPU kernels know no recurrence
    in float64.

    Returns:
        A table for the argument ``custom_translation_table`` of ``torch.onnx.export``.

    Raises:
        ImportError: onnxscript is not installed.

    Of what goes beyond torch.nn, ``lengths`` are exported (a row of length 0 gives zero states
    there), and packed batches within ``packed_as_lengths``. Resets and the others have no
    counterpart in ONNX: for them the export fails with the reason.

    Example:
        >>> model = fastseq.LSTM(28, 128).eval()
        >>> program = torch.onnx.export(
        ...     model,
        ...     (torch.randn(5, 2, 28),),
        ...     dynamo=True,
        ...     dynamic_shapes=({0: torch.export.Dim("T"), 1: torch.export.Dim("B")}, None),
        ...     custom_translation_table=fastseq.onnx_translation_table(),
        ... )
        >>> program.save("lstm.onnx")
    """
    try:
        from fastseq.onnx import images, recurrence
    except ImportError as error:
        raise ImportError(
            f"fastseq.onnx_translation_table() needs onnxscript, which could not be imported "
            f"({error}). Run 'pip install fastseq[onnx]', or 'pip install onnx onnxscript'."
        ) from error
    ops = torch.ops.fastseq
    return {
        ops.layer.default: recurrence.layer,
        ops.extended_layer.default: recurrence.extended_layer,
        ops.linear.default: recurrence.linear,
        ops.local_response_norm.default: images.local_response_norm,
        ops.max_pool2d.default: images.max_pool2d,
        ops.relu_lrn_max_pool2d.default: images.relu_lrn_max_pool2d,
    }
