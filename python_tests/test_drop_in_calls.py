"""Arguments of torch.nn's modules on fastseq's, and what is done around a call."""

import io
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from recurrence_cases import CELLS, KINDS, assert_equal, call, leaves, numbers, twins
from torch import Tensor, nn

import fastseq

T, B, I, H = 5, 3, 4, 6  # noqa: E741
each_kind = pytest.mark.parametrize("kind", KINDS)
each_cell = pytest.mark.parametrize("kind", CELLS)


def both(kind: str, run: Callable[[Any], Any], **options: Any) -> tuple[Any, Any]:
    """What ``run`` gives for torch.nn's module and for ours, with gradients of the weights."""
    ours, native = twins(kind, I, H, **options)
    found = []
    for module in (native, ours):
        torch.manual_seed(1)
        out = run(module)
        grads = [p.grad for p in module.parameters()]
        found.append((out, grads))
    return found[0], found[1]


def assert_same(kind: str, run: Callable[[Any], Any], **options: Any) -> None:
    expected, got = both(kind, run, **options)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


# ---- arguments


@each_cell
def test_no_units(kind: str) -> None:
    """PyTorch's test_RNN_cell_forward_zero_hidden_size."""
    native, ours = getattr(nn, kind)(I, 0), getattr(fastseq, kind)(I, 0)
    x, h = numbers(B, I), torch.zeros(B, 0)
    for hx in (None, (h, h) if kind == "LSTMCell" else h):
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                torch.testing.assert_close(ours(x, hx), native(x, hx))


@pytest.mark.parametrize("kind", [*KINDS, *CELLS])
def test_complex_numbers(kind: str) -> None:
    native, ours = (getattr(lib, kind)(I, H, dtype=torch.complex64) for lib in (nn, fastseq))
    ours.load_state_dict(native.state_dict())
    x = torch.complex(numbers(T, B, I), numbers(T, B, I, seed=5))
    x = x[0] if kind in CELLS else x
    torch.testing.assert_close(ours(x), native(x))


@pytest.mark.parametrize("kind", [*KINDS, *CELLS])
def test_autocast_leaves_float64_alone(kind: str) -> None:
    ours, native = twins(kind, I, H, dtype=torch.float64)
    x = numbers(T, B, I, dtype=torch.float64)
    x = x[0] if kind in CELLS else x
    for grad in (True, False):
        with torch.set_grad_enabled(grad), torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(leaves(ours(x)), leaves(native(x)))


def hidden(*shape: int) -> Tensor:
    return torch.zeros(*(shape or (1, B, H)))


WRONG: list[tuple[str, Callable[[Any], Any], type[Exception], str]] = [
    ("LSTM", lambda m: m(numbers(T, B, I), (hidden(),) * 3), RuntimeError, "two hidden states"),
    ("LSTM", lambda m: m(numbers(T, B, I), hidden(2, 1, B, H)), TypeError, "hx|lstm"),
    ("LSTMCell", lambda m: m(numbers(B, I), (hidden(B, H),)), RuntimeError, "two hidden states"),
    ("LSTMCell", lambda m: m(numbers(B, I), (hidden(B, H),) * 3), RuntimeError, "two hidden state"),
]


@pytest.mark.parametrize(("kind", "run", "error", "words"), WRONG)
def test_wrong_states(kind: str, run: Any, error: type[Exception], words: str) -> None:
    for module in twins(kind, I, H):
        with pytest.raises(error, match=words):
            run(module)


def test_our_own_arguments_are_checked() -> None:
    lstm, x = fastseq.LSTM(I, H), numbers(T, B, I)
    with pytest.raises(TypeError, match=r"reset should be a bool tensor, got torch\.int64"):
        lstm(x, reset=[0, 1, 0, 0, 1])
    marks = [[False] * B, [True] * B, *[[False] * B] * (T - 2)]
    torch.testing.assert_close(lstm(x, reset=marks), lstm(x, reset=torch.tensor(marks)))
    double = (hidden().double(), hidden().double())
    with pytest.raises(RuntimeError, match="reset_state tensors are not the same dtype"):
        lstm(x, reset=torch.tensor(marks), reset_state=double)


@each_cell
@pytest.mark.parametrize("grad", [True, False])
def test_cells_look_at_devices(kind: str, grad: bool) -> None:
    cell = getattr(fastseq, kind)(I, H)
    with torch.set_grad_enabled(grad), pytest.raises(RuntimeError, match="not at the same device"):
        cell(torch.empty(B, I, device="meta"))


