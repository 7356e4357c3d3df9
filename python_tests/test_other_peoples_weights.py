"""What published packages do to the weights of recurrent layers, before and after a swap."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from before_and_after import assert_same_after_swap, holding, results, swapped_copy
from recurrence_cases import KINDS, numbers
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, prune, vector_to_parameters
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import fastseq

T, B, I, H = 6, 4, 5, 6  # noqa: E741
each_kind = pytest.mark.parametrize("kind", KINDS)


def call(model: Any) -> Any:
    return model["rnn"](numbers(T, B, I))


# ---- initialised


def by_parameter_names(rnn: nn.RNNBase) -> None:
    for name, value in rnn.named_parameters():
        if "weight_ih" in name:
            nn.init.xavier_normal_(value)
        elif "weight_hh" in name:
            nn.init.orthogonal_(value)
        else:
            value.data.fill_(0)
            n = value.size(0)
            value.data[(n // 4) : (n // 2)].fill_(1)


def by_all_weights(rnn: nn.RNNBase) -> None:
    for group in rnn._all_weights:
        for name in filter(lambda name: "bias" in name, group):
            bias = getattr(rnn, name)
            n = bias.size(0)
            bias.data[n // 4 : n // 2].fill_(1.0)


def by_isinstance(rnn: nn.Module) -> None:
    if isinstance(rnn, (nn.LSTM, nn.GRU, nn.RNN)):
        for value in rnn.parameters():
            (nn.init.orthogonal_ if value.dim() > 1 else nn.init.normal_)(value.data)


def by_class_name(rnn: nn.Module) -> None:
    if rnn.__class__.__name__ in ("LSTM", "GRU", "RNN"):
        for value in rnn.parameters():
            value.data.uniform_(-0.3, 0.3)


def by_flat_names(rnn: nn.RNNBase) -> None:
    for name in rnn._flat_weights_names:
        if "weight" in name:
            nn.init.xavier_uniform_(rnn._parameters[name])


def by_lists_of_weights(rnn: nn.RNNBase) -> None:
    for group in rnn.all_weights:
        for value in group:
            (nn.init.zeros_ if value.dim() == 1 else nn.init.kaiming_normal_)(value)


ways = [by_parameter_names, by_all_weights, by_isinstance, by_class_name, by_flat_names,
        by_lists_of_weights]  # fmt: skip


@each_kind
@pytest.mark.parametrize("init", ways)
def test_initialised_after_the_swap(kind: str, init: Callable[[Any], None]) -> None:
    """tsai, speechbrain, allennlp, ESPnet, d2l: by names, lists of names, isinstance, class."""

    def run(model: Any) -> Any:
        torch.manual_seed(6)
        before = parameters_to_vector(model.parameters()).clone()
        init(model["rnn"])
        assert not torch.equal(parameters_to_vector(model.parameters()), before)
        return call(model)

    assert_same_after_swap(holding(rnn=getattr(nn, kind)(I, H, 2, bidirectional=True)), run)


# ---- replaced


@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
def test_a_layer_grows_when_a_class_is_new(used: bool) -> None:
    """river-torch: longer weights are assigned, then ``hidden_size`` is raised by one."""

    def run(model: Any) -> Any:
        rnn = model["rnn"]
        if used:
            call(model)[0].sum().backward()
        old = dict(rnn.named_parameters())
        old["weight_hh_l0"] = torch.cat([rnn.weight_hh_l0, numbers(4 * H, 1)], 1)
        for name, value in old.items():
            gates = [torch.cat([g, numbers(1, *g.shape[1:])]) for g in value.chunk(4)]
            setattr(rnn, name, nn.Parameter(torch.cat(gates).detach()))
        rnn.hidden_size += 1
        return call(model)

    twin = assert_same_after_swap(holding(rnn=nn.LSTM(I, H)), run)
    assert twin["rnn"].weight_hh_l0.grad.shape == (4 * (H + 1), H + 1)  # type: ignore[index]


class Mending(nn.Module):
    """A holder that mends layers stored by old versions when it is moved."""

    def __init__(self, rnn: nn.Module) -> None:
        super().__init__()
        self.rnn = rnn

    def _apply(self, fn: Any) -> Any:  # type: ignore[override]
        for child in self.children():
            if isinstance(child, nn.RNNBase) and not hasattr(child, "_flat_weights_names"):
                names = [name for group in child.__dict__["_all_weights"] for name in group]
                child._flat_weights_names = names
            child._apply(fn)
        return self


def test_layers_from_old_files_are_mended() -> None:
    """flair: ``_apply`` is overridden and sets ``_flat_weights_names`` where it is missing."""

    def run(model: Any) -> Tensor:
        rnn = model["holder"].rnn
        del rnn._flat_weights_names
        model["holder"].to(torch.float64)
        return rnn(numbers(T, B, I, dtype=torch.float64))

    assert_same_after_swap(holding(holder=Mending(nn.LSTM(I, H, 2))), run)


def test_a_model_is_built_again_and_loaded() -> None:
    """asteroid, demucs, pyannote: options and a state_dict in half precision go to a file."""
    options = {"num_layers": 2, "bidirectional": True}
    model = holding(rnn=nn.LSTM(I, H, **options))  # type: ignore[arg-type]
    state = {name: value.half() for name, value in swapped_copy(model).state_dict().items()}
    expected = results(copy.deepcopy(model).half().float(), call)
    for maker in (nn.LSTM, fastseq.LSTM):
        file = io.BytesIO()
        torch.save({"args": (I, H), "kwargs": options, "state": state}, file)
        file.seek(0)
        package = torch.load(file, weights_only=True)
        again = holding(rnn=maker(*package["args"], **package["kwargs"]))
        again.load_state_dict(package["state"])
        torch.testing.assert_close(results(again, call), expected, rtol=1e-4, atol=1e-5)


class Drawn(nn.LSTM):
    """Without weight_hh_l0, which is computed from ``mean`` when it is read."""

    def __getattr__(self, name: str) -> Any:
        if name == "weight_hh_l0" and "mean" in self._parameters:
            return self.mean * 2.0
        return super().__getattr__(name)

    @property  # type: ignore[override]
    def _flat_weights(self) -> Any:
        return [getattr(self, name) for name in self._flat_weights_names]

    @_flat_weights.setter
    def _flat_weights(self, value: Any) -> None:
        pass


def test_weights_are_drawn_at_every_read() -> None:
    """pyro: ``_flat_weights`` is a descriptor that reads the attributes, which are computed."""
    model = holding(rnn=Drawn(I, H))
    del model["rnn"].weight_hh_l0
    model["rnn"].mean = nn.Parameter(numbers(4 * H, H) * 0.1)  # type: ignore[union-attr]
    assert_same_after_swap(model, call, subclasses=True)


class WeightDrop(nn.Module):
    """Dropout of named weights: the raw ones are parameters here, the dropped ones assigned."""

    def __init__(self, module: nn.Module, names: list[str], p: float) -> None:
        super().__init__()
        self.module, self.names, self.p = module, names, p
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters = self.nothing  # type: ignore[method-assign]
        for name in names:
            raw = getattr(module, name)
            del module._parameters[name]
            self.register_parameter(f"{name}_raw", nn.Parameter(raw.data))

    def nothing(self) -> None:
        return

    def forward(self, *args: Any) -> Any:
        for name in self.names:
            raw = getattr(self, f"{name}_raw")
            setattr(self.module, name, F.dropout(raw, p=self.p, training=self.training))
        return self.module(*args)


@each_kind
@pytest.mark.parametrize("first", ["wrapped", "swapped"])
def test_weights_are_dropped_by_a_wrapper(kind: str, first: str) -> None:
    """fastai, torchnlp: ``flatten_parameters`` overridden, plain tensors in weights' places."""
    model = holding(rnn=getattr(nn, kind)(I, H, 2))
    names = ["weight_hh_l0", "weight_hh_l1"]
    if first == "wrapped":
        model["rnn"] = WeightDrop(model["rnn"], names, 0.5)
        assert_same_after_swap(model, call)
        return

    def run(model: Any) -> list[Any]:
        drop = WeightDrop(model["rnn"], names, 0.5)
        y, h = drop(numbers(T, B, I))
        raw = torch.autograd.grad(y.sum(), drop.weight_hh_l0_raw, retain_graph=True)
        return [y, h, raw[0]]

    assert_same_after_swap(model, run)


