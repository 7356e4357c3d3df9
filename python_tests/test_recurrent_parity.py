"""LSTM, GRU and RNN against torch.nn's: constructor options, kinds of input, sizes."""

from typing import Any

import pytest
import torch
from recurrence_cases import KINDS, TOLERANCES, assert_close, call, numbers, packed, states, twins

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no bias": {"bias": False},
    "batch_first": {"batch_first": True},
    "bidirectional": {"bidirectional": True},
    "3 layers": {"num_layers": 3},
    "dropout": {"num_layers": 3, "dropout": 0.4},
    "dropout 1": {"num_layers": 2, "dropout": 1.0},
    "all": {
        "num_layers": 2,
        "bias": False,
        "batch_first": True,
        "dropout": 0.3,
        "bidirectional": True,
    },
}
CASES = [(kind, options) for kind in KINDS for options in OPTIONS.values()]
CASES += [("RNN", {**options, "nonlinearity": "relu"}) for options in OPTIONS.values()]
CASES += [("LSTM", {**options, "proj_size": 4}) for options in OPTIONS.values()]
every_case = pytest.mark.parametrize(
    ("kind", "options"),
    CASES,
    ids=lambda v: v if isinstance(v, str) else ",".join(f"{k}={x}" for k, x in v.items()),
)
SMALL: list[tuple[str, dict[str, Any]]] = [
    ("LSTM", {"num_layers": 2, "bidirectional": True}),
    ("LSTM", {"proj_size": 3}),
    ("GRU", {"num_layers": 2, "bidirectional": True}),
    ("RNN", {"bidirectional": True}),
    ("RNN", {"nonlinearity": "relu"}),
]
small_case = pytest.mark.parametrize(("kind", "options"), SMALL, ids=str)


