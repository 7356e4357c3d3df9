import math

import pytest
import torch
from cuda_stand_in import gpu

import fastseq.nn
from fastseq import check
from fastseq.check_cases import FAMILIES, Case


def case(op: str) -> Case:
    return next(case for family in FAMILIES for case in family() if case.op == op)


def wrong(op: str, change: object) -> type:
    right = getattr(fastseq.nn, op)

    class Wrong(right):
        def forward(self, *arguments: object) -> object:
            return change(super().forward(*arguments))

    return Wrong


class GradientOff(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, grad: torch.Tensor) -> torch.Tensor:
        return grad * 1.001


CHANGES = {
    "output a little off": lambda out: (out[0] * 1.0001, out[1]),
    "final state a little off": lambda out: (out[0], tuple(s + 1e-3 for s in out[1])),
    "NaN": lambda out: (out[0] * math.nan, out[1]),
    "gradient a little off": lambda out: (GradientOff.apply(out[0]), out[1]),
    "wrong only without gradients": lambda out: (
        out[0] if torch.is_grad_enabled() else out[0] * 1.01,
        out[1],
    ),
    "wrong shape": lambda out: (out[0][:1], out[1]),
}


@pytest.mark.parametrize("dtype", list(check.TOLERANCES), ids=str)
@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"])
def test_right_ops_pass(op: str, dtype: torch.dtype) -> None:
    row = check.check_case(case(op), dtype)
    assert row.ok, row


@pytest.mark.parametrize("name", CHANGES)
def test_wrong_ops_do_not_pass(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastseq.nn, "LSTM", wrong("LSTM", CHANGES[name]))
    assert not check.check_case(case("LSTM"), torch.float32).ok


def test_raising_op_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(out: object) -> None:
        raise RuntimeError("out of luck\nsecond line")

    monkeypatch.setattr(fastseq.nn, "GRU", wrong("GRU", fail))
    row = check.check_case(case("GRU"), torch.float32)
    assert row.verdict == "raised RuntimeError: out of luck"


@pytest.mark.parametrize(
    ("error", "native", "passes"),
    [
        (1e-6, math.nan, True),
        (1e-4, math.nan, False),
        (1e-4, math.inf, False),
        (1e-4, 6e-5, True),
        (1e-4, 4e-5, False),
        (math.nan, 1.0, False),
        (math.inf, 1.0, False),
    ],
)
def test_limits(error: float, native: float, passes: bool) -> None:
    assert check._within(error, native, 1e-5) is passes


def test_nan_is_the_worst_error_wherever_it_stands() -> None:
    assert math.isnan(check._worst_error([math.nan, 1.0]))
    assert math.isnan(check._worst_error([1.0, math.nan]))


def row(op: str, output: float, verdict: str = "ok") -> check.Row:
    return check.Row(op, f"B={output}", "float32", output, 0.0, math.nan, 0.0, verdict)


def test_table_shows_the_worst_and_every_mismatch() -> None:
    rows = (row("A", 1.0), row("A", 3.0), row("A", 2.0, "MISMATCH"), row("B", 1.0))
    report = check.Report("cpu", rows)
    assert not report.ok
    assert report.verdict() == "1 of 4 checks FAILED on cpu"
    places = [line.split()[1] for line in report.table().splitlines()[2:]]
    assert sorted(places) == ["B=1.0", "B=2.0", "B=3.0"]
    assert len(report.table(full=True).splitlines()) == 6
    assert not check.Report("cpu", ()).ok


def test_run_leaves_the_random_state_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "FAMILIES", [lambda: iter([case("RNN")])])
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    assert check.run(quick=True).ok
    assert torch.equal(torch.rand(3), expected)


def test_unknown_device_gets_a_sentence() -> None:
    with pytest.raises(ValueError, match="device is 'abacus', which torch cannot use here"):
        check.run("abacus")


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_on_a_gpu_it_is_our_kernels_that_are_checked(op: str) -> None:
    with gpu() as calls:
        assert check.check_case(case(op), torch.float32).ok
    assert not calls


def test_on_a_gpu_the_route_in_use_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "FAMILIES", [lambda: iter([case("LSTM"), case("LSTMCell")])])
    with gpu() as calls:
        report = check.run(quick=True)
        assert [(row.op, row.shape.endswith(" by auto")) for row in report.rows] == [
            ("LSTM", False),
            ("LSTM", True),
            ("LSTMCell", False),
        ]
        assert report.ok
        assert calls
        calls.clear()
        with fastseq.cuda_rnn("step"):
            assert len(check.run(quick=True).rows) == 2
        with fastseq.cuda_rnn("persistent"):
            forced = check._routes(case("GRU"), "cpu")
        assert forced == ("step", "persistent")
    assert not calls
    assert check._routes(case("GRU"), "cpu") == ("step",)
