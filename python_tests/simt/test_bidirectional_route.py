"""Both directions of a module's layer in one launch, beside one after the other.

test_persistent_route.py holds the same modules to torch.nn's numbers, and counts their launches;
test_both_directions.py holds the kernels to the bit.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from layers_of_a_gpu import BACKWARD, FORWARD, Loops
from recurrence_cases import KINDS, assert_close, assert_equal, call, numbers, packed, states
from simt_build import Machine
from torch import Tensor
from torch.library import opcheck

import fastseq
from fastseq.functional import bidirectional, stack
from fastseq.functional.cuda_route import STEP
from fastseq.ops import Cell, persistent

each_kind = pytest.mark.parametrize("kind", KINDS)
pytestmark = pytest.mark.usefixtures("machine", "one_thread")
Found = dict[str, Tensor]


def apart(patch: pytest.MonkeyPatch) -> None:
    """One direction after the other, from now on."""
    patch.setattr(stack, "in_one_launch", lambda *args: [])


def module(kind: str, hidden: int = 7, **options: Any) -> Any:
    torch.manual_seed(3)
    return getattr(fastseq, kind)(5, hidden, bidirectional=True, **options)


@each_kind
@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_the_same_numbers_as_apart(
    kind: str, layout: str, loops: Loops, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the gradient of x are the same bits; that one's sum is rounded once less."""
    layer = module(kind, batch_first=layout == "padded")
    x = numbers(3, 4, 5) if layout == "padded" else packed([4, 3, 1], 5)
    hx = states(layer, 3)
    together = call(layer, x, hx)
    assert loops == [FORWARD, BACKWARD]
    apart(monkeypatch)
    alone = call(layer, x, hx)
    assert sorted(loops[2:]) == [FORWARD] * 2 + [BACKWARD] * 2
    of_x = "gradient of argument 0"
    assert_close({of_x: together.pop(of_x)}, {of_x: alone.pop(of_x)}, 1e-6)
    assert_equal(together, alone)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_lengths_and_resets_are_the_same_numbers(
    kind: str, loops: Loops, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = module(kind, num_layers=2)
    x, hx, by = numbers(4, 6, 5), states(layer, 6), states(layer, 6, seed=9)
    masks = {"lengths": torch.tensor([4, 0, 2, 3, 1, 4]), "reset": numbers(4, 6, seed=3) > 0.5}
    forward = layer.forward
    layer.forward = lambda x, hx, by: forward(x, hx, **masks, reset_state=by)
    together = call(layer, x, hx, by)
    assert loops == [FORWARD] * 2 + [BACKWARD] * 2
    apart(monkeypatch)
    assert_close(together, call(layer, x, hx, by), 1e-6)


@each_kind
def test_without_a_gradient_and_without_biases(
    kind: str, loops: Loops, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = module(kind, num_layers=2, bias=False).eval()
    with torch.no_grad():
        together = layer(numbers(4, 3, 5))[0]
        apart(monkeypatch)
        assert torch.equal(together, layer(numbers(4, 3, 5))[0])
    assert loops == [FORWARD] * 6


@each_kind
@pytest.mark.parametrize("masks", [False, True], ids=["plain", "lengths"])
def test_second_derivatives(kind: str, masks: bool, loops: Loops) -> None:
    """The node's backward is one direction's after the other's, and theirs have derivatives."""
    layer = module(kind, 4)
    beside = {"lengths": torch.tensor([3, 2])} if masks else {}
    found = []
    for exact in (False, True):
        x = numbers(3, 2, 5).requires_grad_()
        with fastseq.cuda_rnn(STEP if exact else "persistent"):
            y, state = layer(x, **beside)
            total = y.square().sum() + sum(s.sum() for s in (state if kind == "LSTM" else [state]))
        first = torch.autograd.grad(total, [x, *layer.parameters()], create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), [x, layer.weight_hh_l0])
        found.append([*first, *second])
        if not exact:
            assert loops[:3] == [FORWARD, BACKWARD, BACKWARD]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=3e-2, rtol=3e-2)


def test_gradients_of_some(loops: Loops) -> None:
    """Frozen weights, one result of two; and nothing at all."""
    layer = module("GRU")
    layer.weight_ih_l0.requires_grad_(False)
    layer.bias_hh_l0_reverse.requires_grad_(False)
    x = numbers(3, 2, 5)
    y, h_n = layer(x)
    h_n[1].sum().backward()
    assert loops == [FORWARD, BACKWARD]
    missing = {n for n, p in layer.named_parameters() if p.grad is None}
    assert missing == {"weight_ih_l0", "bias_hh_l0_reverse"}
    assert not layer.weight_hh_l0.grad.any()
    assert layer.weight_hh_l0_reverse.grad.any()
    x.requires_grad_()
    y = layer(x)[0]
    ones = torch.ones(2, *y.shape)
    (grads,) = torch.autograd.grad(y, x, ones, is_grads_batched=True)
    assert grads.shape == (2, 3, 2, 5)
    assert torch.equal(grads[0], grads[1])


