"""``ops.packed_stack``, which refuses to be differentiated."""

from __future__ import annotations

from fastseq.autograd._op import Inference

packed_stack = Inference(
    "packed_stack",
    "Its weights are frozen: call it under torch.no_grad(), or the module that fastseq.freeze was "
    "given.",
)
