"""Memory that the CPU kernels keep between calls."""

from __future__ import annotations

import torch

from fastseq import _library as _library  # registers the ops


def empty_cache() -> int:
    """Give the memory that the CPU kernels keep between calls back to the system.

    A recurrent layer keeps its scratch, and the activations of backward once they are free, for
    the next call: 256 MB at most, or as many as ``FASTSEQ_KEEP_MB`` says when fastseq is imported
    (0 keeps none). ``torch.cuda.empty_cache`` is the same for CUDA tensors.

    Returns:
        The bytes that were kept.
    """
    freed: int = torch.ops.fastseq.empty_cache()
    return freed
