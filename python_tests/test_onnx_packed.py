"""``pack_padded_sequence`` around fastseq's modules, exported: lengths of the padded batch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from onnx_cases import Sizes, assert_equal_in_runtime, exported, nodes
from recurrence_cases import numbers
from torch import Tensor, nn
from torch.export import Dim
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import fastseq
from fastseq.onnx import packed_as_lengths

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:# The axis name:UserWarning"),
]
UNSORTED = torch.tensor([3, 5, 5, 1])  # of six steps: the output is shorter than the input
STEPS, BATCH = Dim("T"), Dim("B")
SHAPES = ({0: STEPS, 1: BATCH}, {0: BATCH})


class Packed(nn.Module):
    """Every cell between packing and padding, in the dimensions' order of choice."""

    def __init__(self, batch_first: bool, enforce_sorted: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = fastseq.LSTM(3, 4, 2, bidirectional=True, batch_first=True)
        self.gru = fastseq.GRU(8, 4)
        self.rnn = fastseq.RNN(4, 5, bidirectional=True)
        self.packing = {"batch_first": batch_first, "enforce_sorted": enforce_sorted}

    def forward(self, x: Tensor, n: Tensor, h0: Tensor) -> list[Any]:
        batch = pack_padded_sequence(x, n, **self.packing)
        batch, (h, c) = self.lstm(batch)
        batch, g = self.gru(batch, h0)
        y, lengths = pad_packed_sequence(batch, self.packing["batch_first"])
        z, r = self.rnn(batch)
        return [y, lengths, h, c, g, pad_packed_sequence(z, True, padding_value=-2.0)[0], r]


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("enforce_sorted", [False, True])
def test_lengths_are_those_of_the_packed_batch(batch_first: bool, enforce_sorted: bool) -> None:
    model = Packed(batch_first, enforce_sorted).eval()

    def arguments(steps: int, lengths: list[int]) -> tuple[Tensor, ...]:
        lengths = sorted(lengths, reverse=True) if enforce_sorted else lengths
        x, h0 = numbers(steps, len(lengths), 3), numbers(1, len(lengths), 4)
        return x.transpose(0, 1) if batch_first else x, torch.tensor(lengths), h0

    example = arguments(6, [3, 5, 5, 1])
    shapes = ({int(batch_first): STEPS, 1 - batch_first: BATCH}, {0: BATCH}, {1: BATCH})
    with packed_as_lengths():
        program = exported(model, example, shapes)
    found = nodes(program)
    assert (found["LSTM"], found["GRU"], found["RNN"]) == (4, 1, 2)
    assert not found.keys() & {"Loop", "Scan", "If"}
    recurrences = [n for n in program.model.graph if n.op_type in ("LSTM", "GRU", "RNN")]
    assert all(node.inputs[4] is not None for node in recurrences)  # sequence_lens
    sizes: Sizes = [example, arguments(9, [2, 9, 4]), arguments(5, [1]), arguments(7, [6] * 5)]
    assert_equal_in_runtime(program, model, sizes, 1e-6)


class Around(nn.Module):
    """A function of a packed batch, and the layers that it may use."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gru = fastseq.GRU(3, 4)
        self.native = nn.GRU(3, 4)
        self.projected = fastseq.LSTM(3, 4, proj_size=2)
        self.linear = nn.Linear(3, 3)
        self.function = function

    def forward(self, x: Tensor, n: Tensor) -> Any:
        return self.function(self, x, n)


def pack(x: Tensor, n: Tensor) -> PackedSequence:
    return pack_padded_sequence(x, n, enforce_sorted=False)


def with_data(batch: PackedSequence, data: Tensor) -> PackedSequence:
    return PackedSequence(data, batch.batch_sizes, batch.sorted_indices, batch.unsorted_indices)


def written_on(m: Any, x: Tensor, n: Tensor) -> Any:
    x, n = x * 1, n.sort(descending=True)[0]
    batch = pack_padded_sequence(x, n)  # sorting would copy them
    x.zero_()
    n.fill_(1)
    y, lengths = pad_packed_sequence(m.gru(batch)[0])
    lengths.zero_()
    return y, pad_packed_sequence(batch), lengths


FOLLOWED = {
    "no layer": lambda m, x, n: pad_packed_sequence(pack(x, n)),
    "more dimensions": lambda m, x, n: pad_packed_sequence(pack(x[..., None], n), True, 2.0),
    "the input's steps": lambda m, x, n: pad_packed_sequence(
        m.gru(pack(x, n))[0], total_length=x.shape[0]
    ),
    "projection": lambda m, x, n: pad_packed_sequence(m.projected(pack(x, n))[0]),
    "steps": lambda m, x, n: n + pack(x, n).batch_sizes.size(0),
    "questions": lambda m, x, n: x.to(pack(x, n).data.device, pack(x, n).data.dtype) * 2,
    "written on after packing": written_on,
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_an_exported_program_does_what_the_model_does(name: str) -> None:
    model = Around(FOLLOWED[name]).eval()
    with packed_as_lengths():
        program = torch.export.export(model, (numbers(6, 4, 3), UNSORTED), dynamic_shapes=SHAPES)
    for x, n in ((numbers(6, 4, 3), UNSORTED), (numbers(8, 3, 3), torch.tensor([2, 7, 4]))):
        torch.testing.assert_close(program.module()(x, n), model(x, n))


REFUSED = {
    "dropout": lambda m, x, n: m.gru(
        with_data(pack(x, n), nn.functional.dropout(pack(x, n).data, 0.5, False))
    ),
    "linear": lambda m, x, n: m.gru(with_data(pack(x, n), m.linear(pack(x, n).data))),
    "mul": lambda m, x, n: 2 * pack(x, n).data,
    "shape": lambda m, x, n: x + pack(x, n).data.shape[0],
    "cat": lambda m, x, n: torch.cat([x.flatten(0, 1), pack(x, n).data]),
    "relu": lambda m, x, n: torch.ops.aten.relu(pack(x, n).data),
    "to": lambda m, x, n: m.gru(pack(x, n).double()),
    "an output": lambda m, x, n: pack(x, n).data,
    "torch.nn's layer": lambda m, x, n: m.native(pack(x, n)),
    "the data of one batch": lambda m, x, n: m.gru(with_data(pack(x, n), pack(x, n).data))[1],
    "the other's": lambda m, x, n: pad_packed_sequence(with_data(pack(x, n), pack(x, n).data)),
    "data from elsewhere": lambda m, x, n: m.gru(with_data(pack(x, n), x.flatten(0, 1)))[1],
    "rows from elsewhere": lambda m, x, n: m.gru(
        PackedSequence(pack(x, n).data, torch.tensor([4, 3, 3, 2, 2]))
    )[1],
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_refused(name: str) -> None:
    model = Around(REFUSED[name]).eval()
    with packed_as_lengths(), pytest.raises(NotImplementedError, match=r"module\(x, lengths=n\)"):
        torch.export.export(model, (numbers(6, 4, 3), UNSORTED), dynamic_shapes=SHAPES)


def test_another_total_length_is_no_silent_one() -> None:
    model = Around(lambda m, x, n: pad_packed_sequence(pack(x, n), total_length=9)[0])
    with packed_as_lengths(), pytest.raises(RuntimeError, match=r"data-dependent expression .*9"):
        torch.export.export(model, (numbers(6, 4, 3), UNSORTED), dynamic_shapes=SHAPES)


def test_lengths_of_other_rows_raise_as_torch_nn_does() -> None:
    model = Around(lambda m, x, n: m.gru(pack_padded_sequence(x, n))[1])
    arguments = (numbers(6, 4, 3), torch.tensor([6, 5, 1]))
    words = r"Expected `len\(lengths\)` to be equal to batch_size, but got 3"
    with packed_as_lengths():
        with pytest.raises(RuntimeError, match=words):
            model(*arguments)
        with pytest.raises(RuntimeError, match=words):
            torch.export.export(model, arguments)


def test_nothing_changes_outside_of_an_export() -> None:
    x = numbers(6, 4, 3)
    expected = pack(x, UNSORTED)
    with packed_as_lengths():
        batch = pack(x, UNSORTED)
    assert type(batch.data) is type(batch.batch_sizes) is Tensor
    assert torch.equal(batch.data, expected.data)
    assert torch.equal(batch.batch_sizes, expected.batch_sizes)


@pytest.mark.parametrize("hx", [None, numbers(1, 4, 4)], ids=["zeros", "hx"])
def test_without_the_context_the_way_out_is_named(hx: Tensor | None) -> None:
    model = Around(lambda m, x, n: m.gru(pack(x, n), hx)[1]).eval()
    words = r"module\(x, lengths=n\), or export within fastseq\.onnx\.packed_as_lengths\(\)"
    with pytest.raises(NotImplementedError, match=words):
        torch.export.export(model, (numbers(6, 4, 3), UNSORTED))