@pytest.mark.parametrize("removed", [False, True])
def test_pruned_over_the_whole_model(removed: bool) -> None:
    """torch's own tests: ``global_unstructured``, a call without gradients, then ``remove``."""

    def run(model: Any) -> Any:
        rnn = model["rnn"]
        names = [name for name, _ in rnn.named_parameters() if "weight" in name]
        which = [(rnn, name) for name in names]
        prune.global_unstructured(which, pruning_method=prune.L1Unstructured, amount=0.5)
        with torch.no_grad():
            call(model)
        if removed:
            for name in names:
                prune.remove(rnn, name)
        return call(model)

    assert_same_after_swap(holding(rnn=nn.LSTM(I, H, 2)), run)


@each_kind
def test_weights_are_views_of_one_vector(kind: str) -> None:
    """captum, evolution strategies, FSDP: each parameter's data is a piece of one vector."""

    def run(model: Any) -> Any:
        call(model)
        vector = parameters_to_vector(model.parameters()).detach() * 1.5
        vector_to_parameters(vector, model.parameters())
        first = call(model)
        vector += 0.01  # the parameters see it
        with torch.no_grad():
            return [first[0].detach(), call(model)]

    assert_same_after_swap(holding(rnn=getattr(nn, kind)(I, H, bidirectional=True)), run, False)


def test_two_layers_share_a_weight() -> None:
    """torch's own tests: one Parameter under two names, in one layer and in two."""

    def run(model: Any) -> list[Tensor]:
        a, b = model["a"], model["b"]
        a.weight_hh_l1 = a.weight_hh_l0
        b.weight_ih_l0 = a.weight_ih_l1
        return [b(a(numbers(T, B, I))[0])[0], a(numbers(T, B, I, seed=2))[0]]

    assert_same_after_swap(holding(a=nn.LSTM(I, H, 2), b=nn.LSTM(H, H)), run)


