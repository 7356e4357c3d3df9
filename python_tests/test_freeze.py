"""``fastseq.freeze``: packed weights, the same bits, and nobody writes to them unnoticed."""

from __future__ import annotations

import copy
import io
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.flop_counter import FlopCounterMode

import fastseq
from fastseq import ops
from fastseq.ops import Cell

KINDS: dict[str, Callable[..., Any]] = {
    "LSTM": fastseq.LSTM,
    "GRU": fastseq.GRU,
    "RNN_TANH": fastseq.RNN,
    "RNN_RELU": lambda *a, **k: fastseq.RNN(*a, nonlinearity="relu", **k),
}
CASES: list[dict[str, Any]] = [
    {},
    {"bias": False},
    {"batch_first": True},
    {"bidirectional": True},
    {"num_layers": 3},
    {"num_layers": 2, "bidirectional": True, "batch_first": True, "dropout": 0.5},
]
PROJECTED: list[dict[str, Any]] = [
    {"proj_size": 3},
    {"proj_size": 5, "num_layers": 2, "bidirectional": True},
]
ALL = [(kind, case) for kind in KINDS for case in CASES] + [("LSTM", c) for c in PROJECTED]


def same(made: Any, wanted: Any) -> None:
    if isinstance(wanted, Tensor):
        assert made.dtype == wanted.dtype
        assert torch.equal(made, wanted)
    elif isinstance(wanted, PackedSequence):
        same(made.data, wanted.data)
        assert torch.equal(made.batch_sizes, wanted.batch_sizes)
        assert (made.sorted_indices is None) == (wanted.sorted_indices is None)
        if wanted.sorted_indices is not None:
            same(made.sorted_indices, wanted.sorted_indices)
            same(made.unsorted_indices, wanted.unsorted_indices)
    else:
        assert len(made) == len(wanted)
        for m, w in zip(made, wanted, strict=True):
            same(m, w)


def state_of(module: Any, batch: int, dtype: torch.dtype) -> Any:
    rows = module.num_layers * (2 if module.bidirectional else 1)
    h = torch.randn(rows, batch, module.proj_size or module.hidden_size, dtype=dtype)
    if module.mode != "LSTM":
        return h
    return h, torch.randn(rows, batch, module.hidden_size, dtype=dtype)