def both(kind: str, *args: Any, **options: Any) -> Any:
    """Twin modules, float32 unless told; the tolerance of their dtype."""
    ours, native = twins(kind, *args, **options)
    return ours, native, TOLERANCES[native.weight_ih_l0.dtype]


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("given", [False, True], ids=["zeros", "hx"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_options(
    kind: str, options: dict[str, Any], dtype: torch.dtype, given: bool, training: bool
) -> None:
    ours, native, tolerance = both(kind, 7, 9, dtype=dtype, **options)
    ours.train(training)
    native.train(training)
    x = numbers(5, 6, 7, dtype=dtype)
    batch = 5 if native.batch_first else 6
    args = (x, states(native, batch)) if given else (x,)
    assert_close(call(ours, *args), call(native, *args), tolerance)


@every_case
@pytest.mark.parametrize("lengths", [[5, 3, 3, 1], [2, 5, 1, 4], [3]], ids=str)
@pytest.mark.parametrize("given", [False, True], ids=["zeros", "hx"])
def test_packed(kind: str, options: dict[str, Any], lengths: list[int], given: bool) -> None:
    ours, native, tolerance = both(kind, 7, 9, **options)
    x = packed(lengths, 7)
    args = (x, states(native, len(lengths))) if given else (x,)
    assert_close(call(ours, *args), call(native, *args), tolerance)
    out, expected = ours(x)[0], native(x)[0]
    for field in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        mine, theirs = getattr(out, field), getattr(expected, field)
        assert (mine is None) == (theirs is None)
        assert theirs is None or torch.equal(mine, theirs)


@every_case
@pytest.mark.parametrize("given", [False, True], ids=["zeros", "hx"])
def test_unbatched(kind: str, options: dict[str, Any], given: bool) -> None:
    ours, native, tolerance = both(kind, 7, 9, **options)
    args = (numbers(5, 7), states(native, None)) if given else (numbers(5, 7),)
    assert_close(call(ours, *args), call(native, *args), tolerance)


@small_case
@pytest.mark.parametrize(
    ("steps", "batch", "width", "hidden"),
    [
        (1, 1, 1, 4),
        (1, 5, 3, 4),
        (9, 1, 3, 33),
        (3, 2, 1, 17),
        (2, 37, 5, 31),
        (7, 19, 13, 65),
        (4, 70, 20, 130),
    ],
)
def test_sizes(
    kind: str, options: dict[str, Any], steps: int, batch: int, width: int, hidden: int
) -> None:
    ours, native, tolerance = both(kind, width, hidden, **options)
    args = (numbers(steps, batch, width), states(native, batch))
    assert_close(call(ours, *args), call(native, *args), tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_one_hidden_unit(kind: str) -> None:
    ours, native, tolerance = both(kind, 2, 1)
    args = (numbers(6, 3, 2), states(native, 3))
    assert_close(call(ours, *args), call(native, *args), tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_many_steps(kind: str) -> None:
    options = {"proj_size": 1} if kind == "LSTM" else {}
    ours, native, tolerance = both(kind, 3, 8, dtype=torch.float64, **options)
    args = (numbers(200, 2, 3, dtype=torch.float64), states(native, 2))
    assert_close(call(ours, *args), call(native, *args), tolerance)


@small_case
def test_without_gradients_the_same_numbers(kind: str, options: dict[str, Any]) -> None:
    ours, native, tolerance = both(kind, 7, 9, **options)
    x = numbers(5, 6, 7)
    tracked = call(ours, x)
    with torch.no_grad():
        alone = ours(x)
        expected = native(x)
    assert not alone[0].requires_grad
    assert torch.equal(alone[0], tracked["output 0"])
    torch.testing.assert_close(alone, expected, rtol=0, atol=tolerance)


@small_case
def test_empty_batch(kind: str, options: dict[str, Any]) -> None:
    ours, native, tolerance = both(kind, 7, 9, **options)
    for args in [(torch.zeros(5, 0, 7),), (torch.zeros(5, 0, 7), states(native, 0))]:
        mine, theirs = call(ours, *args), call(native, *args)
        assert_close(mine, theirs, tolerance)
        assert mine["output 0"].shape == (5, 0, theirs["output 0"].shape[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_only_some_gradients_are_wanted(kind: str) -> None:
    ours, native, tolerance = both(kind, 7, 9)
    results = []
    for module in (ours, native):
        for name, p in module.named_parameters():
            p.requires_grad_(name == "weight_hh_l0")
        out, _ = module(numbers(4, 3, 7))
        out[-1].sum().backward()
        results.append({n: p.grad for n, p in module.named_parameters() if p.grad is not None})
    assert list(results[0]) == ["weight_hh_l0"]
    assert_close(*results, tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_final_state_is_used(kind: str) -> None:
    ours, native, tolerance = both(kind, 7, 9, bidirectional=True)
    results = []
    for module in (ours, native):
        x = numbers(4, 3, 7).requires_grad_()
        final = module(x)[1]
        (final[1] if kind == "LSTM" else final).sum().backward()
        results.append({"x": x.grad, **{n: p.grad for n, p in module.named_parameters()}})
    assert_close(*results, tolerance)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "x"])
@pytest.mark.parametrize("lengths", [False, True], ids=["plain", "lengths"])
def test_one_gradient_alone_is_wanted(kind: str, name: str, lengths: bool) -> None:
    """Frozen but for one tensor, a layer gives the gradient that it gives among all of them."""
    module = both(kind, 7, 9)[0]
    x = numbers(4, 3, 7)
    options = {"lengths": torch.tensor([4, 2, 3])} if lengths else {}
    tensors = {**dict(module.named_parameters()), "x": x}

    def gradients(wanted: list[str]) -> list[torch.Tensor]:
        for n, t in tensors.items():
            t.requires_grad_(n in wanted)
        y, _ = module(x, **options)
        loss = (y * numbers(*y.shape, seed=3)).sum()
        return list(torch.autograd.grad(loss, [tensors[n] for n in wanted]))

    (alone,) = gradients([name])
    assert alone.abs().sum() > 0
    assert torch.equal(alone, gradients(list(tensors))[list(tensors).index(name)])
