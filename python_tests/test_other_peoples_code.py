"""What published packages do around recurrent layers, in a few lines of our own, before and after.

Each test names the package in whose code the pattern was seen; none of them is needed here.
"""

import copy
from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Any

import pytest
import torch
from before_and_after import assert_same_after_swap, holding
from recurrence_cases import KINDS, numbers
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

T, B, I, H = 6, 4, 5, 6  # noqa: E741
each_kind = pytest.mark.parametrize("kind", KINDS)
gated = pytest.mark.parametrize("kind", ["LSTM", "GRU"])


# ---- states


@gated
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_states_of_finished_episodes_are_zeroed_in_place(kind: str, mode: Any) -> None:
    """rsl_rl: a rollout keeps hx and writes zeros to the columns of environments that are done."""

    def run(model: Any) -> list[Tensor]:
        state, seen = None, []
        with mode():
            for t, x in enumerate(numbers(T, B, I)):
                y, state = model["rnn"](x.unsqueeze(0), state)
                seen.append(y.squeeze(0))
                done = torch.arange(B) == t % B
                for part in state if isinstance(state, tuple) else (state,):
                    part[..., done == 1, :] = 0.0
        return seen

    assert_same_after_swap(holding(rnn=getattr(nn, kind)(I, H, 2)), run, grads=False)


@gated
def test_columns_of_a_state_are_detached_in_place(kind: str) -> None:
    """rsl_rl: ``h[..., done, :] = h[..., done, :].detach()`` while the graph goes on."""

    def run(model: Any) -> list[Tensor]:
        state, seen = None, []
        for t, x in enumerate(numbers(T, B, I)):
            y, state = model["rnn"](x.unsqueeze(0), state)
            seen.append(y)
            done = torch.arange(B) == t % B
            for part in state if isinstance(state, tuple) else (state,):
                part[..., done == 1, :] = part[..., done == 1, :].detach()
        return seen

    assert_same_after_swap(holding(rnn=getattr(nn, kind)(I, H)), run)


class Exported(nn.Module):
    """A copy of a layer with its states in buffers, chosen by isinstance."""

    def __init__(self, rnn: nn.Module) -> None:
        super().__init__()
        if not isinstance(rnn, nn.LSTM):
            raise NotImplementedError(f"Unsupported RNN type: {type(rnn)}")
        self.rnn = copy.deepcopy(rnn)
        self.rnn.cpu()
        for name in ("hidden", "cell"):
            self.register_buffer(name, torch.zeros(rnn.num_layers, 1, rnn.hidden_size))

    def forward(self, x: Tensor) -> Tensor:
        y, (h, c) = self.rnn(x.unsqueeze(0), (self.hidden, self.cell))
        self.hidden[:] = h
        self.cell[:] = c
        return y.squeeze(0)


def test_states_are_copied_into_buffers() -> None:
    """rsl_rl: the exported policy holds its states as buffers and writes them at each call."""

    def run(model: Any) -> list[Tensor]:
        policy = Exported(model["rnn"])
        with torch.no_grad():
            seen = [policy(x) for x in numbers(T, 1, I)]
        return [*seen, policy.hidden, policy.cell]

    assert_same_after_swap(holding(rnn=nn.LSTM(I, H, 2)), run, grads=False)


def test_states_times_a_mask_at_episode_starts() -> None:
    """sb3_contrib: rows of a flat batch to sequences, one call per step, states times a mask."""

    def run(model: Any) -> list[Tensor]:
        lstm, state = model["lstm"], (numbers(1, B, H), numbers(1, B, H, seed=2))
        rows = numbers(B * T, I).reshape(B, -1, lstm.input_size).swapaxes(0, 1)
        starts = (numbers(B * T, seed=5) > 0.8).float().reshape(B, -1).swapaxes(0, 1)
        seen = []
        for x, start in zip(rows, starts, strict=True):
            keep = (1.0 - start).view(1, B, 1)
            y, state = lstm(x.unsqueeze(0), (keep * state[0], keep * state[1]))
            seen += [y]
        return [torch.flatten(torch.cat(seen).transpose(0, 1), 0, 1), *state]

    assert_same_after_swap(holding(lstm=nn.LSTM(I, H)), run)


