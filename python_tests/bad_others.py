"""Bad inputs of what torch.nn does not have, and of the functions, for ``bad_inputs``."""

from collections.abc import Callable
from math import nan
from typing import Any

import torch
from bad_inputs import ROW, X, case, hidden, module, plain
from recurrence_cases import numbers
from torch import nn

import fastseq
from fastseq import ops


def own(
    name: str, call: Callable[[], Any], raises: type[BaseException] | None, words: str = ""
) -> None:
    """A case that torch.nn has no equal of."""
    case(name, "", lambda *_: call(), raises, words, "own")


def lstm(**options: Any) -> Any:
    """fastseq.LSTM of 3 inputs and 4 units."""
    torch.manual_seed(0)
    return fastseq.LSTM(3, 4, **options)


def lengths_and_resets() -> None:
    """Keywords of a call: X has 5 steps of 2 rows."""

    def lengths(value: Any) -> Callable[[], Any]:
        return lambda: lstm()(X, lengths=value)

    far = "lengths should be between 0 and the 5 steps of the input, got "
    own("lengths too long", lengths(torch.tensor([5, 6])), RuntimeError, far + "6 for row 1")
    own("lengths below 0", lengths(torch.tensor([-1, 5])), RuntimeError, far + "-1 for row 0")
    own(
        "lengths 2^62", lengths(torch.tensor([2**62, 1])), RuntimeError, far + "4611686018427387904"
    )
    own("lengths of 1 row", lengths(torch.tensor([5])), ValueError, r"shape \(2,\), .* got \(1,\)")
    own("lengths in a table", lengths([[5], [4]]), ValueError, r"shape \(2,\), .* got \(2, 1\)")
    own("lengths a number", lengths(5), ValueError, r"shape \(2,\), .* got \(\)")
    for dtype in (torch.float32, torch.bool, torch.complex64):
        words = f"lengths should be integers, got {dtype}"
        own(f"lengths of {dtype}", lengths(torch.ones(2).to(dtype)), TypeError, words)
    own("lengths a word", lengths("55"), TypeError, "invalid data type 'str'")
    own(
        "lengths on meta", lengths(torch.ones(2, device="meta").long()), NotImplementedError, "meta"
    )
    own("lengths of bytes", lengths(torch.tensor([5, 4], dtype=torch.uint8)), None)
    own("lengths all 0", lengths([0, 0]), None)

    marks = torch.ones(5, 2, dtype=torch.bool)

    def reset(value: Any, state: Any = None) -> Callable[[], Any]:
        return lambda: lstm()(X, reset=value, reset_state=state)

    own("reset of integers", reset(marks.long()), TypeError, "reset should be a bool tensor, got")
    own("reset turned", reset(marks.t()), ValueError, r"shape \(5, 2\), .* got \(2, 5\)")
    h = torch.zeros(1, 2, 4)
    pair = "reset_state should be a pair of tensors, shaped like hx"
    own("reset_state h alone", reset(marks, h), TypeError, pair)
    own("reset_state of nothing", reset(marks, (None, None)), TypeError, pair)
    wide = (torch.zeros(1, 2, 5), h)
    own(
        "reset_state too wide",
        reset(marks, wide),
        RuntimeError,
        r"size \(1, 2, 4\), got \(1, 2, 5\)",
    )
    words = "Input and reset_state tensors are not the same dtype"
    own("reset_state of float64", reset(marks, (h.double(),) * 2), RuntimeError, words)
    words = "expected all tensors on one device, found cpu and meta"
    own("reset_state on meta", reset(marks, (h.to("meta"),) * 2), RuntimeError, words)
    own("reset_state alone", reset(None, (h, h)), ValueError, "without reset, the mask that says")


def steps() -> None:
    """Streams, with gradients and without."""

    def step(name: str, x: Any, state: Any, raises: Any, words: str) -> None:
        own(f"step, {name}", lambda: lstm().step(x, state), raises, words)
        bare = plain(lambda *_: lstm().step(x, state))
        case(f"step, {name}, no gradients", "", bare, raises, words, "own")

    step("3 dimensions", X, None, ValueError, r"step\(\) expects input \(B, I\) or \(I,\), got")
    step("too wide", numbers(2, 4), None, RuntimeError, "Expected 3, got 4")
    step("integers", ROW.long(), None, ValueError, "RNN input dtype .* does not match weight dtype")
    step("on meta", ROW.to("meta"), None, RuntimeError, "the same device|on one device")
    words = r"Expected hidden\[0\] size \(1, 2, 4\), got \[1, 3, 4\]"
    step("hx of another batch", ROW, hidden("LSTM", 1, 3, 4), RuntimeError, words)
    on_meta = hidden("LSTM", 1, 2, 4, device="meta")
    step("hx on meta", ROW, on_meta, RuntimeError, "the same device|on one device")
    words = r"step\(\) expects hx to be a pair of tensors \(h_0, c_0\), or the state"
    for name, bad in (("a word", "zeros"), ("of one", (ROW,)), ("of nothing", (None, None))):
        step(f"hx {name}", ROW, bad, TypeError, words)

    def after(first: Any, second: Any, x: Any = ROW) -> Callable[[], Any]:
        def call() -> Any:
            with torch.no_grad():
                return second.step(x, first.step(ROW)[1])

        return call

    words = "state of a module of 1 layers, and this one has 2"
    own("step, the state of fewer layers", after(lstm(), lstm(num_layers=2)), ValueError, words)
    words = "state of a module of 2 layers, and this one has 1"
    own("step, the state of more layers", after(lstm(num_layers=2), lstm()), ValueError, words)
    words = "c0 belongs to LSTM, and LSTM needs it"
    own("step, the state of a GRU", after(fastseq.GRU(3, 4), lstm()), RuntimeError, words)
    wide = fastseq.LSTM(3, 5)
    words = "weight_hh should have shape"
    own("step, the state of another width", after(lstm(), wide), RuntimeError, words)
    words = "x should have shape"
    own("step, another batch", after(lstm(), lstm(), numbers(3, 3)), RuntimeError, words)


