"""Models that swap() is tried on, and what must be as it was after."""

from typing import Any

import torch
from recurrence_cases import numbers
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import fastseq
from fastseq.swap import Swapped


class Net(nn.Module):
    """Nested and shared modules, and the pattern twice."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.ReLU(inplace=True),
            nn.LocalResponseNorm(5, 5e-4, k=2.0),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(8, 6, 3),
            nn.LocalResponseNorm(3),
            nn.Sequential(
                nn.ReLU(), nn.LocalResponseNorm(3, 1e-2), nn.MaxPool2d(2, ceil_mode=True)
            ),
        )
        self.pool = nn.MaxPool2d(2)
        self.same_pool = self.pool
        self.lstm = nn.LSTM(6, 4, 2, batch_first=True, bidirectional=True)
        self.cell = nn.GRUCell(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.same_pool(self.features(x))
        y, _ = self.lstm(x.flatten(2).transpose(1, 2))
        return self.cell(y[:, -1])


class Speech(nn.Module):
    """A recogniser: convolutions, a pyramid of BiLSTMs, an attending LSTMCell, a GRU on its states.

    Layers are shared, parametrized, pruned, frozen and hooked, and one is held outside the tree.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.front = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.LocalResponseNorm(3), nn.MaxPool2d(2)
        )
        stack = [nn.LSTM(16, 6, bidirectional=True, dropout=0.0)]
        stack += [nn.LSTM(12, 6, bidirectional=True, proj_size=4)]
        stack += [nn.LSTM(8, 4, 2, bidirectional=True, dropout=0.5)]
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(stack), "norm": nn.LayerNorm(8)})
        self.cell = nn.LSTMCell(8 + 8, 8)
        self.states = nn.ModuleList([nn.GRU(8, 8)])
        self.states.append(self.states[0])  # twice the same
        self.gates = nn.RNN(8, 5, nonlinearity="relu")
        self.head = nn.Linear(5, 7)
        self.aside = [self.gates]
        parametrizations.weight_norm(stack[0], "weight_hh_l0")
        parametrizations.spectral_norm(self.cell, "weight_hh")
        prune.random_unstructured(stack[1], "weight_ih_l0", 0.3)
        for p in stack[2].parameters():
            p.requires_grad_(False)

    def forward(self, sound: Tensor) -> Tensor:
        y = self.front(sound[:, None])  # (B, 4, T / 2, F / 2)
        y = y.permute(2, 0, 1, 3).flatten(2)
        ragged = pack_padded_sequence(y, torch.tensor([10, 6, 3]), enforce_sorted=False)
        for layer in self.encoder["layers"]:
            ragged, _ = layer(ragged)
        memory = self.encoder["norm"](pad_packed_sequence(ragged)[0])  # (T / 2, B, 8)
        state = None
        steps = []
        context = memory.mean(0)
        for _ in range(3):
            state = self.cell(torch.cat([context, memory[0]], 1), state)
            weights = (memory * state[0]).sum(-1, keepdim=True).softmax(0)
            context = (weights * memory).sum(0)
            steps.append(context)
        y = torch.stack(steps)
        for layer in self.states:
            y, _ = layer(y)
        return self.head(self.aside[0](y)[0])


SOUND = numbers(3, 20, 8)


def snapshot(model: nn.Module) -> dict[str, Any]:
    """What must be as it was: objects, kinds, modes, gradients wanted, keys, values."""
    return {
        "modules": [(name, id(m)) for name, m in model.named_modules(remove_duplicate=False)],
        "kinds": [parametrize.type_before_parametrizations(m) for m in model.modules()],
        # Under "__module__" stands that it is a leaf for torch.fx.
        "own": [sorted(set(vars(m)) - {"__module__"}) for m in model.modules()],
        "training": [m.training for m in model.modules()],
        "parameters": [(n, id(p), p.requires_grad) for n, p in model.named_parameters()],
        "buffers": [(n, id(b)) for n, b in model.named_buffers()],
        "keys": list(model.state_dict()),
        "values": [t.detach().clone() for t in model.state_dict().values()],
    }


def assert_same(found: dict[str, Any], expected: dict[str, Any], *but: str) -> None:
    for name, value in expected.items():
        if name in but:
            continue
        if name == "values":
            assert all(torch.equal(a, b) for a, b in zip(found[name], value, strict=True))
        else:
            assert found[name] == value, name


def swapped(model: nn.Module, *args: Any, **options: Any) -> Swapped:
    """Swap; the report, which said before what would happen, and changed nothing."""
    before = snapshot(model)
    report = fastseq.swap_report(model, *args, **options)
    on_meta = any(t.is_meta for t in model.state_dict().values())
    assert_same(snapshot(model), before, *(["values"] if on_meta else []))
    assert fastseq.swap(model, *args, **options) is model
    return report
