"""ONNX export: native nodes, and in ONNX Runtime the numbers of the modules."""

import sys
from collections import Counter
from typing import Any

import pytest
import torch
from image_cases import images
from onnx_cases import Sizes, assert_equal_in_runtime, exported, nodes
from recurrence_cases import numbers, packed, states
from torch import Tensor, nn
from torch.export import Dim
from torch.utils._pytree import tree_leaves

import fastseq
from fastseq import functional

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:# The axis name:UserWarning"),
]


class Recurrent(nn.Module):
    """Every cell, with the options shared out among them."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.dtype = dtype
        self.lstm = fastseq.LSTM(3, 4, 2, bidirectional=True, dtype=dtype)
        self.projected = fastseq.LSTM(3, 5, bidirectional=True, proj_size=2, dtype=dtype)
        self.gru = fastseq.GRU(3, 4, 2, batch_first=True, bidirectional=True, dtype=dtype)
        self.rnn = fastseq.RNN(3, 4, bias=False, dtype=dtype)
        self.relu = fastseq.RNN(3, 4, nonlinearity="relu", bidirectional=True, dtype=dtype)
        self.lstm_cell = fastseq.LSTMCell(3, 4, bias=False, dtype=dtype)
        self.gru_cell = fastseq.GRUCell(3, 4, dtype=dtype)
        self.rnn_cell = fastseq.RNNCell(3, 4, "relu", dtype=dtype)

    def forward(self, x: Tensor, hx: Any, projected: Any) -> list[Tensor]:
        if self.dtype == torch.bfloat16:  # which numpy has not
            outputs = self.run(*torch.utils._pytree.tree_map(Tensor.bfloat16, (x, hx, projected)))
            return [t.float() for t in outputs]
        return self.run(x, hx, projected)

    def run(self, x: Tensor, hx: Any, projected: Any) -> list[Tensor]:
        outputs = [
            self.lstm(x, hx),
            self.projected(x, projected),
            self.gru(x.transpose(0, 1), hx[0]),
            self.rnn(x),
            self.rnn(x[:, 0]),  # unbatched
            self.relu(x, hx[1][:2]),
            self.lstm_cell(x[0], (hx[0][0], hx[1][0])),
            self.gru_cell(x[0], hx[0][0]),
            self.gru_cell(x[0, 0]),
            self.rnn_cell(x[0]),
        ]
        return tree_leaves(outputs)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-6), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)],
    ids=str,
)
def test_recurrent(dtype: torch.dtype, tolerance: float) -> None:
    model = Recurrent(dtype).eval()
    given = torch.float32 if dtype == torch.bfloat16 else dtype

    def arguments(steps: int, batch: int) -> tuple[Any, ...]:
        x = numbers(steps, batch, 3, dtype=given)
        hidden = [states(m, batch) for m in (model.lstm, model.projected)]
        return (x, *torch.utils._pytree.tree_map(lambda t: t.to(given), hidden))

    steps, batch = Dim("T"), Dim("B")
    states_shape = ({1: batch}, {1: batch})
    program = exported(model, arguments(5, 2), ({0: steps, 1: batch}, states_shape, states_shape))
    found = nodes(program)
    assert (found["LSTM"], found["GRU"], found["RNN"]) == (4 + 2 + 1, 4 + 2, 1 + 1 + 2 + 1)
    assert not found.keys() & {"Loop", "Scan", "If"}
    directions = Counter(
        node.attributes["direction"].as_string()
        for node in program.model.graph
        if node.op_type in ("LSTM", "GRU", "RNN")
    )
    assert directions["reverse"] == 2 + 1 + 2 + 1
    sizes = [arguments(*size) for size in ((5, 2), (9, 3), (1, 1))]
    assert_equal_in_runtime(program, model, sizes, tolerance)


def test_weights_are_computed_where_they_are_parametrized() -> None:
    """A product of factors stays one in the graph; without the optimizer, too."""
    model = fastseq.GRU(3, 4)
    nn.utils.parametrizations.weight_norm(model, "weight_hh_l0")
    program = exported(model.eval(), (numbers(5, 2, 3),), None, optimize=False)
    assert nodes(program)["GRU"] == 1
    assert_equal_in_runtime(program, model, [(numbers(5, 2, 3),)], 1e-6)


def test_weights_of_any_size_can_be_folded() -> None:
    optimizer = pytest.importorskip("onnxscript.optimizer")
    program = exported(fastseq.GRU(8, 64).eval(), (numbers(5, 2, 8),), None)
    assert "Gather" in nodes(program)  # large weights are reordered when the file is loaded
    optimizer.fold_constants(program.model, input_size_limit=2**31, output_size_limit=2**31)
    optimizer.optimize(program.model)
    assert "Gather" not in nodes(program)
    weights = [w.shape for w in program.model.graph.initializers.values() if len(w.shape) == 3]
    assert sorted(map(tuple, weights)) == [(1, 192, 8), (1, 192, 64)]


class Images(nn.Module):
    """Normalization and pooling with the options shared out."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.parts = nn.ModuleList(
            [
                fastseq.LocalResponseNorm(5, 0.3, 0.75, 2.0),
                fastseq.LocalResponseNorm(4, 0.3, 0.5),
                fastseq.LocalResponseNorm(3, 0.5, 1.0, within_channel=True),
                fastseq.LocalResponseNorm(2, 0.5, 0.75, within_channel=True),
                fastseq.MaxPool2d(3, 2),
                fastseq.MaxPool2d((3, 2), 2, (1, 0), ceil_mode=True),
                fastseq.MaxPool2d(3, (1, 2), 1, 2, return_indices=True),
                fastseq.ReLULRNMaxPool2d(5, 0.3),
                fastseq.ReLULRNMaxPool2d(2, 0.3, kernel_size=2, stride=2, ceil_mode=True),
            ]
        )
        self.norm = fastseq.LocalResponseNorm(3, 0.3)
        self.pool = fastseq.MaxPool2d(2, return_indices=True)

    def forward(self, x: Tensor) -> list[Tensor]:
        if self.dtype == torch.bfloat16:
            return [t.float() if t.is_floating_point() else t for t in self.run(x.bfloat16())]
        return self.run(x)

    def run(self, x: Tensor) -> list[Tensor]:
        outputs = [part(x) for part in self.parts]
        outputs += [self.norm(x.flatten(2)), self.norm(x.unsqueeze(2)), self.pool(x[0])]
        return tree_leaves(outputs)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        (torch.float32, 2e-6),
        (torch.float64, 1e-12),
        (torch.float16, 2e-3),
        (torch.bfloat16, 1e-2),
    ],
    ids=str,
)
def test_images(dtype: torch.dtype, tolerance: float) -> None:
    model = Images(dtype).eval()
    given = torch.float32 if dtype == torch.bfloat16 else dtype
    height, width = Dim("H", min=6, max=99), Dim("W", min=6, max=99)
    program = exported(
        model, (images(2, 6, 9, 8, dtype=given),), ({0: Dim("N"), 2: height, 3: width},)
    )
    found = nodes(program)
    assert found["MaxPool"] == 3 + 2 + 1
    assert found["LRN"] == (0 if dtype == torch.float64 else 1 + 1 + 2)
    assert found["Relu"] == 1  # of both trios
    sizes = ((2, 6, 9, 8), (1, 6, 6, 7), (3, 6, 10, 13))
    arguments = [(images(*size, dtype=given, seed=i),) for i, size in enumerate(sizes)]
    if dtype == torch.bfloat16:  # of values that rounding made equal, any may be the maximum
        arguments = [(x.bfloat16().float(),) for (x,) in arguments]
    assert_equal_in_runtime(program, model, arguments, tolerance)


