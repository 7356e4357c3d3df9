"""What the recurrent modules do beyond torch.nn's: each against pieces that torch.nn can do."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from recurrence_cases import KINDS, leaves, numbers, states, twins
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import fastseq
import fastseq.functional.stack as recurrence

T, B, I, H = 6, 5, 3, 7  # noqa: E741
LENGTHS = torch.tensor([3, 6, 0, 5, 1])
SHAPES = [
    {},
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
    {"num_layers": 2, "bias": False},
]
each_shape = pytest.mark.parametrize("options", SHAPES, ids=["plain", "deep", "no bias"])
each_kind = pytest.mark.parametrize("kind", KINDS)


def made(kind: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return getattr(fastseq, kind)(I, H, dtype=torch.float64, **options)


def laid_out(x: Tensor, options: dict[str, Any]) -> Tensor:
    return x.transpose(0, 1) if options.get("batch_first") else x


def gradients(module: nn.Module, call: Callable[[], Any], *inputs: Tensor) -> list[Tensor]:
    """Of a weighted sum of all outputs, to the inputs and all parameters."""
    outputs = leaves(call())
    loss = sum((o * numbers(*o.shape, seed=9 + i, dtype=o.dtype)).sum()
               for i, o in enumerate(outputs))  # fmt: skip
    found = torch.autograd.grad(loss, [*inputs, *module.parameters()])
    return [*(o.detach() for o in outputs), *found]


@each_kind
@each_shape
def test_lengths_are_a_packed_sequences(kind: str, options: dict[str, Any]) -> None:
    """Against torch.nn on packed rows; a row of length zero keeps its first state and gives 0."""
    ours, native = twins(kind, I, H, dtype=torch.float64, **options)
    x = numbers(T, B, I, dtype=torch.float64).requires_grad_()
    hx = states(ours, B)
    some = LENGTHS > 0

    def packed() -> Any:
        rows = laid_out(x, options)
        rows = rows[some] if options.get("batch_first") else rows[:, some]
        h = tuple(s[:, some] for s in hx) if kind == "LSTM" else hx[:, some]
        first = options.get("batch_first", False)
        y, h_n = native(
            pack_padded_sequence(rows, LENGTHS[some], batch_first=first, enforce_sorted=False), h
        )
        y = pad_packed_sequence(y, batch_first=first, total_length=T)[0]
        at = some.nonzero().flatten()
        shape = list(y.shape)
        shape[0 if first else 1] = B
        whole = y.new_zeros(shape).index_copy(0 if first else 1, at, y)
        finals = [s.index_copy(1, at, n) for s, n in zip(leaves(hx), leaves(h_n), strict=True)]
        return whole, finals

    actual = gradients(ours, lambda: ours(laid_out(x, options), hx, lengths=LENGTHS), x)
    expected = gradients(native, packed, x)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e)


@each_kind
def test_lengths_of_any_integer_type_and_full(kind: str) -> None:
    module, x = made(kind), numbers(T, B, I, dtype=torch.float64)
    for lengths in (LENGTHS.int(), LENGTHS.to(torch.uint8), LENGTHS.tolist()):
        assert torch.equal(module(x, lengths=lengths)[0], module(x, lengths=LENGTHS)[0])
    whole = torch.full((B,), T)
    assert torch.equal(module(x, lengths=whole)[0], module(x)[0])
    unbatched = module(x[:, 0], lengths=torch.tensor(4))[0]
    assert torch.equal(unbatched, module(x[:, :1], lengths=torch.tensor([4]))[0][:, 0])


@each_kind
def test_no_rows_and_no_steps_of_any_row(kind: str) -> None:
    module = made(kind, bidirectional=True, layer_norm=True)
    none = module(torch.empty(5, 0, I).double(), lengths=torch.empty(0, dtype=torch.int64))[0]
    assert none.shape == (5, 0, 2 * H)
    y, h_n = module(numbers(T, B, I).double().requires_grad_(), lengths=torch.zeros(B).long())
    y.sum().backward()
    assert not y.any()
    assert not any(h.any() for h in leaves(h_n))


def test_what_lies_beyond_a_length_does_not_matter() -> None:
    module, x = made("LSTM", bidirectional=True), numbers(T, B, I, dtype=torch.float64)
    spoilt = x.clone()
    for row, length in enumerate(LENGTHS.tolist()):
        spoilt[length:, row] = torch.nan
    assert torch.equal(module(spoilt, lengths=LENGTHS)[0], module(x, lengths=LENGTHS)[0])


def pieces(module: Any, x: Tensor, hx: Any, marks: list[int], state: Any, reverse: bool) -> Any:
    """One layer and direction of one row, run apart at the marks: outputs, and final states."""
    cuts = [0, *(m for m in marks if m > 0), len(x)]
    spans = list(pairwise(cuts))
    outputs = []
    if 0 in marks and not reverse:
        hx = state
    for first, last in reversed(spans) if reverse else spans:
        part = x[first:last].flip(0) if reverse else x[first:last]
        y, h_n = module(part, hx)
        outputs.append(y.flip(0) if reverse else y)
        hx = state
    return torch.cat(outputs[::-1] if reverse else outputs), h_n


def one_layer(native: Any, layer: int, suffix: str, size: int) -> Any:
    """torch.nn's module of a layer in one direction, with its weights, run forwards."""
    single = type(native)(size, H, dtype=torch.float64, bias=native.bias)
    weights = {n: getattr(native, n.replace("_l0", f"_l{layer}{suffix}"))
               for n, _ in single.named_parameters()}  # fmt: skip
    return lambda x, hx: torch.func.functional_call(single, weights, (x, hx))


