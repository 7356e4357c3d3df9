"""``step``: a stream is the sequence, in memory that is allocated once."""

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from recurrence_cases import KINDS, leaves, numbers, states
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.nn.utils import prune
from torch.profiler import ProfilerActivity, profile

import fastseq

each_kind = pytest.mark.parametrize("kind", KINDS)
T, B, I, H = 5, 4, 3, 20  # noqa: E741
OPTIONS: list[dict[str, Any]] = [
    {}, {"num_layers": 3}, {"bias": False, "batch_first": True}, {"layer_norm": True},
    {"zoneout": 0.5, "recurrent_dropout": 0.5, "num_layers": 2, "dropout": 0.5},
]  # fmt: skip
CASES = [(kind, options) for kind in KINDS for options in OPTIONS] + [("LSTM", {"proj_size": 2})]
each_case = pytest.mark.parametrize(
    ("kind", "options"), CASES, ids=lambda v: v if isinstance(v, str) else "-".join(v) or "plain"
)


@each_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("grad", [False, True], ids=["inference", "gradients"])
@pytest.mark.parametrize("given", [False, True], ids=["zeros", "hx"])
def test_a_stream_is_the_sequence(
    kind: str, options: dict[str, Any], dtype: torch.dtype, grad: bool, given: bool
) -> None:
    module = getattr(fastseq, kind)(I, H, dtype=dtype, **options).eval()
    x = numbers(T, B, I, dtype=dtype)
    hx = states(module, B) if given else None
    first = options.get("batch_first")
    with torch.set_grad_enabled(grad):
        y, h_n = module(x.transpose(0, 1) if first else x, hx)
        state: Any = hx
        outputs = []
        for x_t in x:
            out, state = module.step(x_t, state)
            outputs.append(out if grad else out.clone())
    tolerance = {torch.bfloat16: 2e-2, torch.float32: 2e-6, torch.float64: 1e-12}[dtype]
    close = {"rtol": 0, "atol": tolerance}
    torch.testing.assert_close(torch.stack(outputs), y.transpose(0, 1) if first else y, **close)
    torch.testing.assert_close(leaves(state.hx()), leaves(h_n), **close)
    if given:
        assert all(torch.equal(a, b) for a, b in
                   zip(leaves(hx), leaves(states(module, B)), strict=True))  # fmt: skip
    if grad:
        torch.stack(outputs).sum().backward()
        assert all(p.grad is not None for p in module.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_unbatched_and_frozen_rows(kind: str) -> None:
    module = getattr(fastseq, kind)(I, H)
    x = numbers(T, I)
    with torch.no_grad():
        expected, h_n = module(x)
        state = None
        for x_t, y_t in zip(x, expected, strict=True):
            y, state = module.step(x_t, state)
            torch.testing.assert_close(y, y_t)
        assert leaves(state.hx())[0].shape == leaves(h_n)[0].shape


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_allocated_after_the_first_step(kind: str) -> None:
    module = getattr(fastseq, kind)(I, H, num_layers=2)
    x = numbers(B, I)
    with torch.no_grad():
        y, state = module.step(x)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            again, same = module.step(x, state)
    assert same is state
    assert again.data_ptr() == y.data_ptr()
    assert sum(max(0, event.self_cpu_memory_usage) for event in seen.key_averages()) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_of_a_graph_is_not_overwritten(kind: str) -> None:
    module = getattr(fastseq, kind)(I, H)
    first, state = module.step(numbers(B, I))
    kept = [t.detach().clone() for t in state.states]
    with torch.no_grad():
        _, other = module.step(numbers(B, I, seed=5), state)
    assert other is not state
    assert all(torch.equal(a, b) for a, b in zip(kept, state.states, strict=True))
    first.sum().backward()


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_notices_what_a_step_overwrites(kind: str) -> None:
    """It has saved an output, and the next step writes to the same memory."""
    module, weight = getattr(fastseq, kind)(I, H), numbers(H, H).requires_grad_()
    x = numbers(B, I)
    with torch.no_grad():
        y, state = module.step(x)
    product = y @ weight
    with torch.no_grad():
        module.step(x, state)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()


@pytest.mark.parametrize("kind", KINDS)
def test_steps_in_inference_mode(kind: str) -> None:
    """And on from a state of no_grad, and back: tensors of both sorts are overwritten."""
    module, x = getattr(fastseq, kind)(I, H), numbers(4, B, I)
    state, outputs = None, []
    for x_t, mode in zip(
        x, (torch.no_grad, *[torch.inference_mode] * 2, torch.no_grad), strict=True
    ):
        with mode():
            y, state = module.step(x_t, state)
            outputs.append(y.clone())
    torch.testing.assert_close(torch.stack(outputs), module(x)[0].detach())
    with torch.inference_mode():
        y, state = module.step(x[0])
        assert y.is_inference()
        y, _ = module.step(x[1], state)
    torch.testing.assert_close(y, outputs[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "register",
    [
        nn.Module.register_forward_hook,
        nn.Module.register_forward_pre_hook,
        lambda _, hook: hooks.register_module_forward_hook(hook),
        lambda _, hook: hooks.register_module_forward_pre_hook(hook),
    ],
    ids=["forward", "pre", "of all modules", "pre of all modules"],
)
def test_hooks_are_called_at_every_step(kind: str, register: Callable[..., Any]) -> None:
    module, x = getattr(fastseq, kind)(I, H), numbers(B, I)
    seen: list[Any] = []
    handle = register(module, lambda *args: seen.append(args[0]))
    try:
        with torch.no_grad():
            _, state = module.step(x)
            module.step(x, state)
            assert seen == [module, module]
    finally:
        handle.remove()
    with torch.no_grad():
        module.step(x, state)
    assert len(seen) == 2


def test_mistakes() -> None:
    lstm = fastseq.LSTM(I, H)
    with pytest.raises(ValueError, match="one direction"):
        fastseq.LSTM(I, H, bidirectional=True).step(numbers(B, I))
    with pytest.raises(ValueError, match=r"\(B, I\) or \(I,\)"):
        lstm.step(numbers(1, B, I))
    with pytest.raises(RuntimeError, match="Expected 3, got 4"):
        lstm.step(numbers(B, I + 1))
    with pytest.raises(RuntimeError, match=r"Expected hidden\[0\] size"):
        lstm.step(numbers(B, I), states(fastseq.LSTM(I, H + 1), B))
    with pytest.raises(RuntimeError, match="call eval"):
        fastseq.GRU(I, H, zoneout=0.1).step(numbers(B, I))
    with pytest.raises(RuntimeError, match="call eval"):
        fastseq.GRU(I, H, 2, dropout=0.1).step(numbers(B, I))
    with torch.no_grad():
        _, state = lstm.step(numbers(B, I))
        before = state.hx()
        for wrong, words in (
            (numbers(B, I + 1), r"input.size\(-1\) must be equal to input_size"),
            (numbers(B + 1, I), "expected a tensor of shape|should have shape"),
            (numbers(B, I).double(), "RNN input dtype"),
        ):
            with pytest.raises((RuntimeError, ValueError), match=words):
                lstm.step(wrong, state)
        with pytest.raises(ValueError, match="began with input of 2"):
            lstm.step(numbers(I), state)
    assert all(torch.equal(a, b) for a, b in zip(before, state.hx(), strict=True))


@each_kind
def test_autocast_is_obeyed_without_gradients(kind: str) -> None:
    """A step gives the numbers and the dtypes that it gives with gradients, in and out of it."""
    module, x = getattr(fastseq, kind)(I, H, num_layers=2), numbers(B, I)

    def stream(grad: bool) -> list[Tensor]:
        found, state = [], None
        with torch.set_grad_enabled(grad):
            for autocast in (False, True, True, False):
                with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                    if not autocast and found:  # torch.nn, too, refuses a narrow state out of it
                        state = leaves(state.hx())
                        state = tuple(s.float() for s in state)
                        state = state if kind == "LSTM" else state[0]
                    y, state = module.step(x, state)
                    found += [y.detach().clone(), *leaves(state.hx())]
        return found

    for found, expected in zip(stream(False), stream(True), strict=True):
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected)
    assert stream(False)[2 + (kind == "LSTM")].dtype == torch.bfloat16


@each_kind
def test_a_step_tells_a_graph_what_it_overwrites(kind: str) -> None:
    """A head that is trained on a frozen stream: an error, where it had wrong gradients."""
    module, head = getattr(fastseq, kind)(I, H, num_layers=2), nn.Linear(H, 1)
    state, losses = None, []
    for x in numbers(3, B, I):
        with torch.no_grad():
            y, state = module.step(x, state)
        losses.append(head(y).square().sum())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        sum(losses).backward()  # type: ignore[union-attr]


@each_kind
def test_steps_with_and_without_gradients(kind: str) -> None:
    """Without, with, without, then backward of the second: its own gradients."""
    module = getattr(fastseq, kind)(I, H, num_layers=2)
    x = numbers(3, B, I)
    with torch.no_grad():
        _, state = module.step(x[0])
    hx = state.hx()
    y, state = module.step(x[1], state)
    with torch.no_grad():
        module.step(x[2], state)
    y.square().sum().backward()
    found = [p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    module(x[1:2], hx)[0].square().sum().backward()
    torch.testing.assert_close(found, [p.grad for p in module.parameters()])


@each_kind
def test_a_pickled_stream_goes_on(kind: str) -> None:
    module, x = getattr(fastseq, kind)(I, H, num_layers=2), numbers(4, B, I)
    with torch.no_grad():
        for again in (lambda s: pickle.loads(pickle.dumps(s)), copy.deepcopy, copy.copy):
            _, state = module.step(x[0])
            _, state = module.step(x[1], state)
            other = again(state)
            if again is copy.copy:  # the same memory under two names: only one may go on
                assert other.output is state.output
                continue
            for later in x[2:]:
                y, state = module.step(later, state)
                z, other = module.step(later, other)
                assert torch.equal(y, z)
                assert z is other.output


@each_kind
@pytest.mark.parametrize("pruned", [True, False], ids=["pruned", "weight_norm"])
def test_steps_run_hooks_that_set_weights(kind: str, pruned: bool) -> None:
    module = getattr(fastseq, kind)(I, H)
    if pruned:
        prune.random_unstructured(module, "weight_hh_l0", 0.5)
        source = module.weight_hh_l0_orig
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nn.utils.weight_norm(module, "weight_hh_l0")
        source = module.weight_hh_l0_g
    x, state, hx = numbers(T, B, I), None, None
    with torch.no_grad():
        for i, each in enumerate(x):
            source.mul_(1.1)  # as an optimizer would
            y, state = module.step(each, state)
            expected, hx = module(x[i : i + 1], hx)
            torch.testing.assert_close(y, expected[0])
