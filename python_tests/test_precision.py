"""Float32 products of a layer on a GPU obey torch's precision for RNNs: the switch, on the CPU."""

import threading
from collections.abc import Iterator

import pytest
import torch
from recurrence_cases import all_wanted, whole_layer, whole_layer_backward
from torch import Tensor

from fastseq.ops import Cell, layer_cuda, precision
from fastseq.ops.precision import rnn_precision

X = torch.zeros(3, 2, 4)


@pytest.fixture(autouse=True)
def switches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Torch's defaults, before and after; with cuDNN, whatever torch was built with."""
    monkeypatch.setattr(precision, "cudnn_enabled", lambda: True)
    yield
    for backend, op, value in [
        ("generic", "all", "none"),
        ("cuda", "all", "none"),
        ("cuda", "rnn", "tf32"),
        ("cuda", "matmul", "none"),
    ]:
        torch._C._set_fp32_precision_setter(backend, op, value)


def of(op: str) -> str:
    return torch._C._get_fp32_precision_getter("cuda", op)


def to(op: str, value: str, backend: str = "cuda") -> None:
    torch._C._set_fp32_precision_setter(backend, op, value)


def test_torchs_defaults() -> None:
    """TF32 for RNNs and not for products, which is why there is a switch to turn."""
    assert torch.backends.cudnn.rnn.fp32_precision == of("rnn") == "tf32"
    assert torch.backends.cuda.matmul.fp32_precision == of("matmul") == "none"
    with rnn_precision(X):
        assert of("matmul") == "tf32"
    assert of("matmul") == "none"
    assert torch.get_float32_matmul_precision() == "highest"


def test_tf32_of_a_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the switch for RNNs; of a single step, and without cuDNN, by that of products."""
    assert precision.tf32(single=False)
    assert not precision.tf32(single=True)
    to("rnn", "ieee")
    to("matmul", "tf32")
    assert not precision.tf32(single=False)
    assert precision.tf32(single=True)
    monkeypatch.setattr(precision, "cudnn_enabled", lambda: False)
    assert precision.tf32(single=False)


def test_products_that_may_be_coarser_than_the_layers() -> None:
    to("rnn", "ieee")
    to("matmul", "tf32")
    with rnn_precision(X):
        assert of("matmul") == "ieee"
    assert of("matmul") == "tf32"


@pytest.mark.parametrize("value", ["tf32", "ieee"])
def test_nothing_is_turned_where_both_agree(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    to("rnn", value)
    to("matmul", value)
    monkeypatch.setattr(precision, "_set", None)
    with rnn_precision(X):
        pass


def test_nothing_is_turned_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other dtypes; a single step, which may be LSTMCell's; and where cuDNN is disabled."""
    monkeypatch.setattr(precision, "_set", None)
    for x in (X.double(), X.half(), X[:1]):
        with rnn_precision(x):
            pass
    monkeypatch.setattr(precision, "cudnn_enabled", lambda: False)
    with rnn_precision(X):
        pass


def test_packed_rows_are_no_single_step() -> None:
    with rnn_precision(X[0, :1]):
        assert of("matmul") == "tf32"


def test_what_was_inherited_is_inherited_again() -> None:
    to("all", "ieee", "generic")
    assert of("matmul") == "ieee"
    with rnn_precision(X):
        assert of("matmul") == "tf32"
    to("all", "tf32", "generic")
    assert of("matmul") == "tf32"


def test_an_error_within_turns_it_back() -> None:
    with pytest.raises(ZeroDivisionError), rnn_precision(X):
        _ = 1 / 0
    assert of("matmul") == "none"


def test_the_last_of_several_threads_turns_it_back() -> None:
    inside, leave, seen = threading.Event(), threading.Event(), []

    def other() -> None:
        with rnn_precision(X):
            inside.set()
            leave.wait(10)
            seen.append(of("matmul"))

    thread = threading.Thread(target=other)
    with rnn_precision(X):
        thread.start()
        assert inside.wait(10)
    assert of("matmul") == "tf32"
    leave.set()
    thread.join()
    assert seen == ["tf32"]
    assert of("matmul") == "none"


@pytest.mark.parametrize("cell", list(Cell))
def test_all_products_of_a_layer_are_within(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The input's, the loop's, and those of the gradients."""
    seen: list[tuple[str, str]] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            name = func.overloadpacket.__name__
            if name in ("mm", "addmm", "bmm", "recurrence", "recurrence_backward"):
                seen.append((name, of("matmul")))
            return func(*args, **(kwargs or {}))

    forward = whole_layer(cell, dtype=torch.float32)
    with Watch():
        saved: list[Tensor] = list(layer_cuda.layer(**forward, save=True))
        args = whole_layer_backward(forward, saved, all_wanted(forward))
        layer_cuda.layer_backward(**args)
    assert {name for name, _ in seen} >= {"recurrence", "recurrence_backward", "mm"}
    assert {value for _, value in seen} == {"tf32"}
    assert of("matmul") == "none"