def test_one_tensor_is_both_states() -> None:
    """neuralforecast (dilated RNN): ``(zeros, zeros)``, batches interleaved by strided slices."""

    def run(model: Any) -> Tensor:
        x = numbers(B, 8, I).transpose(0, 1)
        for cell, rate in zip(model["cells"], (1, 2, 4), strict=True):
            x = torch.cat([x[j::rate] for j in range(rate)], 1)
            zeros = torch.zeros(B * rate, H).unsqueeze(0)
            y, _ = cell(x, (zeros, zeros))
            blocks = [y[:, i * B : (i + 1) * B, :] for i in range(rate)]
            x = torch.stack(blocks).transpose(1, 0).reshape(y.size(0) * rate, B, H)
        return x.transpose(0, 1)

    cells = nn.Sequential(nn.LSTM(I, H), nn.LSTM(H, H), nn.LSTM(H, H))
    assert_same_after_swap(holding(cells=cells), run)


def test_a_projection_to_one_number_is_fed_back() -> None:
    """neuralforecast: ``proj_size=1``; a state kept on the model while it forecasts."""

    def run(model: Any) -> Tensor:
        y, state = model["lstm"](numbers(B, T, 1), None)
        seen = [y]
        for _ in range(3):
            y, state = model["lstm"](y[:, -1:], state)
            seen.append(y)
        return torch.cat(seen, 1)

    assert_same_after_swap(holding(lstm=nn.LSTM(1, H, 2, batch_first=True, proj_size=1)), run)


def test_states_are_stored_batch_first() -> None:
    """tianshou: states leave as ``transpose(0, 1).detach()`` and return ``.contiguous()``."""

    def run(model: Any) -> list[Tensor]:
        state, seen = None, []
        for x in numbers(T, B, I):
            model["nn"].flatten_parameters()
            if state is None:
                y, (h, c) = model["nn"](x.unsqueeze(-2))
            else:
                back = [s.transpose(0, 1).contiguous() for s in state]
                y, (h, c) = model["nn"](x.unsqueeze(-2), (back[0], back[1]))
            state = (h.transpose(0, 1).detach(), c.transpose(0, 1).detach())
            seen.append(y[:, -1])
        return seen

    assert_same_after_swap(holding(nn=nn.LSTM(I, H, 2, batch_first=True)), run)


def test_an_encoders_states_start_a_decoder_with_more_rows() -> None:
    """pytorch-forecasting: ``repeat_interleave`` of the encoder's states for samples."""

    def run(model: Any) -> Tensor:
        _, (h, c) = model["encoder"](numbers(B, T, I))
        h, c = (s.repeat_interleave(3, 1) for s in (h, c))
        return model["decoder"](numbers(B * 3, 2, I), (h, c))[0]

    parts = {name: nn.LSTM(I, H, 2, batch_first=True) for name in ("encoder", "decoder")}
    assert_same_after_swap(holding(**parts), run)


@each_kind
def test_the_last_layers_state_by_a_view(kind: str) -> None:
    """darts, flair: ``h_n.view(layers, directions, B, H)[-1]``, and both directions joined."""

    def run(model: Any) -> Tensor:
        rnn = model["rnn"]
        _, h = rnn(numbers(B, T, I))
        h = h[0] if kind == "LSTM" else h
        directions = 2 if rnn.bidirectional else 1
        last = h.view(rnn.num_layers, directions, B, rnn.hidden_size)[-1]
        return torch.cat([last[0], last[1]], -1)

    rnn = getattr(nn, kind)(I, H, 2, batch_first=True, bidirectional=True)
    assert_same_after_swap(holding(rnn=rnn), run)


# ---- lengths


def test_relative_lengths() -> None:
    """speechbrain: lengths are fractions of T, in float, and unsorted."""

    def run(model: Any) -> list[Tensor]:
        x = numbers(B, 8, 2, 3).reshape(B, 8, 6)
        lengths = (torch.tensor([0.5, 1.0, 0.25, 0.75]) * x.size(1)).cpu()
        rnn = model["rnn"]
        rnn.flatten_parameters()
        y, h = rnn(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False), None)
        return [pad_packed_sequence(y, batch_first=True)[0], h]

    options = {"num_layers": 2, "bidirectional": True, "batch_first": True}
    assert_same_after_swap(holding(rnn=nn.GRU(6, H, **options)), run)


