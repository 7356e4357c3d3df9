"""torch's own samples of recurrent modules, and what else a module must be able to do."""

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from recurrence_cases import (
    CELLS,
    KINDS,
    assert_close,
    assert_equal,
    call,
    leaves,
    numbers,
    twins,
)
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.testing._internal.common_modules import ModuleErrorEnum, ModuleInfo, module_db

import fastseq

pytestmark = pytest.mark.usefixtures("one_thread")
INFOS = {i.module_cls.__name__: i for i in module_db if i.module_cls.__name__ in KINDS + CELLS}
each_info = pytest.mark.parametrize("info", INFOS.values(), ids=INFOS.keys())
each_kind = pytest.mark.parametrize("kind", KINDS)


def our(info: ModuleInfo) -> type[nn.Module]:
    return getattr(fastseq, info.module_cls.__name__)


def samples(info: ModuleInfo, dtype: torch.dtype, training: bool) -> Any:
    torch.manual_seed(3)
    return info.module_inputs_func(
        info, device="cpu", dtype=dtype, requires_grad=True, training=training
    )


def test_every_module_has_samples() -> None:
    assert sorted(INFOS) == sorted(KINDS + CELLS)


@each_info
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_samples(info: ModuleInfo, dtype: torch.dtype, training: bool) -> None:
    count = 0
    for sample in samples(info, dtype, training):
        made = sample.constructor_input
        name = info.module_cls.__name__
        ours, native = twins(name, *made.args, dtype=dtype, **made.kwargs)
        ours.train(training)
        native.train(training)
        args = sample.forward_input.args
        assert_close(call(ours, *args), call(native, *args), 2e-5)
        expected = sample.reference_fn(ours, *args)
        for a, b in zip(leaves(ours(*args)), leaves(expected), strict=True):
            torch.testing.assert_close(a, b)
        count += 1
    assert count >= 2


@each_info
def test_error_samples(info: ModuleInfo) -> None:
    found = info.module_error_inputs_func(
        info, device="cpu", dtype=torch.float32, requires_grad=False, training=True
    )
    assert len(found) >= 4
    for sample in found:
        made = sample.module_error_input.constructor_input
        if sample.error_on == ModuleErrorEnum.CONSTRUCTION_ERROR:
            with pytest.raises(sample.error_type, match=sample.error_regex):
                our(info)(*made.args, **made.kwargs)
            continue
        module = our(info)(*made.args, **made.kwargs)
        args = sample.module_error_input.forward_input.args
        with pytest.raises(sample.error_type, match=sample.error_regex):
            module(*args)


@each_info
def test_bases(info: ModuleInfo) -> None:
    assert isinstance(our(info)(3, 4), info.module_cls)


@each_kind
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 2, "bias": False, "batch_first": True, "dropout": 0.5},
        {"bidirectional": True},
        {"proj_size": 2},
        {"nonlinearity": "relu"},
    ],
    ids=str,
)
def test_repr_and_parameters(kind: str, options: dict[str, Any]) -> None:
    if ("proj_size" in options and kind != "LSTM") or ("nonlinearity" in options and kind != "RNN"):
        return
    ours, native = twins(kind, 3, 4, **options)
    assert repr(ours) == repr(native)
    assert ours.extra_repr() == native.extra_repr()
    assert ours.mode == native.mode
    mine, theirs = dict(ours.named_parameters()), dict(native.named_parameters())
    assert_equal(mine, theirs)
    assert_equal(dict(ours.state_dict()), dict(native.state_dict()))
    flat = [p for layer in ours.all_weights for p in layer]
    expected = [p for layer in native.all_weights for p in layer]
    assert [len(layer) for layer in ours.all_weights] == [len(g) for g in native.all_weights]
    assert all(torch.equal(a, b) for a, b in zip(flat, expected, strict=True))
    assert ours.flatten_parameters() is None


