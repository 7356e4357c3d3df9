"""The same mistakes raise the same exceptions as in torch.nn, word for word; ops explain theirs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from recurrence_cases import (
    CELLS,
    KINDS,
    layer_tensors,
    packed,
    whole_layer,
    whole_layer_backward,
)
from torch import Tensor, nn

import fastseq
from fastseq import functional, ops
from fastseq.ops import Cell


def complaint(attempt: Callable[[], Any]) -> tuple[type[BaseException], str] | None:
    try:
        attempt()
    except Exception as error:
        return type(error), str(error).split("\n")[0]
    return None


def constructed(*args: Any, **kwargs: Any) -> Callable[[Any], Any]:
    return lambda make: make(*args, **kwargs)


CONSTRUCTION = {
    "no sizes": constructed(),
    "no hidden size": constructed(3),
    "input size 0": constructed(0, 4),
    "input size -1": constructed(-1, 4),
    "input size float": constructed(3.0, 4),
    "hidden size 0": constructed(3, 0),
    "hidden size float": constructed(3, 4.0),
    "no layers": constructed(3, 4, 0),
    "layers float": constructed(3, 4, num_layers=1.5),
    "bias int": constructed(3, 4, bias=1),
    "batch_first str": constructed(3, 4, batch_first="yes"),
    "dropout 2": constructed(3, 4, num_layers=2, dropout=2),
    "dropout -0.1": constructed(3, 4, num_layers=2, dropout=-0.1),
    "dropout True": constructed(3, 4, num_layers=2, dropout=True),
    "dropout str": constructed(3, 4, num_layers=2, dropout="half"),
    "proj_size -1": constructed(3, 4, proj_size=-1),
    "proj_size too large": constructed(3, 4, proj_size=4),
    "proj_size 2": constructed(3, 4, proj_size=2),
    "nonlinearity": constructed(3, 4, nonlinearity="sine"),
    "unknown option": constructed(3, 4, peephole=True),
    "too many": constructed(3, 4, 1, True, False, 0.0, False, 0, None, None, 1, 2),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", CONSTRUCTION.values(), ids=CONSTRUCTION.keys())
def test_constructor(kind: str, make: Callable[[Any], Any]) -> None:
    expected = complaint(lambda: make(getattr(nn, kind)))
    assert complaint(lambda: make(getattr(fastseq, kind))) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mistake", ["proj_size too large", "input size 0", "dropout 2"])
def test_mistakes_are_mistakes(kind: str, mistake: str) -> None:
    assert complaint(lambda: CONSTRUCTION[mistake](getattr(nn, kind))) is not None


def hidden(kind: str, *shapes: tuple[int, ...], dtype: Any = None) -> Any:
    made = tuple(torch.zeros(shape, dtype=dtype) for shape in (shapes * 2)[:2])
    return made if kind == "LSTM" else made[0]


# module and kind -> arguments of the call; module options in the second place
CALLS: dict[str, tuple[Callable[[str], tuple[Any, ...]], dict[str, Any]]] = {
    "1-D": (lambda _: (torch.zeros(3),), {}),
    "4-D": (lambda _: (torch.zeros(2, 2, 2, 3),), {}),
    "width": (lambda _: (torch.zeros(5, 2, 4),), {}),
    "width unbatched": (lambda _: (torch.zeros(5, 4),), {}),
    "dtype": (lambda _: (torch.zeros(5, 2, 3, dtype=torch.float64),), {}),
    "integers": (lambda _: (torch.zeros(5, 2, 3, dtype=torch.long),), {}),
    "no steps": (lambda _: (torch.zeros(0, 2, 3),), {}),
    "no steps, batch_first": (lambda _: (torch.zeros(2, 0, 3),), {"batch_first": True}),
    "hx 2-D": (lambda k: (torch.zeros(5, 2, 3), hidden(k, (1, 4))), {}),
    "hx 3-D unbatched": (lambda k: (torch.zeros(5, 3), hidden(k, (1, 1, 4))), {}),
    "hx batch": (lambda k: (torch.zeros(5, 2, 3), hidden(k, (1, 3, 4))), {}),
    "hx batch, batch_first": (
        lambda k: (torch.zeros(5, 2, 3), hidden(k, (1, 2, 4))),
        {"batch_first": True},
    ),
    "hx width": (lambda k: (torch.zeros(5, 2, 3), hidden(k, (1, 2, 5))), {}),
    "hx layers": (lambda k: (torch.zeros(5, 2, 3), hidden(k, (1, 2, 4))), {"num_layers": 2}),
    "hx directions": (
        lambda k: (torch.zeros(5, 2, 3), hidden(k, (1, 2, 4))),
        {"bidirectional": True},
    ),
    "hx dtype": (
        lambda k: (torch.zeros(5, 2, 3), hidden(k, (1, 2, 4), dtype=torch.float64)),
        {},
    ),
    "cx width": (lambda k: (torch.zeros(5, 2, 3), hidden(k, (1, 2, 4), (1, 2, 5))), {}),
    "cx 2-D": (lambda k: (torch.zeros(5, 2, 3), hidden(k, (1, 2, 4), (1, 4))), {}),
    "device": (lambda _: (torch.zeros(5, 2, 3, device="meta"),), {}),
    "packed width": (lambda _: (packed([3, 2], 4),), {}),
    "packed hx batch": (lambda k: (packed([3, 2], 3), hidden(k, (1, 3, 4))), {}),
    "packed dtype": (lambda _: (packed([3, 2], 3, torch.float64),), {}),
    "nothing": (lambda _: (), {}),
}


# Where torch.nn checks nothing and a kernel inside it complains, fastseq says what is wrong.
OWN_WORDS = {
    ("hx dtype", "LSTM"): "Input and hidden tensors are not the same dtype",
    ("hx dtype", "GRU"): "Input and hidden tensors are not the same dtype",
    ("hx dtype", "RNN"): "Input and hidden tensors are not the same dtype",
    ("packed width", "LSTM"): "input.size(-1) must be equal to input_size. Expected 3, got 4",
    ("packed hx batch", "LSTM"): "Expected hidden[0] size (1, 2, 4), got [1, 3, 4]",
    ("packed dtype", "LSTM"): "RNN input dtype (torch.float64) does not match weight dtype",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CALLS)
def test_call(kind: str, name: str) -> None:
    arguments, options = CALLS[name]
    args = arguments(kind)
    expected = complaint(lambda: getattr(nn, kind)(3, 4, **options)(*args))
    found = complaint(lambda: getattr(fastseq, kind)(3, 4, **options)(*args))
    if (name, kind) in OWN_WORDS:
        assert expected is not None
        assert found is not None
        assert issubclass(found[0], (RuntimeError, ValueError))
        assert found[1].startswith(OWN_WORDS[name, kind])
        return
    assert found == expected
    assert expected is not None or (kind != "LSTM" and name.startswith("cx"))


def one_or_two(kind: str, *shape: int, dtype: Any = None) -> Any:
    state = torch.zeros(shape, dtype=dtype)
    return (state, state) if kind == "LSTMCell" else state


CELL_CALLS: dict[str, Callable[[str], tuple[Any, ...]]] = {
    "0-D": lambda _: (torch.zeros(()),),
    "3-D": lambda _: (torch.zeros(2, 2, 3),),
    "width": lambda _: (torch.zeros(2, 4),),
    "hidden 3-D": lambda k: (torch.zeros(2, 3), one_or_two(k, 1, 2, 4)),
    "hidden width": lambda k: (torch.zeros(2, 3), one_or_two(k, 2, 5)),
    "hidden batch": lambda k: (torch.zeros(2, 3), one_or_two(k, 3, 4)),
    "hidden width unbatched": lambda k: (torch.zeros(3), one_or_two(k, 5)),
}


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("arguments", CELL_CALLS.values(), ids=CELL_CALLS.keys())
def test_cell_call(kind: str, arguments: Callable[[str], tuple[Any, ...]]) -> None:
    args = arguments(kind)
    expected = complaint(lambda: getattr(nn, kind)(3, 4)(*args))
    assert expected is not None
    assert complaint(lambda: getattr(fastseq, kind)(3, 4)(*args)) == expected


def test_unknown_nonlinearity_of_a_cell() -> None:
    x = torch.zeros(2, 3)
    expected = complaint(lambda: nn.RNNCell(3, 4, nonlinearity="sine")(x))
    assert complaint(lambda: fastseq.RNNCell(3, 4, nonlinearity="sine")(x)) == expected


def test_unknown_nonlinearity_of_the_function() -> None:
    with pytest.raises(ValueError, match="Select from 'tanh' or 'relu'"):
        functional.rnn(
            torch.zeros(2, 1, 3),
            torch.zeros(1, 1, 4),
            [torch.zeros(4, 3), torch.zeros(4, 4)],
            *(False, 1, 0.0, False, False),
            nonlinearity="sine",
        )


# change of good arguments -> what the sentence says
OP_MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "pre 2-D": ({"pre": torch.zeros(3, 20)}, r"expected a tensor of shape \[T, 3"),
    "pre batch": ({"pre": torch.zeros(4, 2, 20)}, r"expected a tensor of shape \[T, 3"),
    "pre width": ({"pre": torch.zeros(4, 3, 19)}, r"pre should have shape \[4, 3, 20\]"),
    "pre dtype": ({"pre": torch.zeros(4, 3, 20).double()}, "pre should have the dtype"),
    "h0 1-D": ({"h0": torch.zeros(5)}, "h0 and weight_hh should be 2-D"),
    "h0 width": ({"h0": torch.zeros(3, 6)}, r"weight_hh should have shape \[20, 6\]"),
    "no c0": ({"c0": None}, "c0 belongs to LSTM, and LSTM needs it"),
    "c0 batch": ({"c0": torch.zeros(2, 5)}, r"c0 should have shape \[3, 5\]"),
    "c0 dtype": ({"c0": torch.zeros(3, 5).double()}, "c0 should have the dtype"),
    "weight rows": ({"weight_hh": torch.zeros(19, 5)}, "weight_hh should have shape"),
    "weight 3-D": ({"weight_hh": torch.zeros(20, 5, 1)}, "should be 2-D"),
    "no weight": ({"weight_hh": torch.zeros(0, 5)}, "sizes should be positive"),
    "projection": ({"weight_hr": torch.zeros(4, 5)}, r"weight_hr should have shape \[5, 5\]"),
    "GRU's bias": ({"bias_hn": torch.zeros(5)}, "bias_hn belongs to GRU"),
    "cell 4": ({"cell": 4}, "cell should be 0"),
    "cell -1": ({"cell": -1}, "cell should be 0"),
    "c0 of a GRU": ({"cell": 1}, "c0|weight_hh"),
    "sizes 2-D": ({"batch_sizes": torch.ones(2, 2).long()}, "1-D int64 tensor on the CPU"),
    "sizes int32": ({"batch_sizes": torch.ones(2).int()}, "1-D int64 tensor on the CPU"),
    "sizes grow": ({"batch_sizes": torch.tensor([1, 2])}, "not increase"),
    "sizes zero": ({"batch_sizes": torch.tensor([1, 0])}, "should be positive"),
    "sizes too large": ({"batch_sizes": torch.tensor([4])}, "got 4 after 3"),
    "sizes and 3-D": ({"batch_sizes": torch.tensor([3, 1])}, r"packed rows of shape \[4"),
}


@pytest.mark.parametrize("name", OP_MISTAKES)
def test_op(name: str) -> None:
    change, sentence = OP_MISTAKES[name]
    good = layer_tensors(Cell.LSTM, dtype=torch.float32)
    ops.recurrence(**good, save=True)
    with pytest.raises(RuntimeError, match=sentence):
        torch.ops.fastseq.recurrence(*{**good, **change}.values(), True)


def test_op_integers() -> None:
    good = layer_tensors(Cell.RNN_TANH, dtype=torch.float32)
    whole = {n: v.long() if isinstance(v, torch.Tensor) else v for n, v in good.items()}
    with pytest.raises(RuntimeError, match="float32, float64, bfloat16 or float16"):
        ops.recurrence(**whole, save=True)


@pytest.mark.parametrize("name", ["grad_y", "grad_h_n", "grad_c_n", "grad_gates", "grad_cells"])
def test_backward_op(name: str) -> None:
    good = layer_tensors(Cell.LSTM, dtype=torch.float32)
    y, h_n, c_n, gates, cells = ops.recurrence(**good, save=True)
    grads = {"grad_y": y, "grad_h_n": h_n, "grad_c_n": c_n, "grad_gates": gates}
    grads["grad_cells"] = cells
    rest = {n: good[n] for n in ("h0", "c0", "weight_hh", "weight_hr", "batch_sizes")}
    saved = {"y": y, "gates": gates, "cells": cells, **rest, "cell": 0, "reverse": False}
    ops.recurrence_backward(**grads, **saved)
    grads[name] = grads[name][:-1]
    with pytest.raises(RuntimeError, match=name + " should"):
        ops.recurrence_backward(**grads, **saved)


HALF, DOUBLE = torch.float16, torch.float64
# change of good arguments (T=4, B=3, I=7, H=5, LSTM) -> what the sentence says
LAYER_MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "x 0-D": ({"x": torch.zeros(())}, r"expected a tensor of shape \[T, 3"),
    "x 1-D": ({"x": torch.zeros(7)}, r"expected a tensor of shape \[T, 3"),
    "x 2-D": ({"x": torch.zeros(3, 7)}, r"expected a tensor of shape \[T, 3"),
    "x 4-D": ({"x": torch.zeros(4, 3, 7, 1)}, r"expected a tensor of shape \[T, 3"),
    "x batch": ({"x": torch.zeros(4, 2, 7)}, r"expected a tensor of shape \[T, 3"),
    "x narrow": ({"x": torch.zeros(4, 3, 6)}, r"x should have shape \[4, 3, 7\]"),
    "x of no columns": ({"x": torch.zeros(4, 3, 0)}, r"x should have shape \[4, 3, 7\]"),
    "x dtype": ({"x": torch.zeros(4, 3, 7, dtype=DOUBLE)}, "x should have the dtype"),
    "x integers": ({"x": torch.zeros(4, 3, 7).long()}, "x should have the dtype"),
    "x complex": ({"x": torch.zeros(4, 3, 7).cfloat()}, "x should have the dtype"),
    "weight_ih 1-D": ({"weight_ih": torch.zeros(20)}, "weight_ih should be 2-D"),
    "weight_ih 3-D": ({"weight_ih": torch.zeros(20, 7, 1)}, "weight_ih should be 2-D"),
    "weight_ih rows": ({"weight_ih": torch.zeros(19, 7)}, r"should have shape \[20, 7\]"),
    "weight_ih wide": ({"weight_ih": torch.zeros(20, 8)}, r"x should have shape \[4, 3, 8\]"),
    "weight_ih dtype": ({"weight_ih": torch.zeros(20, 7, dtype=HALF)}, "should have the dtype"),
    "bias_ih 2-D": ({"bias_ih": torch.zeros(20, 1)}, r"bias_ih should have shape \[20\]"),
    "bias_ih short": ({"bias_ih": torch.zeros(19)}, r"bias_ih should have shape \[20\]"),
    "bias_ih 0-D": ({"bias_ih": torch.zeros(())}, r"bias_ih should have shape \[20\]"),
    "bias_ih dtype": ({"bias_ih": torch.zeros(20, dtype=HALF)}, "bias_ih should have the dtype"),
    "bias_hh short": ({"bias_hh": torch.zeros(5)}, r"bias_hh should have shape \[20\]"),
    "bias_hh dtype": ({"bias_hh": torch.zeros(20, dtype=DOUBLE)}, "should have the dtype"),
    "h0 dtype": ({"h0": torch.zeros(3, 5, dtype=DOUBLE)}, "should have the dtype"),
    "weight_hh dtype": ({"weight_hh": torch.zeros(20, 5, dtype=HALF)}, "should have the dtype"),
    "projection": ({"weight_hr": torch.zeros(4, 5)}, r"weight_hr should have shape \[5, 5\]"),
    "cell 4": ({"cell": 4}, "cell should be 0"),
    "sizes grow": ({"batch_sizes": torch.tensor([1, 2])}, "not increase"),
    "sizes and 3-D": ({"batch_sizes": torch.tensor([3, 1])}, r"packed rows of shape \[4"),
}


@pytest.mark.parametrize("name", LAYER_MISTAKES)
@pytest.mark.parametrize("save", [True, False])
def test_layer_op(name: str, save: bool) -> None:
    change, sentence = LAYER_MISTAKES[name]
    good = whole_layer(Cell.LSTM, dtype=torch.float32)
    ops.layer(**good, save=save)
    with pytest.raises(RuntimeError, match=sentence):
        ops.layer(**{**good, **change}, save=save)


@pytest.mark.parametrize("name", [n for n in LAYER_MISTAKES if not n.startswith("bias")])
def test_layer_backward_op(name: str) -> None:
    change, _ = LAYER_MISTAKES[name]
    good = whole_layer(Cell.LSTM, dtype=torch.float32)
    backward = whole_layer_backward(good, ops.layer(**good, save=True), 31)
    with pytest.raises(RuntimeError, match=r"fastseq::recurrence: .*(should|expected)"):
        ops.layer_backward(**{**backward, **change})


@pytest.mark.parametrize(
    "name", ["grad_y", "grad_h_n", "grad_c_n", "grad_gates", "grad_cells", "y", "gates", "cells"]
)
@pytest.mark.parametrize("cut", ["short", "narrow", "dtype"])
def test_layer_backward_op_saved_and_gradients(name: str, cut: str) -> None:
    good = whole_layer(Cell.LSTM, dtype=torch.float32)
    backward = whole_layer_backward(good, ops.layer(**good, save=True), 15)
    t = backward[name]
    wrong = {"short": t[:-1], "narrow": t[..., :-1], "dtype": t.to(HALF)}[cut]
    with pytest.raises(RuntimeError, match=r"fastseq::recurrence\w*: .* should"):
        ops.layer_backward(**{**backward, name: wrong})


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64], ids=str)
def test_layer_op_of_other_dtypes(dtype: torch.dtype) -> None:
    good = whole_layer(Cell.RNN_TANH, dtype=torch.float32)
    cast = {n: v.to(dtype) if isinstance(v, Tensor) else v for n, v in good.items()}
    with pytest.raises(RuntimeError, match="float32, float64, bfloat16 or float16"):
        ops.layer(**cast, save=True)