def test_lengths_from_numpy() -> None:
    """speechbrain (Tacotron 2): ``input_lengths.cpu().numpy()``, rows sorted."""

    def run(model: Any) -> Tensor:
        lengths = torch.tensor([8, 5, 5, 1]).numpy()
        y, _ = model["lstm"](
            pack_padded_sequence(numbers(B, I, 8).transpose(1, 2), lengths, batch_first=True)
        )
        return pad_packed_sequence(y, batch_first=True)[0]

    assert_same_after_swap(
        holding(lstm=nn.LSTM(I, 3, 1, batch_first=True, bidirectional=True)), run
    )


class Flexible(ABC, nn.RNNBase):
    """An abstract layer for rows of length 0, to stand before torch.nn's."""

    @abstractmethod
    def zeros(self, x: Tensor) -> Any: ...

    def forward(self, x: Tensor | PackedSequence, hx: Any = None, lengths: Any = None) -> Any:
        if lengths is None:
            return super().forward(x, hx=hx)
        ones = lengths.where(lengths > 0, torch.ones_like(lengths))
        packed = pack_padded_sequence(x, ones, batch_first=True, enforce_sorted=False)
        y, states = super().forward(packed, hx=hx)
        absent = (lengths == 0)[None, :, None]
        first = self.zeros(x) if hx is None else hx
        states = tuple(s.masked_scatter(absent, f) for s, f in zip(states, first, strict=True))
        return pad_packed_sequence(y, batch_first=True)[0], states


class FlexibleLSTM(Flexible, nn.LSTM):
    def zeros(self, x: Tensor) -> Any:
        zeros = x.new_zeros(self.num_layers, x.size(0), self.hidden_size)
        return zeros, zeros.clone()


@pytest.mark.parametrize("lengths", [None, [3, 0, 6, 0]], ids=["plain", "lengths"])
def test_an_abstract_base_before_torch_nns(lengths: list[int] | None) -> None:
    """pytorch-forecasting: ``class RNN(ABC, nn.RNNBase)``, whose lengths may be 0."""

    def run(model: Any) -> Any:
        given = None if lengths is None else torch.tensor(lengths)
        return model["lstm"](numbers(B, T, I), lengths=given)

    model = holding(lstm=FlexibleLSTM(I, H, 2, batch_first=True))
    assert_same_after_swap(model, run, subclasses=True)


# ---- what surrounds a call


