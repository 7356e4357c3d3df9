"""Code that was written for torch.nn's modules, unchanged, on fastseq's: the same, or as loud."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from recurrence_cases import CELLS, KINDS, leaves, numbers, twins
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

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


# ---- results are the caller's own


@each_kind
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=["", "2x2"])
def test_truncated_back_propagation(kind: str, options: dict[str, Any]) -> None:
    """``h.detach_()`` between pieces of a sequence."""

    def run(module: Any) -> Tensor:
        h, losses = None, []
        for piece in numbers(4, T, B, I):
            y, h = module(piece, h)
            loss = y.square().mean()
            loss.backward()
            losses.append(loss.detach())
            for state in leaves(h):
                state.detach_()
        return torch.stack(losses)

    assert_same(kind, run, **options)


WRITES: dict[str, Callable[[Tensor], Any]] = {
    "mul_": lambda y: y.mul_(2),
    "assignment": lambda y: y.__setitem__(-1, 0.0),
    "relu_": torch.relu_,
    "dropout": lambda y: nn.functional.dropout(y, 0.5, inplace=True),
    "transpose_": lambda y: y.transpose_(0, 1),
    "detach_": lambda y: y[0].sum().backward(retain_graph=True) or y.detach_().requires_grad_(),
}


@pytest.mark.parametrize("kind", ["GRU", "RNN"])
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("batch_first", [False, True])
def test_outputs_may_be_written_to(kind: str, write: str, batch_first: bool) -> None:
    def run(module: Any) -> Tensor:
        y, h = module(numbers(T, B, I))
        WRITES[write](y)
        (y.square().sum() + h.sum()).backward()
        return y.detach()

    assert_same(kind, run, batch_first=batch_first)


@pytest.mark.parametrize("write", [w for w in WRITES if w != "detach_"])
def test_lstm_outputs_may_be_written_to(write: str) -> None:
    """torch.nn.LSTM's cannot on the CPU; so against writing to a copy."""
    lstm = fastseq.LSTM(I, H)
    found = []
    for own in (lambda y: y, torch.clone):
        lstm.zero_grad()
        torch.manual_seed(1)
        y = own(lstm(numbers(T, B, I))[0])
        WRITES[write](y)
        y.square().sum().backward()
        found.append([p.grad for p in lstm.parameters()])
    torch.testing.assert_close(*found, rtol=0, atol=0)


@each_kind
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"num_layers": 2}], ids=str)
def test_inputs_may_be_written_to_after_a_batch_first_call(
    kind: str, options: dict[str, Any]
) -> None:
    def run(module: Any) -> Tensor:
        x = numbers(B, T, I)
        y, _ = module(x)
        x.add_(1)
        y.square().sum().backward()
        return y.detach()

    assert_same(kind, run, batch_first=True, **options)


@each_kind
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_results_are_no_views(kind: str, grad: bool, batch_first: bool) -> None:
    with torch.set_grad_enabled(grad):
        y, h = getattr(fastseq, kind)(I, H, batch_first=batch_first)(numbers(T, B, I))
        for t in leaves((y, h)):
            assert not t._is_view()
            t.detach_()


def test_writing_to_an_output_costs_its_memory_only_then() -> None:
    y = fastseq.GRU(I, H)(numbers(T, B, I))[0]
    assert torch._C._is_cow_tensor(y)  # shared with what backward needs
    y.add_(1)
    assert not torch._C._is_cow_tensor(y)


# ---- what a module is


@each_kind
def test_isinstance(kind: str) -> None:
    ours = getattr(fastseq, kind)(I, H)
    assert isinstance(ours, getattr(nn, kind))
    others = [getattr(nn, other) for other in KINDS if other != kind]
    assert not isinstance(ours, tuple(others))
    model = nn.Sequential(getattr(nn, kind)(I, H))
    fastseq.swap(model)
    assert type(model[0]) is getattr(fastseq, kind)
    assert isinstance(model[0], getattr(nn, kind))


@each_kind
@pytest.mark.parametrize("own", [True, False], ids=["ours", "native"])
def test_the_compiler_takes_ours_and_leaves_others_as_they_were(kind: str, own: bool) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = getattr(fastseq if own else nn, kind)(I, H)

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x)[0]
            return y + 1 if isinstance(self.layer, getattr(nn, kind)) else y

    torch._dynamo.reset()
    before = torch._dynamo.config.allow_rnn
    model, x = Model(), numbers(T, B, I)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    if own or before:
        torch.testing.assert_close(compiled(x), model(x))
        torch.testing.assert_close(compiled(numbers(T + 1, B, I)), model(numbers(T + 1, B, I)))
    else:
        with pytest.raises(torch._dynamo.exc.Unsupported, match=r"RNN, GRU, or LSTM|allow_rnn"):
            compiled(x)
    assert torch._dynamo.config.allow_rnn == before


