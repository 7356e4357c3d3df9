"""What the tests of ONNX export share: the export, and ONNX Runtime against the module."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

import fastseq

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
Sizes = list[tuple[Any, ...]]


def exported(model: nn.Module, args: tuple[Any, ...], shapes: Any, optimize: bool = True) -> Any:
    return torch.onnx.export(
        model,
        args,
        dynamo=True,
        dynamic_shapes=shapes,
        optimize=optimize,
        verbose=False,
        custom_translation_table=fastseq.onnx_translation_table(),
    )


def nodes(program: Any) -> Counter[str]:
    return Counter(node.op_type for node in program.model.graph)


def assert_equal_in_runtime(
    program: Any, model: nn.Module, arguments: Sizes, tolerance: float
) -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_inputs()]
    for args in arguments:
        values = [t.numpy() for t in tree_leaves(args)]
        got = session.run(None, dict(zip(names, values, strict=True)))
        expected = tree_leaves(model(*args))
        assert len(got) == len(expected) > 0
        for i, (a, b) in enumerate(zip(got, expected, strict=True)):
            torch.testing.assert_close(
                torch.from_numpy(a),
                b.detach(),
                rtol=tolerance,
                atol=tolerance,
                msg=lambda text, i=i: f"output {i}: {text}",
            )