def test_loaded_by_assignment() -> None:
    """transformers: ``load_state_dict(assign=True)`` onto a model on meta; ``to_empty``."""
    model = holding(rnn=nn.LSTM(I, H, 2))
    state = {name: value * 0.5 for name, value in model.state_dict().items()}
    half = copy.deepcopy(model)
    half.load_state_dict(state)
    twin = swapped_copy(model).to("meta")
    twin.load_state_dict(state, assign=True)
    torch.testing.assert_close(call(twin), call(half))
    empty = swapped_copy(model).to("meta").to_empty(device="cpu")
    empty.load_state_dict(state)
    torch.testing.assert_close(call(empty), call(half))


def test_shared_memory_and_averages() -> None:
    """tianshou and others: ``share_memory``, a target network moved by ``lerp_``."""

    def run(model: Any) -> Any:
        target = copy.deepcopy(model)
        model.share_memory()
        assert all(p.is_shared() for p in model.parameters())
        for p in model.parameters():
            p.data.mul_(1.1)
        for old, new in zip(target.parameters(), model.parameters(), strict=True):
            old.data.lerp_(new.data, 0.25)
        return [call(model), call(target)]

    assert_same_after_swap(holding(rnn=nn.GRU(I, H, 2)), run)


# ---- asked about


@each_kind
def test_a_layer_is_built_from_anothers_attributes(kind: str) -> None:
    """opacus, rsl_rl: attributes give the arguments, state_dict the weights; ``mode`` the kind."""
    twin = swapped_copy(holding(rnn=getattr(nn, kind)(I, H, 2, dropout=0.1, bidirectional=True)))
    rnn: Any = twin["rnn"]
    names = ["input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout"]
    again = getattr(nn, kind)(**{n: getattr(rnn, n) for n in [*names, "bidirectional"]})
    again.load_state_dict(rnn.state_dict())
    torch.testing.assert_close(rnn.eval()(numbers(T, B, I)), again.eval()(numbers(T, B, I)))
    for name in ("mode", "proj_size", "__constants__", "_all_weights", "_flat_weights_names"):
        assert getattr(rnn, name) == getattr(again, name)
    assert rnn._get_name() == again._get_name() == kind
    assert repr(rnn) == repr(again)
    torch.testing.assert_close(rnn.all_weights, again.all_weights)
    torch.testing.assert_close(list(rnn._flat_weights), list(again._flat_weights))
    assert getattr(rnn, "nonlinearity", "") == getattr(again, "nonlinearity", "")


def test_dropout_changed_between_calls() -> None:
    """torch's own tests: ``rnn.dropout`` counts at the time of the call."""
    rnn: Any = swapped_copy(holding(rnn=nn.LSTM(I, H, 2, dropout=0.5)))["rnn"]
    x = numbers(T, B, I)
    assert not torch.equal(rnn(x)[0], rnn(x)[0])
    rnn.dropout = 0.0
    torch.testing.assert_close(rnn(x)[0], rnn.eval()(x)[0])
    rnn.train().dropout = 1
    dropped = rnn(x)[0]
    assert torch.equal(dropped[:, :1].expand_as(dropped), dropped)  # nothing of x arrives


def test_a_packed_sequence_made_by_hand() -> None:
    """flair and others: ``PackedSequence(f(packed.data), packed.batch_sizes)`` between layers."""

    def run(model: Any) -> Tensor:
        packed = pack_padded_sequence(numbers(T, B, I), torch.tensor([6, 4, 4, 1]))
        inner = PackedSequence(F.dropout(packed.data, 0.3), packed.batch_sizes)
        y, _ = model["a"](inner)
        y, _ = model["b"](y._replace(data=y.data.relu()))
        return y.data

    assert_same_after_swap(holding(a=nn.LSTM(I, H), b=nn.GRU(H, H, bidirectional=True)), run)


def test_hidden_states_repackaged_and_a_tied_decoder() -> None:
    """torch's word language model: ``tuple(h.detach())`` per batch, weights of the ends tied."""

    def repackage(h: Any) -> Any:
        return h.detach() if isinstance(h, Tensor) else tuple(repackage(part) for part in h)

    def run(model: Any) -> list[Tensor]:
        model["out"].weight = model["embed"].weight
        weight = next(model.parameters())
        h: Any = (weight.new_zeros(2, B, H), weight.new_zeros(2, B, H))
        seen = []
        for piece in torch.arange(3 * T * B).reshape(3, T, B) % 11:
            h = repackage(h)
            y, h = model["rnn"](model["embed"](piece), h)
            seen.append(model["out"](y.view(-1, H)))
        return seen

    parts = {"embed": nn.Embedding(11, H), "rnn": nn.LSTM(H, H, 2), "out": nn.Linear(H, 11)}
    assert_same_after_swap(holding(**parts), run)