@pytest.mark.parametrize("cell", KINDS)
def test_padding_is_never_read(cell: str) -> None:
    """NaN beyond a length, under a layer norm, too: in results and in every gradient."""
    module = getattr(fastseq, cell)(I, H, bidirectional=True, num_layers=2, layer_norm=True)
    lengths = torch.tensor([T, 0, 2])
    x = numbers(T, B, I)
    dirty = x.clone()
    for row, length in enumerate(lengths):
        dirty[length:, row] = torch.nan
    clean = x.where(dirty.isfinite(), 0.0)
    lengthy = lambda x: module(x, lengths=lengths)  # noqa: E731
    wrapped = nn.Module()
    wrapped.forward = lengthy  # type: ignore[method-assign]
    wrapped.module = module
    found, expected = call(wrapped, dirty), call(wrapped, clean)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


# ---- around a call


@each_kind
def test_explain_takes_what_a_call_takes(kind: str) -> None:
    module = getattr(fastseq, kind)(I, H)
    rows = nn.utils.rnn.pack_padded_sequence(numbers(T, B, I), torch.tensor([T, 2, 1]))
    assert f"T={T}, B={B}, H={H}, {T + 3} packed rows: CPU kernels" in fastseq.explain(module, rows)
    for wrong in (numbers(T, B, I + 1), numbers(I), numbers(T, B, I).double()):
        with pytest.raises((ValueError, RuntimeError)) as of_a_call:
            module(wrong)
        with pytest.raises(type(of_a_call.value)) as of_explain:
            fastseq.explain(module, wrong)
        assert str(of_explain.value) == str(of_a_call.value)


@pytest.mark.parametrize("kind", [*KINDS, *CELLS, "MaxPool2d"])
def test_the_old_onnx_exporter_says_what_does_instead(kind: str) -> None:
    model: Any = nn.ModuleList([getattr(fastseq, kind)(*([2] if kind == "MaxPool2d" else [I, H]))])
    model.forward = lambda x: leaves(model[0](x))[0]
    x = numbers(1, 2, 4, 4) if kind == "MaxPool2d" else numbers(T, B, I)
    x = x[0] if kind in CELLS else x
    with pytest.raises(RuntimeError, match=r"no nodes for fastseq's ops.*dynamo=True"):
        torch.onnx.export(model, (x,), io.BytesIO(), dynamo=False)


@pytest.mark.parametrize("kind", [*KINDS, *CELLS])
def test_traces(kind: str) -> None:
    """With gradients on, for other sizes, and trained."""
    torch.manual_seed(0)
    module: Any = getattr(fastseq, kind)(I, H)
    x, other = numbers(T, B, I), numbers(T + 2, B - 1, I)
    if kind in CELLS:
        x, other = x[0], other[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module, (x,))
    assert_equal(call(traced, other), call(module, other))


def test_weights_that_are_tied_in_a_compiled_graph() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = fastseq.GRU(I, I), fastseq.LSTM(I, I)
            self.b.weight_hh_l0 = self.b.weight_ih_l0

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(self.a(x)[0])[0])[0]

    torch._dynamo.reset()
    model, x = Tied(), numbers(T, B, I)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    expected, got = call(model, x), call(compiled, x)
    torch.testing.assert_close([*got.values()], [*expected.values()])


def test_recompute_under_a_transform() -> None:
    """A checkpoint cannot run there; the result can."""
    torch.manual_seed(0)
    plain = fastseq.LSTM(I, H)
    again = fastseq.LSTM(I, H, recompute=True)
    again.load_state_dict(plain.state_dict())
    x = numbers(T, B, I)
    found = [torch.func.grad(lambda x, m=m: m(x)[0].square().sum())(x) for m in (plain, again)]
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_second_derivatives_of_a_compiled_call_are_refused() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(fastseq.GRU(I, H), backend="aot_eager")
    x = numbers(T, B, I).requires_grad_()
    (g,) = torch.autograd.grad(compiled(x)[0].square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="does not currently support double backward"):
        g.sum().backward()


def test_cells_built_of_tensors_export() -> None:
    """speechbrain passes a tensor for input_size."""
    cell = fastseq.GRUCell(torch.tensor(I), torch.tensor(H))
    x = numbers(B, I)
    program = torch.export.export(cell, (x,))
    torch.testing.assert_close(program.module()(x), cell(x))


def test_out_of_memory_on_a_gpu_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stable ABI keeps an error's words and loses its type; callers catch the type."""

    def full(*args: Any) -> Any:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(fastseq.autograd.layer, "op", full)
    with torch.no_grad(), pytest.raises(torch.OutOfMemoryError, match=r"allocate 2\.00 GiB"):
        fastseq.LSTM(I, H, 2)(numbers(T, B, I))