def test_unused_offsets_leave_nothing_behind() -> None:
    model = nn.Sequential(fastseq.MaxPool2d(3, 2), fastseq.ReLULRNMaxPool2d()).eval()
    program = exported(model, (images(2, 6, 16, 16),), None)
    assert nodes(program) == {"MaxPool": 2, "Relu": 1, "LRN": 1}
    assert len([v for v in next(iter(program.model.graph)).outputs if v.name]) == 1


class Ragged(nn.Module):
    """Every cell in both directions, with lengths."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            getattr(fastseq, kind)(3, 5, bidirectional=True, **options)
            for kind in ("LSTM", "GRU", "RNN")
        )

    def forward(self, x: Tensor, lengths: Tensor) -> list[Any]:
        return [layer(x, lengths=lengths) for layer in self.layers]


def test_lengths() -> None:
    model = Ragged().eval()
    steps, batch = Dim("T"), Dim("B")
    example = (numbers(6, 4, 3), torch.tensor([3, 6, 1, 5]))
    program = exported(model, example, ({0: steps, 1: batch}, {0: batch}))
    assert {"LSTM", "GRU", "RNN"} <= set(nodes(program))
    sizes: Sizes = [example, (numbers(9, 3, 3), torch.tensor([9, 2, 5]))]
    assert_equal_in_runtime(program, model, sizes, 1e-6)


def test_what_onnx_cannot_say_is_refused() -> None:
    example = (numbers(6, 4, 3), torch.tensor([3, 6, 1, 5]))
    with pytest.raises(torch.onnx.errors.OnnxExporterError) as raised:
        exported(Ragged(layer_norm=True).eval(), example, None)
    causes: BaseException | None = raised.value
    while causes is not None and not isinstance(causes, NotImplementedError):
        causes = causes.__cause__
    assert "asks a recurrent layer for norm_hh" in str(causes)


def test_packed_batches_are_refused() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = fastseq.GRU(3, 4)

        def forward(self, data: Tensor, batch_sizes: Tensor, hx: Tensor) -> Tensor:
            options = (True, 1, 0.0, False, False)
            weights = list(self.gru.parameters())
            return functional.gru(data, hx, weights, *options, batch_sizes=batch_sizes)[0]

    batch = packed([3, 2], 3)
    with pytest.raises(torch.onnx.errors.OnnxExporterError) as caught:
        exported(Packed().eval(), (batch.data, batch.batch_sizes, numbers(1, 2, 4)), None)
    error: BaseException | None = caught.value
    while error is not None and not isinstance(error, NotImplementedError):
        error = error.__cause__
    assert "ONNX has no packed batches" in str(error)


def test_without_onnxscript(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_common", "images", "recurrence"):
        monkeypatch.delitem(sys.modules, f"fastseq.onnx.{name}", raising=False)
        monkeypatch.delattr(fastseq.onnx, name, raising=False)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"needs onnxscript.*pip install fastseq\[onnx\]"):
        fastseq.onnx_translation_table()
