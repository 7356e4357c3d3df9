"""What models are trained with: autocast, parametrizations, pruning, checkpointing, hooks, meta."""

from collections.abc import Callable
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
    packed,
    states,
    twins,
)
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

import fastseq
from fastseq.functional import stack

pytestmark = pytest.mark.usefixtures("one_thread")
MODULES: list[tuple[str, dict[str, Any]]] = [
    ("LSTM", {"num_layers": 2, "bidirectional": True}),
    ("LSTM", {"proj_size": 2, "batch_first": True}),
    ("GRU", {"num_layers": 2, "bidirectional": True, "bias": False}),
    ("RNN", {"nonlinearity": "relu", "bidirectional": True}),
    *((kind, {}) for kind in CELLS),
]
each_module = pytest.mark.parametrize(("kind", "options"), MODULES, ids=str)
each_name = pytest.mark.parametrize("kind", KINDS + CELLS)


def inputs(module: nn.Module, kind: str) -> tuple[Any, ...]:
    """x and hx that fit the module, 4 in a batch."""
    if kind not in CELLS:
        return numbers(4, 4, 3), states(module, 4)
    hx = numbers(4, 4, seed=2)
    return numbers(4, 3), (hx, numbers(4, 4, seed=3)) if kind == "LSTMCell" else hx


def cast(value: Any, dtype: torch.dtype) -> Any:
    return torch.utils._pytree.tree_map(lambda t: t.to(dtype), value)


@each_module
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(kind: str, options: dict[str, Any], dtype: torch.dtype) -> None:
    """Computed in the narrow type, bit for bit; gradients and parameters stay float32."""
    module, _ = twins(kind, 3, 4, **options)
    narrow, _ = twins(kind, 3, 4, **options)
    args = inputs(module, kind)
    expected = call(narrow.to(dtype), *cast(args, dtype))

    class Autocast(nn.Module):
        def forward(self, *args: Any) -> Any:
            with torch.autocast("cpu", dtype):
                return module(*args)

    wrapped = Autocast()
    wrapped.inner = module
    found = {n.replace("inner.", ""): t for n, t in call(wrapped, *args).items()}
    assert_equal({n: t.to(dtype) for n, t in found.items()}, expected)
    for name, value in found.items():
        assert value.dtype == (dtype if name.startswith("output") else torch.float32)


@pytest.mark.parametrize("casting", [True, False])
def test_autocast_is_off_within_a_layer_with_options(
    casting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On CUDA it would make float32 of a layer norm, where the next layer reads float16."""
    inside = []
    run = stack._with_options
    monkeypatch.setattr(
        stack,
        "_with_options",
        lambda *args: inside.append(torch.is_autocast_enabled("cpu")) or run(*args),
    )
    with torch.autocast("cpu", torch.bfloat16, enabled=casting):
        fastseq.GRU(3, 4, 2, layer_norm=True)(numbers(5, 2, 3))
        assert torch.is_autocast_enabled("cpu") == casting
    assert inside == [False, False]


def test_autocast_of_a_packed_batch_and_a_region_without() -> None:
    module = fastseq.GRU(3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert module(packed([3, 1, 2], 3))[0].data.dtype == torch.bfloat16
        with torch.autocast("cpu", enabled=False):
            assert module(numbers(5, 2, 3))[0].dtype == torch.float32


def test_scaled_float16_training() -> None:
    module = fastseq.LSTM(3, 4)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = module(numbers(5, 2, 3))[0].float().square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert losses[4] < losses[0]
    assert scaler.get_scale() == 1024.0  # no step was skipped


def trained(module: nn.Module, kind: str, steps: int = 3) -> list[Tensor]:
    """Losses of training steps and the last output."""
    optimizer = torch.optim.SGD(module.parameters(), 0.5)
    args = inputs(module, kind)
    seen = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = leaves(module(*args))[0].square().mean()
        loss.backward()
        optimizer.step()
        seen.append(loss.detach())
    return [*seen, leaves(module(*args))[0].detach()]


def suffix(kind: str) -> str:
    return "" if kind in CELLS else "_l0"


REPARAMETRIZED: dict[str, Callable[[nn.Module, str], Any]] = {
    "weight_norm": lambda m, name: parametrizations.weight_norm(m, name),
    # Converged at every call: torch.nn calls it four times as often.
    "spectral_norm": lambda m, name: parametrizations.spectral_norm(m, name, 50),
    "orthogonal": lambda m, name: parametrizations.orthogonal(m, name),
    "pruned": lambda m, name: prune.l1_unstructured(m, name, 0.5),
    "spectral_norm by a hook": lambda m, name: nn.utils.spectral_norm(m, name),
}


@each_name
@pytest.mark.parametrize("how", REPARAMETRIZED)
def test_reparametrized_weights_train(kind: str, how: str) -> None:
    """Whatever makes the weights, every step uses those of that step: torch.nn's losses."""
    results = []
    for module in twins(kind, 3, 4):
        torch.manual_seed(1)
        REPARAMETRIZED[how](module, "weight_hh" + suffix(kind))
        results.append(trained(module, kind))
    ours, native = results
    torch.testing.assert_close(ours, native)
    assert ours[2] < ours[1] < ours[0]


@each_name
def test_replaced_weights_are_used(kind: str) -> None:
    """Whether in place, as .data, as a new Parameter or by functional_call."""
    module, native = twins(kind, 3, 4)
    name = "weight_hh" + suffix(kind)
    args = inputs(module, kind)
    changes: list[Callable[[nn.Module], None]] = [
        lambda m: getattr(m, name).data.mul_(0.5),
        lambda m: setattr(getattr(m, name), "data", getattr(m, name).data * 2),
        lambda m: setattr(m, name, nn.Parameter(0.7 * getattr(m, name).detach())),
    ]
    before = leaves(module(*args))[0]
    for change in changes:
        for m in (module, native):
            change(m)
        after = leaves(module(*args))[0]
        torch.testing.assert_close(after, leaves(native(*args))[0])
        assert not torch.equal(after, before)
        before = after
    weights = {n: (0.5 * p).detach().requires_grad_() for n, p in module.named_parameters()}
    found = leaves(torch.func.functional_call(module, weights, args))
    torch.testing.assert_close(found, leaves(torch.func.functional_call(native, weights, args)))
    sum(t.sum() for t in found).backward()
    assert all(w.grad is not None and w.grad.abs().max() > 0 for w in weights.values())
    assert all(p.grad is None for p in module.parameters())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("ragged", [False, True], ids=["padded", "packed"])
def test_checkpointing(kind: str, reentrant: bool, ragged: bool) -> None:
    """The same gradients, dropout included, and nothing kept but the input."""
    module = getattr(fastseq, kind)(3, 4, 2, dropout=0.5)
    given = packed([4, 2, 3], 3) if ragged else None

    class Again(nn.Module):
        def forward(self, data: Tensor) -> Any:
            def run(data: Tensor) -> tuple[Tensor, ...]:
                x = data if given is None else given._replace(data=data)
                return tuple(leaves(module(x)))

            if not self.checkpoints:
                return run(data)
            return checkpoint(run, data, use_reentrant=reentrant)

    again = Again()
    again.inner = module
    results, kept = [], []
    for again.checkpoints in (False, True):
        results.append(call(again, numbers(4, 3, 3) if given is None else given.data))
        kept.append(kept_after_forward(again, numbers(4, 3, 3) if given is None else given.data))
    assert_equal(results[1], results[0])
    if not reentrant:  # the other kind hides its forward from hooks
        assert kept[1] <= 4 * 3 * 3 < kept[0]


def kept_after_forward(module: nn.Module, x: Tensor) -> int:
    """Elements that autograd holds for backward, each tensor counted once."""
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        kept[t.data_ptr()] = t.numel()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        outputs = module(x.detach().requires_grad_())
    del outputs
    return sum(kept.values())


@each_module
def test_saved_tensors_can_be_packed(kind: str, options: dict[str, Any]) -> None:
    """``save_on_cpu`` and its kin see everything that backward needs."""
    module, _ = twins(kind, 3, 4, **options)
    args = inputs(module, kind)
    expected = call(module, *args)
    seen = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: seen.append(t.shape) or t.detach().clone().numpy(), torch.from_numpy
    ):
        assert_equal(call(module, *args), expected)
    assert seen


