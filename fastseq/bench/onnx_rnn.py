"""A recurrent layer in ONNX Runtime: a graph of one LSTM, GRU or RNN node, with a layer's weights.

Import it only where onnx and onnxruntime are installed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

# The place in torch.nn of each of ONNX's gates: LSTM's i o f c are i f g o there, GRU's z r h are
# r z n.
GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}
OPSET = 14
IR_VERSION = 8


def model_bytes(layer: nn.RNNBase, ragged: bool) -> bytes:
    """A serialised ONNX model of a layer: inputs X (T, B, I) and, if ragged, lengths (B,).

    Args:
        layer: one layer of one direction, with biases, float32; an RNN must be of tanh.
        ragged: whether rows have lengths of their own.
    """
    op = layer.mode.partition("_")[0]
    params = dict(layer.named_parameters())
    gates = torch.cat([_gates(params[f"bias_{name}_l0"], op) for name in ("ih", "hh")])
    weights = {
        "W": _gates(params["weight_ih_l0"], op),
        "R": _gates(params["weight_hh_l0"], op),
        "B": gates,
    }
    inputs = [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["T", "B", layer.input_size])]
    if ragged:
        inputs.append(helper.make_tensor_value_info("lengths", TensorProto.INT32, ["B"]))
    attributes: dict[str, Any] = {"hidden_size": layer.hidden_size}
    if op == "GRU":
        attributes["linear_before_reset"] = 1  # r * (R h + b), as torch.nn has it
    node = helper.make_node(
        op, ["X", "W", "R", "B", *["lengths"] * ragged], ["Y", "Y_h"], **attributes
    )
    graph = helper.make_graph(
        [node],
        op,
        inputs,
        [
            helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["T", 1, "B", layer.hidden_size]),
            helper.make_tensor_value_info("Y_h", TensorProto.FLOAT, [1, "B", layer.hidden_size]),
        ],
        [
            numpy_helper.from_array(value.detach().unsqueeze(0).numpy(), name)
            for name, value in weights.items()
        ],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    return bytes(model.SerializeToString())


def _gates(parameter: Tensor, op: str) -> Tensor:
    """A parameter of torch.nn, (G * H, ...), with its gates in ONNX's order."""
    parts = parameter.detach().chunk(len(GATES[op]))
    return torch.cat([parts[i] for i in GATES[op]])


def inference(
    layer: nn.RNNBase, x: Tensor, lengths: Tensor | None, threads: int
) -> Callable[[], tuple[Tensor, ...]]:
    """A call that runs the layer in ONNX Runtime and returns the outputs, (T, B, H).

    Args:
        layer: as for ``model_bytes``.
        x: (T, B, I), float32, padded if there are lengths.
        lengths: (B,) of a ragged batch.
        threads: of ONNX Runtime's own pool.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # The pool's threads must not spin on while another provider is timed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = ort.InferenceSession(
        model_bytes(layer, lengths is not None), options, providers=["CPUExecutionProvider"]
    )
    # Bound once: a call then neither copies nor converts its inputs.
    binding = session.io_binding()
    binding.bind_cpu_input("X", x.detach().contiguous().numpy())
    if lengths is not None:
        binding.bind_cpu_input("lengths", lengths.numpy().astype(np.int32))
    for name in ("Y", "Y_h"):
        binding.bind_output(name, "cpu")

    def call() -> tuple[Tensor, ...]:
        session.run_with_iobinding(binding)
        y = torch.from_numpy(binding.get_outputs()[0].numpy())
        return (y.squeeze(1),)

    return call