@each_kind
def test_copies_and_pickles_are_the_same_class(kind: str) -> None:
    ours, x = getattr(fastseq, kind)(I, H), numbers(T, B, I)
    buffer = io.BytesIO()
    torch.save(ours, buffer)
    buffer.seek(0)
    for again in (
        copy.copy(ours),
        copy.deepcopy(ours),
        pickle.loads(pickle.dumps(ours)),
        torch.load(buffer, weights_only=False),
    ):
        assert type(again) is type(ours)
        torch.testing.assert_close(again(x), ours(x), rtol=0, atol=0)


OPTIONS = [
    ("zoneout", 0.5),
    ("recurrent_dropout", 0.5),
    ("weight_dropout", 0.5),
    ("recompute", True),
    ("return_cell_states", True),
]


@pytest.mark.parametrize(("option", "value"), OPTIONS, ids=lambda v: str(v))
def test_options_may_be_assigned(option: str, value: Any) -> None:
    """To our modules and to swapped ones; what repr shows is what a call does."""
    torch.manual_seed(0)
    built = fastseq.LSTM(I, H, **{option: value})
    plain = fastseq.LSTM(I, H)
    swapped = nn.LSTM(I, H)
    fastseq.swap(swapped)
    x = numbers(T, B, I)
    for module in (plain, swapped):
        module.load_state_dict(built.state_dict())
        default = getattr(module, option)
        torch.manual_seed(3)
        before = module(x)
        setattr(module, option, value)
        assert repr(module) == repr(built)
        torch.manual_seed(3)
        expected = built(x)
        torch.manual_seed(3)
        torch.testing.assert_close(module(x), expected, rtol=0, atol=0)
        if "dropout" in option or option == "zoneout":
            assert not torch.equal(before[0], expected[0])
        setattr(module, option, default)
        torch.testing.assert_close(module(x), before, rtol=0, atol=0)
        assert module._plain


@pytest.mark.parametrize(
    ("kind", "option", "value", "error"),
    [
        ("LSTM", "zoneout", 1.5, ValueError),
        ("LSTM", "zoneout", (0.1, 0.2, 0.3), ValueError),
        ("GRU", "zoneout", (0.1, 0.2), ValueError),
        ("GRU", "recurrent_dropout", "half", ValueError),
        ("GRU", "return_cell_states", True, ValueError),
        ("LSTM", "layer_norm", True, AttributeError),
    ],
)
def test_options_are_checked_when_assigned(
    kind: str, option: str, value: Any, error: type[Exception]
) -> None:
    module = getattr(fastseq, kind)(I, H)
    with pytest.raises(error, match=option):
        setattr(module, option, value)
    assert module._plain


@each_kind
def test_assigned_flat_weights_are_read(kind: str) -> None:
    """As older weight-drop code does; until the module is moved, as with torch.nn's."""

    def run(module: Any) -> list[Tensor]:
        x = numbers(T, B, I)
        weights = [0.5 * p.detach() for p in module._flat_weights]
        module._flat_weights = weights
        first = module(x)[0].detach()
        module.weight_hh_l0 = nn.Parameter(torch.zeros_like(module.weight_hh_l0))
        second = module(x)[0].detach()
        module.double().float()
        return [first, second, module(x)[0].detach()]

    assert_same(kind, run)


@each_kind
def test_assigned_flat_weights_are_forgotten_when_the_module_moves(kind: str) -> None:
    """So that whatever takes the parameters' places is read again."""
    module, other = (getattr(fastseq, kind)(I, H) for _ in range(2))
    module._flat_weights = [0.5 * p.detach() for p in module._flat_weights]
    module.double().float()
    weights, x = dict(other.named_parameters()), numbers(T, B, I)
    torch.testing.assert_close(torch.func.functional_call(module, weights, (x,)), other(x))


@each_kind
def test_replicas_read_their_own_weights(kind: str) -> None:
    """What DataParallel does to a module on its way to a device."""
    module, x = getattr(fastseq, kind)(I, H), numbers(T, B, I)
    replica = module._replicate_for_data_parallel()
    for name, p in module.named_parameters():
        setattr(replica, name, 2 * p)
    doubled = copy.deepcopy(module)
    with torch.no_grad():
        for p in doubled.parameters():
            p.mul_(2)
    torch.testing.assert_close(replica(x), doubled(x))


@each_kind
def test_flops_are_counted(kind: str) -> None:
    """Products alone, as of torch.nn's own layers."""
    ours, native = twins(kind, I, H)
    counts = []
    for module in (native, ours):
        with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
            module(numbers(T, B, I))
        counts.append(counter.get_total_flops())
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    assert counts == [2 * T * B * gates * H * (I + H)] * 2
    with FlopCounterMode(display=False) as counter:
        ours(numbers(T, B, I).requires_grad_())[0].sum().backward()
    # Backward makes the gradients of both factors of both products.
    assert counter.get_total_flops() == 3 * counts[0]