@each_kind
@each_shape
@pytest.mark.parametrize("learned", [False, True])
def test_resets_are_the_pieces_run_apart(kind: str, options: dict[str, Any], learned: bool) -> None:
    """Every layer and direction, marks at step 0 and in a row, zeros or a learned state."""
    ours, native = twins(kind, I, H, dtype=torch.float64, **options)
    x = numbers(T, B, I, dtype=torch.float64).requires_grad_()
    marks = torch.zeros(T, B, dtype=torch.bool)
    marks[0, 0] = marks[3, 0] = marks[2, 1] = marks[5, 2] = marks[1:4, 3] = True
    hx = states(ours, B)
    by = [s.requires_grad_() for s in leaves(states(ours, B, seed=5))]
    state = (tuple(by) if kind == "LSTM" else by[0]) if learned else None
    directions = 2 if options.get("bidirectional") else 1

    def apart() -> Any:
        rows, finals = [], []
        for b in range(B):
            out = x[:, b : b + 1]
            ends = []
            for layer in range(options.get("num_layers", 1)):
                made = []
                for d in range(directions):
                    i = layer * directions + d
                    cut = [s[i : i + 1, b : b + 1] for s in leaves(hx)]
                    other = [s[i : i + 1, b : b + 1] * (1.0 if learned else 0.0) for s in by]
                    wrap = tuple if kind == "LSTM" else lambda parts: parts[0]
                    run = one_layer(native, layer, "_reverse" * d, out.shape[-1])
                    at = marks[:, b].nonzero().flatten().tolist()
                    y, h = pieces(run, out, wrap(cut), at, wrap(other), d == 1)
                    made.append(y)
                    ends.append(leaves(h))
                out = torch.cat(made, -1)
            rows.append(out)
            finals.append([torch.cat(parts) for parts in zip(*ends, strict=True)])
        whole = [torch.cat(parts, 1) for parts in zip(*finals, strict=True)]
        return laid_out(torch.cat(rows, 1), options), whole

    def together() -> Any:
        reset = laid_out(marks, options)
        return ours(laid_out(x, options), hx, reset=reset, reset_state=state)

    extra = by if learned else []
    actual = gradients(ours, together, x, *extra)
    expected = gradients(native, apart, x, *extra)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e)