@pytest.mark.parametrize("kind", CELLS)
def test_cell_repr(kind: str) -> None:
    for options in ({}, {"bias": False}):
        ours, native = twins(kind, 3, 4, **options)
        assert repr(ours) == repr(native)
        assert_equal(dict(ours.state_dict()), dict(native.state_dict()))
    if kind == "RNNCell":
        assert repr(fastseq.RNNCell(3, 4, nonlinearity="relu")) == repr(
            nn.RNNCell(3, 4, nonlinearity="relu")
        )


@each_kind
@pytest.mark.parametrize("way", ["ours to native", "native to ours"])
def test_state_dict_both_ways(kind: str, way: str) -> None:
    ours, _ = twins(kind, 3, 4, num_layers=2, bidirectional=True, seed=1)
    _, native = twins(kind, 3, 4, num_layers=2, bidirectional=True, seed=2)
    source, target = (ours, native) if way == "ours to native" else (native, ours)
    file = io.BytesIO()
    torch.save(source.state_dict(), file)
    file.seek(0)
    assert str(target.load_state_dict(torch.load(file))) == "<All keys matched successfully>"
    assert_close(call(ours, numbers(5, 2, 3)), call(native, numbers(5, 2, 3)), 2e-5)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),
    "double and back": lambda m: copy.deepcopy(m).double().float(),
}


@pytest.mark.parametrize("kind", KINDS + CELLS)
@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES.keys())
def test_copies_compute_the_same_apart(kind: str, copied: Any) -> None:
    module = getattr(fastseq, kind)(3, 4)
    x = numbers(2, 3) if kind in CELLS else numbers(5, 2, 3)
    before = call(module, x)
    other = copied(module)
    assert type(other) is type(module)
    assert_equal(call(other, x), before)
    with torch.no_grad():
        next(other.parameters()).zero_()
    assert_equal(call(module, x), before)
    assert not torch.equal(call(other, x)["output 0"], before["output 0"])


@each_kind
def test_parametrized_weights_train(kind: str) -> None:
    module = getattr(fastseq, kind)(3, 4)
    parametrizations.weight_norm(module, "weight_hh_l0")
    scale = module.parametrizations.weight_hh_l0.original0
    x = numbers(5, 2, 3)
    before = module(x)[0]
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    module(x)[0].square().sum().backward()
    assert scale.grad.abs().max() > 0
    optimizer.step()
    assert not torch.allclose(module(x)[0], before)
    parametrize.remove_parametrizations(module, "weight_hh_l0")
    native = getattr(nn, kind)(3, 4)
    native.load_state_dict(module.state_dict())
    torch.testing.assert_close(module(x)[0], native(x)[0])


@each_kind
def test_pruned_weights_are_used(kind: str) -> None:
    module = getattr(fastseq, kind)(3, 4)
    before = module(numbers(5, 2, 3))[0]
    prune.l1_unstructured(module, "weight_hh_l0", amount=0.5)
    assert not torch.equal(module(numbers(5, 2, 3))[0], before)


@each_kind
def test_functional_call_and_replaced_parameters(kind: str) -> None:
    ours, native = twins(kind, 3, 4)
    x = numbers(5, 2, 3)
    weights = {n: 0.5 * p for n, p in native.named_parameters()}
    mine = torch.func.functional_call(ours, weights, (x,))
    with torch.no_grad():
        for p in native.parameters():
            p.mul_(0.5)
    torch.testing.assert_close(mine, native(x))


@each_kind
def test_autocast(kind: str) -> None:
    ours, native = twins(kind, 3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        out = ours(numbers(5, 2, 3))[0]
    expected = native(numbers(5, 2, 3))[0]  # oneDNN's LSTM has no bfloat16 on some CPUs
    assert (
        out.dtype == torch.bfloat16
    )  # as under CUDA's autocast; on the CPU native GRU gives float32
    torch.testing.assert_close(out.float(), expected.float(), rtol=0, atol=0.05)