@pytest.mark.parametrize("max_steps", [8, 100], ids=["framed", "whole"])
def test_overlapping_frames(max_steps: int) -> None:
    """demucs, torchaudio: (B, C, T) is cut into frames and permuted to (T, B, C)."""

    def run(model: Any) -> Tensor:
        x = numbers(2, I, 20)
        framed = x.shape[-1] > max_steps
        frames = x.unfold(-1, max_steps, max_steps // 2) if framed else x.unsqueeze(2)
        frames = frames.permute(0, 2, 1, 3).reshape(-1, I, frames.shape[-1])
        y = model["linear"](model["lstm"](frames.permute(2, 0, 1))[0])
        return y.permute(1, 2, 0) + frames

    lstm = nn.LSTM(bidirectional=True, num_layers=2, hidden_size=I, input_size=I)
    assert_same_after_swap(holding(lstm=lstm, linear=nn.Linear(2 * I, I)), run)


def test_residuals_and_relus_in_place() -> None:
    """torchaudio (WaveRNN): two GRUs, each with the input added, and ReLUs in place behind."""

    def run(model: Any) -> Tensor:
        x, aux = numbers(B, T, H), numbers(B, T, 2, seed=4)
        h = torch.zeros(1, B, H)
        y, _ = model["rnn1"](x, h)
        y = y + x
        z, _ = model["rnn2"](torch.cat([y, aux], -1), h)
        return model["relu"](z + y) + model["relu"](model["rnn1"](z)[0])

    parts = {"rnn1": nn.GRU(H, H, batch_first=True), "rnn2": nn.GRU(H + 2, H, batch_first=True)}
    assert_same_after_swap(holding(**parts, relu=nn.ReLU(inplace=True)), run)


def test_the_two_directions_are_added() -> None:
    """torchaudio (Deep Speech): a ReLU RNN of two directions, whose halves are added."""

    def run(model: Any) -> Tensor:
        y, _ = model["rnn"](F.hardtanh(numbers(B, T, H), 0, 20).squeeze(1).transpose(0, 1))
        return F.hardtanh(y[:, :, :H] + y[:, :, H:], 0, 20)

    rnn = nn.RNN(H, H, num_layers=1, nonlinearity="relu", bidirectional=True)
    assert_same_after_swap(holding(rnn=rnn), run)


def test_cells_with_dropout_between_steps() -> None:
    """torchaudio, speechbrain (Tacotron 2): two LSTMCells, attention, dropout of the states."""

    def run(model: Any) -> list[Tensor]:
        memory = numbers(B, T, H)
        ah, ac, dh, dc, context = (torch.zeros(B, H) for _ in range(5))
        weights, seen = torch.zeros(B, T), []
        for x in numbers(4, B, I):
            ah, ac = model["attention"](torch.cat((x, context), -1), (ah, ac))
            ah = F.dropout(ah, 0.1, True)
            now = torch.softmax((memory @ ah.unsqueeze(2)).squeeze(2), -1)
            weights += now.detach()
            context = torch.bmm(now.unsqueeze(1), memory).squeeze(1)
            dh, dc = model["decoder"](torch.cat((ah, context), -1), (dh, dc))
            dh = F.dropout(dh, 0.1, True)
            seen.append(torch.cat((dh, context), 1))
        return [*seen, weights]

    parts = {"attention": nn.LSTMCell(I + H, H), "decoder": nn.LSTMCell(2 * H, H, True)}
    assert_same_after_swap(holding(**parts), run)


@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell"])
def test_stacked_cells_and_a_size_from_a_product(kind: str) -> None:
    """speechbrain: ``input_size`` is a tensor (a product), states are stacked and indexed."""

    def run(model: Any) -> list[Tensor]:
        h = c = torch.zeros(2, B, H)
        for x in numbers(T, B, 6):
            hs, cs = [], []
            for i, cell in enumerate(model["cells"]):
                made = cell(x, (h[i], c[i]) if kind == "LSTMCell" else h[i])
                x, now = made if kind == "LSTMCell" else (made, made)
                hs.append(x)
                cs.append(now)
            h, c = torch.stack(hs), torch.stack(cs)
        return [h, c]

    size = torch.prod(torch.tensor([2, 3]))
    cells = [getattr(nn, kind)(input_size=size, hidden_size=H, bias=True)]
    cells += [getattr(nn, kind)(input_size=H, hidden_size=H, bias=True)]
    assert_same_after_swap(holding(cells=nn.ModuleList(cells)), run)


def test_the_product_of_two_layers() -> None:
    """asteroid: ``cat([rnn1(x) * rnn2(x), x])`` with parameters flattened before each call."""

    def run(model: Any) -> Tensor:
        x = numbers(B, T, I)
        for rnn in model.values():
            rnn.flatten_parameters()
        return torch.cat((model["one"](x)[0] * model["two"](x)[0], x), 2)

    options = {"num_layers": 1, "batch_first": True, "bidirectional": True, "dropout": 0}
    parts = {name: nn.LSTM(I, H, **options) for name in ("one", "two")}
    assert_same_after_swap(holding(**parts), run)


class Output(nn.Module):
    def forward(self, both: tuple[Tensor, Any]) -> Tensor:
        return both[0]


@each_kind
def test_layers_in_a_sequential(kind: str) -> None:
    """tsai: layer, a module that picks its output, dropout; sizes differ by layer."""
    sizes, layers = [I, 8, 6, 4], []
    for i, (inner, outer) in enumerate(pairwise(sizes)):
        layers += [getattr(nn, kind)(inner * (2 if i else 1), outer, num_layers=1, bias=True,
                                     batch_first=True, bidirectional=True)]  # fmt: skip
        layers += [Output(), nn.Dropout(0.3)]
    assert_same_after_swap(
        holding(rnn=nn.Sequential(*layers)), lambda model: model["rnn"](numbers(B, T, I))
    )


def test_a_dictionary_of_options_and_one_layer_each() -> None:
    """pyannote: ``nn.LSTM(60, **options)`` whole, and the same as single layers in a list."""
    options = {"hidden_size": H, "num_layers": 1, "bidirectional": True, "dropout": 0.0,
               "batch_first": True}  # fmt: skip

    def run(model: Any) -> Tensor:
        y = numbers(B, I, T).permute(0, 2, 1)
        for i, lstm in enumerate(model["lstm"]):
            y, _ = lstm(y)
            if i + 1 < len(model["lstm"]):
                y = F.dropout(y, 0.5)
        return y

    layers = [nn.LSTM(I if i == 0 else 2 * H, **options) for i in range(3)]
    assert_same_after_swap(holding(lstm=nn.ModuleList(layers)), run)