@pytest.mark.parametrize(("kind", "options"), ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_the_same_bits(kind: str, options: dict[str, Any], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    module = KINDS[kind](5, 7, dtype=dtype, **options).eval()
    frozen = fastseq.freeze(module)
    assert isinstance(frozen, type(module))
    for steps, batch in ((1, 1), (4, 1), (3, 6), (2, 13)):
        shape = (batch, steps, 5) if module.batch_first else (steps, batch, 5)
        x, hx = torch.randn(shape, dtype=dtype), state_of(module, batch, dtype)
        with torch.no_grad():
            same(frozen(x), module(x))
            same(frozen(x, hx), module(x, hx))
            strided = torch.randn(*shape[:-1], 9, dtype=dtype)[..., 2:7]
            same(frozen(strided, hx), module(strided, hx))
    ragged = pack_sequence([torch.randn(n, 5, dtype=dtype) for n in (2, 5, 1)], False)
    hx = state_of(module, 3, dtype)
    with torch.inference_mode():
        same(frozen(ragged), module(ragged))
        same(frozen(ragged, hx), module(ragged, hx))
        same(frozen(torch.ones(4, 5, dtype=dtype)), module(torch.ones(4, 5, dtype=dtype)))


@pytest.mark.parametrize("kind", KINDS)
def test_packed_weights_are_what_runs(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the way that an ordinary module takes, the results are still there."""
    frozen = fastseq.freeze(KINDS[kind](5, 70, num_layers=2, bidirectional=True))
    x = torch.randn(6, 2, 5)
    ragged = pack_sequence([x[:, 0], x[:4, 1]])
    with torch.no_grad():
        wanted = frozen(x), frozen(ragged)
        monkeypatch.delattr(fastseq.LSTM.__mro__[1], "_run")
        same((frozen(x), frozen(ragged)), wanted)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_many_threads(threads: int) -> None:
    before = torch.get_num_threads()
    module = fastseq.LSTM(40, 130, num_layers=2).eval()
    frozen = fastseq.freeze(module)
    x, one = torch.randn(9, 33, 40), torch.randn(20, 1, 40)
    try:
        torch.set_num_threads(threads)
        with torch.no_grad():
            same(frozen(x), module(x))
            same(frozen(one), module(one))
    finally:
        torch.set_num_threads(before)


def test_called_from_many_threads() -> None:
    frozen = fastseq.freeze(fastseq.GRU(8, 50, num_layers=2))
    xs = [torch.randn(7, 3, 8) for _ in range(6)]
    with torch.no_grad():
        wanted = [frozen(x) for x in xs]
    found: list[bool] = []

    def work(i: int) -> None:
        with torch.no_grad():
            for _ in range(30):
                y, h = frozen(xs[i])
                found.append(torch.equal(y, wanted[i][0]) and torch.equal(h, wanted[i][1]))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [True] * 180


def write_data(m: Any) -> None:
    m.weight_hh_l0.data.mul_(2)


def write_in_no_grad(m: Any) -> None:
    with torch.no_grad():
        m.bias_ih_l0.zero_()


def load(m: Any) -> None:
    m.load_state_dict({k: v + 1 for k, v in m.state_dict().items()})


def require(m: Any) -> None:
    m.weight_ih_l0.requires_grad_(True)


def initialise(m: Any) -> None:
    nn.init.orthogonal_(m.weight_hh_l0)


def write_view(m: Any) -> None:
    m.weight_hh_l0.view(-1)[2:3].fill_(1)


def write_item(m: Any) -> None:
    m.weight_hh_l0.data[0] = 1


def add(m: Any) -> None:
    m.weight_hh_l0.data += 1


def write_out(m: Any) -> None:
    torch.zeros(16, 4, out=m.weight_hh_l0)


def exchange(m: Any) -> None:
    m.weight_hh_l0.data = torch.zeros(16, 4)


WAYS = [write_data, write_in_no_grad, load, require, initialise]
WAYS += [write_view, write_item, add, write_out, exchange]


@pytest.mark.parametrize("write", WAYS)
def test_writing_to_a_weight_raises(write: Callable[[Any], None]) -> None:
    frozen = fastseq.freeze(fastseq.LSTM(3, 4))
    before = frozen.state_dict()
    with pytest.raises(RuntimeError, match="a weight of a frozen module"):
        write(frozen)
    for name, value in frozen.state_dict().items():
        assert type(value) is Tensor
        assert torch.equal(value, before[name])
        assert value.data_ptr() != frozen.state_dict()[name].data_ptr()  # a copy
        value.fill_(7)
        assert torch.equal(frozen.state_dict()[name], before[name])
    assert torch.equal(frozen.weight_hh_l0 * 1, before["weight_hh_l0"])
    assert type(frozen.weight_hh_l0 * 1) is Tensor


def test_assigning_raises() -> None:
    frozen = fastseq.freeze(fastseq.LSTM(3, 4))
    with pytest.raises(AttributeError, match="weight_hh_l0 of a frozen LSTM can't be assigned"):
        frozen.weight_hh_l0 = nn.Parameter(torch.zeros(16, 4))
    with pytest.raises(AttributeError, match="hidden_size of a frozen LSTM"):
        frozen.hidden_size = 5
    frozen.batch_first = True  # the weights do not depend on it
    assert frozen(torch.zeros(2, 5, 3))[0].shape == (2, 5, 4)


def test_training_raises() -> None:
    model = nn.Sequential(fastseq.GRU(3, 4))
    frozen = fastseq.freeze(model)
    assert not frozen.training
    assert model.training
    with pytest.raises(RuntimeError, match="A frozen module can't be trained"):
        frozen.train()
    assert frozen.eval() is frozen
    x = torch.zeros(2, 1, 3, requires_grad=True)
    with pytest.raises(RuntimeError, match="has no derivatives, and one is asked for"):
        frozen(x)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(torch.zeros(2, 1, 3), torch.ones(2, 1, 3))
        arguments = (dual, None, None, frozen[0]._packed, None, 1, 4, 4, 1, 1)
        with pytest.raises(RuntimeError, match="has no derivatives"):
            torch.ops.fastseq.packed_stack(*arguments)
    assert frozen(torch.zeros(2, 1, 3))[0].requires_grad is False  # grad mode alone is no matter


def test_copies_and_pickles_are_frozen_and_packed() -> None:
    frozen = fastseq.freeze(nn.Sequential(fastseq.LSTM(3, 4, num_layers=2)))
    x = torch.randn(5, 2, 3)
    wanted = frozen(x)
    file = io.BytesIO()
    torch.save(frozen, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for made in (copy.deepcopy(frozen), pickle.loads(pickle.dumps(frozen)), loaded):
        same(made(x), wanted)
        assert torch.equal(made[0]._packed, frozen[0]._packed)
        with pytest.raises(RuntimeError, match="a weight of a frozen module"):
            write_data(made[0])
    assert len(pickle.dumps(frozen)) < 1.5 * len(pickle.dumps(nn.Sequential(fastseq.LSTM(3, 4, 2))))


def test_a_model_is_loaded_before_it_is_frozen() -> None:
    a, b = fastseq.GRU(3, 4), fastseq.GRU(3, 4)
    b.load_state_dict(fastseq.freeze(a).state_dict())
    x = torch.randn(5, 2, 3)
    with torch.no_grad():
        same(fastseq.freeze(b)(x), a(x))


def test_moving_packs_anew() -> None:
    module = fastseq.LSTM(3, 4).eval()
    frozen = fastseq.freeze(module)
    x = torch.randn(5, 2, 3)
    for dtype in (torch.float64, torch.bfloat16, torch.float32):
        frozen.to(dtype), module.to(dtype)
        with torch.no_grad():
            same(frozen(x.to(dtype)), module(x.to(dtype)))
        with pytest.raises(RuntimeError, match="a weight of a frozen module"):
            write_data(frozen)
    assert frozen.to("meta")._packed is None


def test_options_run_as_before() -> None:
    module = fastseq.LSTM(3, 4, layer_norm=True, recurrent_dropout=0.5).eval()
    frozen = fastseq.freeze(module)
    assert type(frozen) is fastseq.LSTM
    x, n = torch.randn(5, 2, 3), torch.tensor([2, 5])
    plain = fastseq.LSTM(3, 4).eval()
    served = fastseq.freeze(plain)
    with torch.no_grad():
        same(frozen(x), module(x))
        same(served(x, lengths=n), plain(x, lengths=n))
        with torch.autocast("cpu", torch.bfloat16):
            same(served(x), plain(x))
        same(served.step(x[0])[0], plain.step(x[0])[0])


def test_whole_models() -> None:
    model = nn.ModuleDict({"a": fastseq.LSTM(3, 4), "b": nn.Linear(4, 2), "c": fastseq.GRU(4, 5)})
    model["again"] = model["c"]
    parametrizations.weight_norm(model["a"], "weight_hh_l0")
    frozen = fastseq.freeze(model)
    assert frozen["again"] is frozen["c"]
    x = torch.randn(6, 1, 3)
    with torch.no_grad():
        same(frozen["c"](frozen["a"](x)[0]), model["c"](model["a"](x)[0]))
        frozen["b"].weight.zero_()  # is as it was
    assert type(model["c"]) is fastseq.GRU
    with pytest.raises(TypeError, match=r"given a Linear without a fastseq.LSTM, GRU or RNN; fast"):
        fastseq.freeze(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("call", "native"),
    [
        (lambda m: m(torch.zeros(2, 1, 4)), RuntimeError),
        (lambda m: m(torch.zeros(2, 1, 3, dtype=torch.float64)), ValueError),
        (lambda m: m(torch.zeros(2, 1, 3), (torch.zeros(1, 2, 4),) * 2), RuntimeError),
        (lambda m: m(torch.zeros(2, 1, 3), [torch.zeros(1, 1, n) for n in (4, 5)]), RuntimeError),
        (lambda m: m(torch.zeros(0, 1, 3)), RuntimeError),
        (lambda m: m(torch.zeros(1, 1, 1, 3)), ValueError),
    ],
)  # fmt: skip
def test_mistakes_are_told_as_ever(call: Callable[[Any], Any], native: type[Exception]) -> None:
    module = fastseq.LSTM(3, 4).eval()
    with pytest.raises(native) as wanted:
        call(module)
    with pytest.raises(native) as raised:
        call(fastseq.freeze(module))
    assert str(raised.value) == str(wanted.value)


def packed(**changes: Any) -> Tensor:
    m = fastseq.LSTM(3, 4)
    made = ops.pack_layer(m.weight_ih_l0, m.weight_hh_l0, m.bias_ih_l0, m.bias_hh_l0, None, 0)
    for at, value in changes.items():
        made.view(torch.int32)[int(at[1:])] = value
    return made


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        (lambda: packed()[:20], "those of fewer layers"),
        (lambda: torch.cat([packed(), packed()]), "those of more layers"),
        (lambda: torch.zeros(4096, dtype=torch.uint8), "these bytes are no packed weights"),
        (lambda: packed(_2=99), "packed for the instruction set \\?, and this machine uses"),
        (lambda: packed(_3=1), "the input has another dtype than the packed weights"),
        (lambda: packed(_4=1), "the packed weights are of cell 1, input 3"),
        (lambda: packed(_6=2), "input 2, hidden 4, state 4; expected 0, 3, 4, 4"),
        (lambda: packed().float(), "should be 1-D bytes on the CPU"),
    ],
)
def test_weights_that_do_not_fit(weights: Callable[[], Tensor], sentence: str) -> None:
    with pytest.raises(RuntimeError, match=sentence), torch.no_grad():
        ops.packed_stack(torch.zeros(2, 1, 3), None, None, weights(), None, Cell.LSTM, 4, 4, 1, 1)


def test_the_op_as_tools_see_it() -> None:
    m = fastseq.LSTM(3, 4, 2, bidirectional=True)
    frozen = fastseq.freeze(m)
    x = torch.randn(5, 2, 3)
    args = (x, None, None, frozen._packed, None, 0, 4, 4, 2, 2)
    torch.library.opcheck(torch.ops.fastseq.packed_stack.default, args)
    y = torch.vmap(lambda row: frozen(row.unsqueeze(1))[0].squeeze(1), 1, 1)(x)
    same(y, frozen(x)[0])
    assert "frozen" in repr(frozen)
    assert ", weights packed before, " in fastseq.explain(frozen, x)


@pytest.mark.parametrize(("kind", "options"), ALL)
def test_the_same_work_is_counted(kind: str, options: dict[str, Any]) -> None:
    module = KINDS[kind](5, 7, **options).eval()
    x, counts = torch.randn(4, 3, 5), []
    for served in (module, fastseq.freeze(module)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            served(x)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_compiled_and_exported() -> None:
    frozen = fastseq.freeze(nn.Sequential(fastseq.LSTM(3, 4, num_layers=2, batch_first=True)))
    x = torch.randn(5, 2, 3)
    with torch.no_grad():
        wanted = frozen(x)
        same(torch.compile(frozen, fullgraph=True, backend="aot_eager")(x), wanted)
        program = torch.export.export(frozen, (x,))
        same(program.module()(x), wanted)
    called = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert torch.ops.fastseq.packed_stack.default in called