@pytest.mark.parametrize(
    ("options", "training"),
    [
        ({"recompute": True}, True),
        ({"weight_dropout": 0.5}, True),
        ({"kind": "LSTM", "return_cell_states": True}, False),
    ],
    ids=str,
)
def test_what_goes_apart(options: dict[str, Any], training: bool, loops: Loops) -> None:
    options = dict(options)
    layer = module(options.pop("kind", "GRU"), **options).train(training)
    with torch.no_grad():
        layer(numbers(3, 2, 5))
    assert loops == [FORWARD] * 2


def test_regularisers_are_nothing_to_evaluation(loops: Loops) -> None:
    layer = module("GRU", weight_dropout=0.5, num_layers=2, dropout=0.5)
    with torch.no_grad():
        layer(numbers(3, 2, 5))
        layer.eval()(numbers(3, 2, 5))
    assert loops == [FORWARD] * 6


def test_room_for_one_direction_alone(machine: Machine, loops: Loops) -> None:
    """Eight blocks of each, and four that are left free."""
    layer = module("LSTM", 97)
    for multiprocessors, launches in ((20, 1), (19, 2), (12, 2)):
        machine.multiprocessors(multiprocessors)
        loops.clear()
        with torch.no_grad():
            layer(numbers(1, 1, 5))
        assert loops == [FORWARD] * launches


def test_who_follows_the_ops_sees_each_direction(loops: Loops) -> None:
    layer = module("GRU")
    x = numbers(3, 2, 5)
    expected = layer(x)[0]
    loops.clear()
    params = dict(layer.named_parameters())
    found = torch.func.vmap(lambda x: torch.func.functional_call(layer, params, (x,))[0])(x[None])
    assert len(loops) == 2
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cell", list(Cell))
def test_the_ops_of_both_directions_for_tracing_and_autograd(cell: Cell, loops: Loops) -> None:
    """Shapes for a compiler, and the formula, which has derivatives."""
    width, lstm = cell.gates * 6, cell == Cell.LSTM
    state = [numbers(2, 2, 6, seed=i) for i in (1, 2)]
    args = (
        numbers(2, 3, 2, width), state[0], state[1] if lstm else None, numbers(2, width, 6, seed=3),
        numbers(2, 6, seed=4) if cell == Cell.GRU else None, None, None,
        *persistent.PLAIN, int(cell), False, True,
    )  # fmt: skip
    op = torch.ops.fastseq.recurrence_persistent.default
    checks = ("test_schema", "test_faketensor")
    opcheck(op, args, test_utils=checks)
    made = op(*args)
    grads = [numbers(*made[0].shape, seed=5), numbers(2, 2, 6, seed=6), None, None, None]
    back = (*grads, made[0], *made[3:], *args[1:4], None, None, *persistent.PLAIN, int(cell), False)
    back_op = torch.ops.fastseq.recurrence_persistent_backward.default
    opcheck(back_op, back, test_utils=checks)
    leaf = args[0].clone().requires_grad_()
    again = op(leaf, *args[1:])
    for mine, formula in zip(made, again, strict=True):
        torch.testing.assert_close(mine, formula.detach(), atol=5e-3, rtol=5e-3)
    (by_formula,) = torch.autograd.grad(again[:2], leaf, grads[:2])
    torch.testing.assert_close(back_op(*back)[0], by_formula, atol=2e-2, rtol=2e-2)


def test_a_layer_of_both_is_counted_as_two() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as one:
        tensors = (torch.empty(3, 2, 24), torch.empty(2, 6), torch.empty(2, 6), torch.empty(24, 6))
        tail = (None, None, None, *persistent.PLAIN, int(Cell.LSTM), False, True)
        torch.ops.fastseq.recurrence_persistent(*tensors, *tail)
    with torch.device("meta"), FlopCounterMode(display=False) as both:
        tensors = tuple(torch.stack([t, t]) for t in tensors)
        torch.ops.fastseq.recurrence_persistent(*tensors, *tail)
    assert both.get_total_flops() == 2 * one.get_total_flops() > 0


def test_what_masks_alone_means() -> None:
    options = fastseq.functional.Options
    assert bidirectional.masks_alone(options(lengths=torch.ones(1)), train=True)
    assert not bidirectional.masks_alone(options(zoneout=(0.0, 0.5)), train=True)
    assert bidirectional.masks_alone(options(recurrent_dropout=0.5), train=False)