@each_module
def test_deterministic_mode_with_poisoned_memory(kind: str, options: dict[str, Any]) -> None:
    module, _ = twins(kind, 3, 4, **options)
    args = inputs(module, kind)
    expected = call(module, *args)
    assert torch.utils.deterministic.fill_uninitialized_memory  # what is not written is NaN
    torch.use_deterministic_algorithms(True)
    try:
        assert_equal(call(module, *args), expected)
    finally:
        torch.use_deterministic_algorithms(False)


@each_name
def test_hooks_see_inputs_outputs_and_gradients(kind: str) -> None:
    module, _ = twins(kind, 3, 4)
    seen: dict[str, Any] = {}
    module.register_forward_pre_hook(lambda m, args: seen.update(before=args))
    module.register_forward_hook(lambda m, args, out: seen.update(after=out))
    module.register_full_backward_hook(lambda m, gi, go: seen.update(gradients=(gi, go)))
    x, hx = inputs(module, kind)
    x.requires_grad_()
    output = module(x, hx)
    leaves(output)[0].sum().backward()
    assert seen["before"][0].shape == x.shape
    torch.testing.assert_close(leaves(seen["after"]), leaves(output))
    (grad_x, *_), (grad_y, *_) = seen["gradients"]
    assert torch.equal(grad_x, x.grad)
    assert torch.equal(grad_y, torch.ones_like(grad_y))


@each_module
def test_built_on_meta_and_initialised_later(kind: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    expected = getattr(fastseq, kind)(3, 4, **options)
    with torch.device("meta"):
        module = getattr(fastseq, kind)(3, 4, **options)
    args = inputs(module, kind)
    shapes = [t.shape for t in leaves(module(*cast_to_meta(args)))]
    assert shapes == [t.shape for t in leaves(expected(*args))]
    module.to_empty(device="cpu")
    torch.manual_seed(0)
    module.reset_parameters()
    assert_equal(call(module, *args), call(expected, *args))


def cast_to_meta(value: Any) -> Any:
    return torch.utils._pytree.tree_map(lambda t: t.to("meta"), value)


def test_averaged_and_clipped() -> None:
    """swa_utils copies modules, clip_grad_norm_ scales their gradients: as torch.nn's."""
    results = []
    for module in twins("LSTM", 3, 4):
        mean = torch.optim.swa_utils.AveragedModel(module)
        optimizer = torch.optim.AdamW(module.parameters(), 0.1, fused=True)
        for _ in range(3):
            optimizer.zero_grad()
            module(numbers(5, 2, 3))[0].sum().backward()
            norm = nn.utils.clip_grad_norm_(module.parameters(), 0.1)
            optimizer.step()
            mean.update_parameters(module)
        results.append({"norm": norm, "output": mean(numbers(5, 2, 3))[0].detach()})
    assert_close(*results, 1e-4)