def options() -> None:
    """Options of a module that torch.nn has not."""
    for name in ("recurrent_dropout", "weight_dropout", "zoneout"):
        for p in (-0.1, 1.0, nan, True, None):
            words = f"{name} should be a probability, at least 0 and less than 1, got"
            own(f"{name} {p}", lambda name=name, p=p: lstm(**{name: p}), ValueError, words)
    words = "zoneout should be one number, or for an LSTM a pair"
    own("three zoneouts", lambda: lstm(zoneout=(0.1, 0.1, 0.1)), ValueError, words)
    words = "return_cell_states belongs to LSTM; GRU has no cell states"
    own("cells of a GRU", lambda: fastseq.GRU(3, 4, return_cell_states=True), ValueError, words)


def functions() -> None:
    """``lstm`` and ``gru`` as functions: what the modules see to."""
    h = torch.zeros(1, 2, 4)

    def called(kind: str, count: int, states: Any = None, **changed: Any) -> Any:
        def call(library: Any, _: str) -> Any:
            params = list(module(library, kind.upper()).parameters())
            given = {"biases": True, "layers": 1, "dropout": 0.0, "train": True, "both": False}
            hx = states if states is not None else (h, h) if kind == "lstm" else h
            numbers = (*{**given, **changed}.values(), False)
            return getattr(library, kind)(X, hx, (params * 4)[:count], *numbers)

        return call

    words = "got an incorrect number of RNN parameters"
    for kind in ("lstm", "gru"):
        case(f"{kind} of 3 parameters", "", called(kind, 3), RuntimeError, words, "kin")
        case(f"{kind} of none", "", called(kind, 0), RuntimeError, words, "kin")
        both = called(kind, 4, both=True)
        case(f"{kind} of one direction of two", "", both, RuntimeError, words, "kin")
        none = "num_layers must be greater than zero"
        case(f"{kind} of no layers", "", called(kind, 0, layers=0), RuntimeError, none, "kin")
    few = "hx has states for 1 layers and directions, of 2"
    case("lstm, hx of one layer", "", called("lstm", 8, layers=2), IndexError, few, "kin")
    one = "c0 belongs to LSTM, and LSTM needs it"
    case("lstm, h alone", "", called("lstm", 4, (h,)), RuntimeError, one, "kin")
    for p in (2.0, nan):
        two = torch.zeros(2, 2, 4)

        def dropped(library: Any, _: str, p: float = p, two: Any = two) -> Any:
            params = list(nn.LSTM(3, 4, 2).parameters())
            return library.lstm(X, (two, two), params, True, 2, p, True, False, False)

        words = "dropout probability has to be between 0 and 1, but got "
        case(f"lstm, dropout {p}", "", dropped, RuntimeError, words, "kin")


def ops_on_two_devices() -> None:
    """A tensor on meta: nothing may come back that nobody has computed."""
    h, w = torch.zeros(2, 4), [numbers(16, 3), numbers(16, 4), numbers(16), numbers(16)]
    words = "expected all tensors on one device, found cpu and meta"
    for i in range(7):
        both = [X, h, h, *w]
        both[i] = both[i].to("meta")
        layer = plain(lambda *_, t=both: ops.LAYER(*t, None, None, 0, False, False))
        case(f"raw layer, tensor {i} on meta", "", layer, RuntimeError, words, "own")
        one = [ROW if t is X else t for t in both[:1]] + both[1:]
        step = plain(lambda *_, t=one: ops.STEP(*t, 0))
        if i:  # its x is ROW
            case(f"raw step, tensor {i} on meta", "", step, RuntimeError, words, "own")


def the_rest() -> None:
    """swap, explain, loading."""
    for name, bad in (("nothing", None), ("a class", nn.LSTM), ("a list", [nn.LSTM(3, 4)])):
        words = "expected a torch.nn.Module to swap, got "
        own(f"swap of {name}", lambda bad=bad: fastseq.swap(bad), TypeError, words)
        own(f"swap_report of {name}", lambda bad=bad: fastseq.swap_report(bad), TypeError, words)
        words = r"explain\(\) was given a "
        own(f"explain of {name}", lambda bad=bad: fastseq.explain(bad, X), TypeError, words)
    words = "Expected input to be 2D or 3D, got 1D instead"
    own("explain of an input", lambda: fastseq.explain(lstm(), numbers(3)), ValueError, words)
    words = "there is no route 'nope'; there are auto, persistent, cudnn, step"
    own("a route", lambda: fastseq.cuda_rnn("nope").__enter__(), ValueError, words)

    def load(library: Any, _: str) -> Any:
        return module(library, "LSTM").load_state_dict({"weight_ih_l0": torch.zeros(3, 3)})

    case("weights of another shape", "", load, RuntimeError, "Error\\(s\\) in loading state_dict")


for _add in (
    lengths_and_resets, steps, options, functions, ops_on_two_devices, the_rest,
):  # fmt: skip
    _add()