@each_kind
def test_layer_norm_by_its_formula(kind: str) -> None:
    """A sequence written out with F.layer_norm, as Ba, Kiros & Hinton have it."""
    module = made(kind, layer_norm=True)
    p = dict(module.named_parameters())
    with torch.no_grad():
        for name, value in p.items():
            if "norm" in name:
                value += 0.3 * numbers(*value.shape, seed=len(name), dtype=torch.float64)
    x = numbers(T, B, I, dtype=torch.float64)
    width = (p["weight_hh_l0"].shape[0],)
    h, c = torch.zeros(2, B, H, dtype=torch.float64)
    for t in range(T):
        w_x = F.layer_norm(x[t] @ p["weight_ih_l0"].t(), width, p["norm_ih_l0"])
        w_h = F.layer_norm(h @ p["weight_hh_l0"].t(), width, p["norm_hh_l0"])
        w_x, w_h = w_x + p["bias_ih_l0"], w_h + p["bias_hh_l0"]
        if kind == "LSTM":
            i, f, g, o = (w_x + w_h).chunk(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            inner = F.layer_norm(c, (H,), p["norm_c_l0"], p["norm_c_bias_l0"])
            h = o.sigmoid() * inner.tanh()
        elif kind == "GRU":
            (x_r, x_z, x_n), (h_r, h_z, h_n) = w_x.chunk(3, -1), w_h.chunk(3, -1)
            z = (x_z + h_z).sigmoid()
            h = (1 - z) * (x_n + (x_r + h_r).sigmoid() * h_n).tanh() + z * h
        else:
            h = (w_x + w_h).tanh()
    torch.testing.assert_close(leaves(module(x)[1])[0][0], h)


@each_kind
@pytest.mark.parametrize(
    "options",
    [{"recurrent_dropout": 0.4}, {"zoneout": 0.3}, {"weight_dropout": 0.5}, {"layer_norm": True}],
    ids=lambda options: next(iter(options)),
)
def test_regularisers(kind: str, options: dict[str, Any]) -> None:
    """Repeatable by the seed; and they train. Those that draw are inactive in evaluation."""
    module = made(kind, num_layers=2, bidirectional=True, **options)
    x = numbers(T, B, I, dtype=torch.float64)
    assert str(next(iter(options))) in repr(module)

    def run(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return leaves(module(x))[0]

    assert torch.equal(run(1), run(1))
    draws = "layer_norm" not in options
    assert torch.equal(run(1), run(2)) != draws
    plain = made(kind, num_layers=2, bidirectional=True).eval()
    assert torch.equal(module.eval()(x)[0], plain(x)[0] if draws else run(1))
    assert torch.equal(module(x)[0], plain(x)[0]) == draws
    module.train()
    run(3).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


@each_kind
def test_zoneout_keeps_units(kind: str) -> None:
    """A share p of h, and of c where it is asked for, stays from step to step."""
    torch.manual_seed(0)
    x = numbers(200, 40, I, dtype=torch.float64)

    def kept(y: Tensor) -> float:
        return (y[1:] == y[:-1]).double().mean().item()

    assert abs(kept(made(kind, zoneout=0.3)(x)[0]) - 0.3) < 0.02
    if kind == "LSTM":
        module = made(kind, zoneout=(0.0, 0.5), return_cell_states=True)
        assert "(0.0, 0.5)" in repr(module)
        y, _, c = module(x)
        assert kept(y[20:]) == 0.0  # by then no c is left that has never changed
        assert abs(kept(c) - 0.5) < 0.02


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_recurrent_dropout_is_one_mask_for_all_steps(kind: str) -> None:
    """Against torch.nn's cell, whose h passes through W_hh alone, with the mask drawn again."""
    module, x = made(kind, recurrent_dropout=0.5), numbers(T, B, I, dtype=torch.float64)
    cell = getattr(nn, f"{kind}Cell")(I, H, dtype=torch.float64)
    cell.load_state_dict({n.removesuffix("_l0"): p for n, p in module.state_dict().items()})
    torch.manual_seed(4)
    y = module(x)[0]
    torch.manual_seed(4)
    mask = F.dropout(torch.ones(B, H, dtype=torch.float64), 0.5)
    h, c = torch.zeros(2, B, H, dtype=torch.float64)
    for t in range(T):
        if kind == "LSTM":
            h, c = cell(x[t], (h * mask, c))
        else:
            h = cell(x[t], h * mask)
        torch.testing.assert_close(y[t], h)


@each_shape
def test_cell_states(options: dict[str, Any]) -> None:
    """Of all steps, with gradients; the last is c_n."""
    module = made("LSTM", return_cell_states=True, **options)
    plain = made("LSTM", **options)
    x = numbers(T, B, I, dtype=torch.float64)
    y, (_, c_n), cells = module(laid_out(x, options))
    assert torch.equal(y, plain(laid_out(x, options))[0])
    steps = laid_out(cells, options)
    torch.testing.assert_close(steps[-1, :, :H], c_n[-2 if "bidirectional" in options else -1])
    with torch.no_grad():
        assert torch.equal(module(laid_out(x, options))[2], cells)

    def loss(x: Tensor) -> Tensor:
        return module(laid_out(x, options))[2].sin().sum()

    assert torch.autograd.gradcheck(loss, x.requires_grad_(), fast_mode=True)
    packed = pack_padded_sequence(x.detach(), torch.tensor([6, 5, 5, 2, 1]))
    assert module(packed)[2].data.shape[0] == 19


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_recompute_saves_memory_and_nothing_else(kind: str) -> None:
    """The same numbers with less than 60 % of the bytes kept for backward."""
    x = numbers(20, 8, 16).requires_grad_()
    kept, found = [], []
    for recompute in (False, True):
        torch.manual_seed(0)
        module = getattr(fastseq, kind)(16, 16, num_layers=3, recompute=recompute)
        seen: dict[int, int] = {}

        def pack(t: Tensor, seen: dict[int, int] = seen) -> Tensor:
            seen[t.data_ptr()] = t.untyped_storage().nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            y = module(x)[0]
        weights = {p.data_ptr() for p in module.parameters()} | {x.data_ptr()}
        kept.append(sum(n for at, n in seen.items() if at not in weights))
        found.append([y, *torch.autograd.grad(y.sin().sum(), [x, *module.parameters()])])
    assert kept[1] < 0.6 * kept[0]
    for plain, again in zip(*found, strict=True):
        assert torch.equal(plain, again)


@each_kind
def test_without_kernels_the_reference_runs(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU runs: the same numbers without kernels, and nothing waits for a value."""
    module = made(kind, layer_norm=True, num_layers=2, bidirectional=True)
    x = numbers(T, B, I, dtype=torch.float64).requires_grad_()
    reset = torch.rand(T, B, generator=torch.Generator().manual_seed(0)) < 0.3
    options = {"lengths": LENGTHS, "reset": reset}
    expected = gradients(module, lambda: module(x, **options), x)
    monkeypatch.setattr(recurrence, "KERNEL_DEVICES", frozenset())
    for a, e in zip(gradients(module, lambda: module(x, **options), x), expected, strict=True):
        torch.testing.assert_close(a, e)
    for name in ("item", "tolist", "__bool__", "__int__", "__index__", "nonzero"):

        def refuse(*_: Any, name: str = name) -> Any:
            raise AssertionError(f"waits for a device: {name}")

        monkeypatch.setattr(Tensor, name, refuse)
    module(x, **options)


WRONG: list[tuple[dict[str, Any], dict[str, Any], type[Exception], str]] = [
    ({}, {"lengths": torch.tensor([1.0] * B)}, TypeError, "integers"),
    ({}, {"lengths": torch.tensor([1] * (B + 1))}, ValueError, r"shape \(5,\)"),
    ({}, {"lengths": torch.tensor([T + 1] * B)}, RuntimeError, "between 0 and the 6 steps"),
    ({}, {"lengths": torch.tensor([-1] * B)}, RuntimeError, "got -1 for row 0"),
    ({}, {"reset": torch.zeros(T, B)}, TypeError, "bool"),
    ({}, {"reset": torch.zeros(B, T, dtype=torch.bool)}, ValueError, r"shape \(6, 5\)"),
    ({}, {"reset_state": torch.zeros(1, B, H).double()}, ValueError, "without reset"),
    ({}, {"reset": torch.zeros(T, B) > 0, "reset_state": (torch.zeros(1),)}, TypeError, "a tensor"),
    ({"recurrent_dropout": 1.0}, {}, ValueError, "less than 1, got 1.0"),
    ({"weight_dropout": -0.1}, {}, ValueError, "weight_dropout"),
    ({"zoneout": "much"}, {}, ValueError, "zoneout"),
    ({"zoneout": (0.1, 0.2)}, {}, ValueError, "one number"),
    ({"return_cell_states": True}, {}, ValueError, "no cell states"),
]


@pytest.mark.parametrize(("options", "call", "kind", "words"), WRONG)
def test_mistakes(
    options: dict[str, Any], call: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        made("GRU", **options)(numbers(T, B, I, dtype=torch.float64), **call)


def test_mistakes_with_packed_rows() -> None:
    packed = pack_padded_sequence(numbers(T, 2, I, dtype=torch.float64), torch.tensor([6, 2]))
    for name, value in (("lengths", torch.tensor([6, 2])), ("reset", torch.ones(T, 2) > 0)):
        with pytest.raises(ValueError, match=f"{name} was passed with a PackedSequence"):
            made("LSTM")(packed, **{name: value})
    module = made("LSTM", zoneout=0.5, recurrent_dropout=0.5, layer_norm=True)
    assert module(packed)[0].data.isfinite().all()
