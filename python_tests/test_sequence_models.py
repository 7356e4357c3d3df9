"""CharRNN, Seq2Seq and SequenceTagger: twins, padding, writing, decoding, errors."""

import doctest
import importlib
import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fastseq
from fastseq.models import CharRNN, Seq2Seq, SequenceTagger
from fastseq.models.attention import Attention

pytestmark = pytest.mark.usefixtures("one_thread")

SRC = torch.tensor([[3, 1, 4, 1, 5], [2, 6, 0, 0, 0], [5, 3, 5, 0, 0]])
TGT = torch.tensor([[1, 7, 8, 2], [1, 9, 2, 0], [1, 3, 2, 0]])
LENGTHS = torch.tensor([5, 2, 3])
Call = Callable[[nn.Module], Tensor]

# Name: (class, arguments, call); every one has ragged batches where it can.
MODELS: dict[str, tuple[type[nn.Module], dict, Call]] = {
    **{
        f"char_{cell}": (
            CharRNN,
            {"vocab_size": 11, "cell": cell, "embedding_size": 7, "hidden_size": 9},
            lambda model: model(SRC),
        )
        for cell in ("lstm", "gru", "rnn")
    },
    **{
        f"seq2seq_{cell}{'_attention' if attention else ''}": (
            Seq2Seq,
            {
                "src_vocab": 11,
                "tgt_vocab": 12,
                "cell": cell,
                "embedding_size": 7,
                "hidden_size": 9,
                "num_layers": 2,
                "attention": attention,
            },
            lambda model: model(SRC, TGT),
        )
        for cell, attention in itertools.product(("lstm", "gru"), (False, True))
    },
    "tagger": (
        SequenceTagger,
        {"vocab_size": 11, "num_tags": 5, "embedding_size": 7, "hidden_size": 9, "num_layers": 2},
        lambda model: model(SRC, LENGTHS),
    ),
}


def build(name: str, **options: object) -> nn.Module:
    kind, arguments, _ = MODELS[name]
    torch.manual_seed(0)
    return kind(**{**arguments, **options})


@pytest.mark.parametrize("name", MODELS)
def test_native_twin_has_the_same_parameters_outputs_and_gradients(name: str) -> None:
    fused, native = build(name), build(name, native=True)
    for (ours, value), (theirs, other) in zip(
        fused.named_parameters(), native.named_parameters(), strict=True
    ):
        assert ours == theirs
        assert torch.equal(value, other)
    outputs, gradients = [], []
    for model in (fused, native):
        outputs.append(MODELS[name][2](model))
        weights = torch.randn(outputs[-1].shape, generator=torch.Generator().manual_seed(1))
        gradients.append(torch.autograd.grad((outputs[-1] * weights).sum(), model.parameters()))
    torch.testing.assert_close(*outputs)
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_state_dict_loads_either_way_and_layers_are_whose_they_should_be(name: str) -> None:
    fused, native = build(name), build(name, native=True)
    changed = {key: value + 0.01 for key, value in fused.state_dict().items()}
    native.load_state_dict(changed)
    fused.load_state_dict(native.state_dict())
    torch.testing.assert_close(MODELS[name][2](fused), MODELS[name][2](native))
    ours, theirs = (fastseq.LSTM, fastseq.GRU, fastseq.RNN), (nn.LSTM, nn.GRU, nn.RNN)
    layers = [module for module in fused.modules() if isinstance(module, nn.RNNBase)]
    assert layers
    assert all(isinstance(layer, ours) for layer in layers)
    assert all(type(m) in theirs for m in native.modules() if isinstance(m, nn.RNNBase))


@pytest.mark.parametrize(
    "name",
    ["char_rnn", "seq2seq", "sequence_tagger", "attention", "row_rnn"],
)
def test_examples_run(name: str) -> None:
    torch.manual_seed(0)
    result = doctest.testmod(importlib.import_module(f"fastseq.models.{name}"))
    assert result.attempted > 1
    assert result.failed == 0


# CharRNN


def test_char_rnn_reads_on_from_its_state() -> None:
    model = build("char_lstm")
    whole = model(SRC)
    first, state = model.read(SRC[:, :2])
    rest, _ = model.read(SRC[:, 2:], state)
    torch.testing.assert_close(torch.cat([first, rest], dim=1), whole)


def test_generate_carries_the_state() -> None:
    model = build("char_gru")
    written = model.generate(SRC[:, :2], 6, temperature=0.0)
    assert torch.equal(written[:, :2], SRC[:, :2])
    # The likeliest after each beginning, every beginning read anew.
    for step in range(2, 8):
        assert torch.equal(written[:, step], model(written[:, :step])[:, -1].argmax(dim=1))


def test_generate_draws_from_the_distribution_at_a_temperature() -> None:
    model = build("char_rnn")
    prompt = torch.tensor([[3, 4]]).repeat(20_000, 1)
    drawn = model.generate(prompt, 1, temperature=0.5, seed=0)[:, -1]
    shares = torch.bincount(drawn, minlength=11) / len(drawn)
    expected = (model(prompt[:1])[0, -1] / 0.5).softmax(dim=0)
    torch.testing.assert_close(shares, expected.detach(), rtol=0.0, atol=0.015)


def test_generate_top_k_takes_the_likeliest_alone_ties_or_not() -> None:
    model = build("char_rnn")
    prompt = torch.tensor([[3, 4]]).repeat(500, 1)
    drawn = model.generate(prompt, 1, top_k=3, seed=0)[:, -1]
    allowed = model(prompt[:1])[0, -1].topk(3).indices
    assert set(drawn.tolist()) == set(allowed.tolist())
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)
    assert len(set(model.generate(prompt, 1, top_k=3, seed=0)[:, -1].tolist())) == 3


def test_generate_same_seed_same_text() -> None:
    model = build("char_lstm")
    one, two = (model.generate(SRC[:, :1], 12, seed=5) for _ in range(2))
    by_generator = model.generate(SRC[:, :1], 12, seed=torch.Generator().manual_seed(5))
    other = model.generate(SRC[:, :1], 12, seed=6)
    assert torch.equal(one, two)
    assert torch.equal(one, by_generator)
    assert not torch.equal(one, other)


def test_generate_stops_each_row_and_then_altogether() -> None:
    model = build("char_lstm")
    written = model.generate(SRC[:, :1].repeat(4, 1), 400, seed=0, stop=7)[:, 1:]
    assert written.size(1) < 400
    for row in written:
        (stops,) = (row == 7).nonzero(as_tuple=True)
        assert len(stops)
        assert bool((row[stops[0] :] == 7).all())
    # The longest row ends with its first stop.
    assert bool((written[:, -2] != 7).any())


def test_generate_leaves_every_module_in_its_mode() -> None:
    model = build("char_lstm", num_layers=2, dropout=0.5)
    model.train()
    model.head.eval()
    one, two = (model.generate(SRC, 5, temperature=0.0) for _ in range(2))
    assert torch.equal(one, two)
    assert model.training
    assert not model.head.training


# SequenceTagger


@pytest.mark.parametrize("native", [False, True])
def test_tagger_padding_changes_nothing(native: bool) -> None:
    model = build("tagger", native=native)
    together = model(SRC, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = model(SRC[row : row + 1, :length])
        torch.testing.assert_close(together[row, :length], alone[0])
    other = SRC.clone()
    other[1, 2:] = 9
    assert torch.equal(model(other, LENGTHS)[1, :2], together[1, :2])


def test_tagger_reads_in_both_directions() -> None:
    model = build("tagger")
    changed = SRC.clone()
    changed[0, 0], changed[0, 4] = 8, 8
    before, after = model(SRC)[0, 2], model(changed)[0, 2]
    assert not torch.allclose(before, after)
    only_last = SRC.clone()
    only_last[0, 4] = 8
    assert not torch.allclose(before, model(only_last)[0, 2])


def test_tagger_tags_without_dropout() -> None:
    model = build("tagger", dropout=0.6)
    tags = model.tag(SRC, LENGTHS)
    assert tags.shape == SRC.shape
    assert all(torch.equal(tags, model.tag(SRC, LENGTHS)) for _ in range(3))
    assert not torch.equal(model(SRC), model(SRC))


# Seq2Seq


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("seq2seq")])
def test_seq2seq_padding_changes_nothing(name: str) -> None:
    model = build(name)
    together = model(SRC, TGT)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = model(SRC[row : row + 1, :length], TGT[row : row + 1])
        torch.testing.assert_close(together[row], alone[0])


def test_seq2seq_teacher_forcing_reads_no_later_target() -> None:
    model = build("seq2seq_lstm_attention")
    changed = TGT.clone()
    changed[:, 3] = 5
    torch.testing.assert_close(model(SRC, changed)[:, :3], model(SRC, TGT)[:, :3])


def test_attention_is_luongs_formula() -> None:
    torch.manual_seed(0)
    attention = Attention(4)
    queries, memory = torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    padded = torch.tensor([[False] * 5, [False, False, True, True, True]])
    output, weights = attention(queries, memory, padded)
    for b, t in itertools.product(range(2), range(3)):
        real = memory[b][~padded[b]]
        scores = torch.stack([queries[b, t] @ attention.score.weight.T @ m for m in real])
        expected = (scores - scores.max()).exp() / (scores - scores.max()).exp().sum()
        torch.testing.assert_close(weights[b, t, : len(real)], expected)
        context = (expected.unsqueeze(1) * real).sum(dim=0)
        both = torch.cat([context, queries[b, t]])
        torch.testing.assert_close(output[b, t], torch.tanh(attention.combine.weight @ both))
    assert bool((weights[1, :, 2:] == 0.0).all())


@pytest.mark.parametrize("name", ["seq2seq_lstm", "seq2seq_gru_attention"])
def test_greedy_takes_the_likeliest_token_and_equals_one_beam(name: str) -> None:
    model = build(name)
    for src, written in zip(SRC, model.greedy_decode(SRC, 1, 2, 7), strict=True):
        read = [1]
        for token in written.tolist():
            assert int(model(src[None], torch.tensor([read]))[0, -1].argmax()) == token
            read.append(token)
        last = int(model(src[None], torch.tensor([read]))[0, -1].argmax())
        assert last == 2 or len(written) == 7
    one = model.beam_decode(SRC, 1, 2, 7, beams=1)
    greedy = model.greedy_decode(SRC, 1, 2, 7)
    assert all(torch.equal(a, b) for a, b in zip(one, greedy, strict=True))


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_wide_beam_finds_the_likeliest_of_all_sequences(cell: str, penalty: float) -> None:
    torch.manual_seed(3)
    model = Seq2Seq(7, 4, cell, 5, 6, attention=True)
    with torch.no_grad():
        model.head.weight *= 4.0
    src = torch.tensor([[3, 1, 4], [2, 6, 0], [5, 0, 0]])
    end, longest = 2, 4
    found = model.beam_decode(src, 1, end, longest, beams=4**longest, length_penalty=penalty)
    for row, best in zip(src, found, strict=True):
        scores = {}
        for length in range(1, longest + 1):
            for tokens in itertools.product(range(4), repeat=length):
                # Whole sequences: end comes last, or nowhere where there is no more room.
                if end in tokens[:-1] or (tokens[-1] != end and length < longest):
                    continue
                read = torch.tensor([[1, *tokens[:-1]]])
                logp = model(row[None], read)[0].detach().log_softmax(dim=1)
                total = sum(float(logp[i, token]) for i, token in enumerate(tokens))
                scores[tokens] = total / length**penalty
        likeliest = max(scores, key=scores.__getitem__)
        expected = likeliest[:-1] if likeliest[-1] == end else likeliest
        assert tuple(best.tolist()) == expected


def test_seq2seq_learns_to_reverse() -> None:
    torch.manual_seed(0)
    model = Seq2Seq(9, 11, "gru", 16, 48, attention=True)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    digits = torch.randint(1, 9, (256, 5))
    target = torch.cat([digits.flip(1), torch.full((256, 1), 10)], dim=1)
    tgt = torch.cat([torch.full((256, 1), 9), target[:, :-1]], dim=1)
    for _ in range(120):
        loss = nn.functional.cross_entropy(model(digits, tgt).flatten(0, 1), target.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unseen = torch.randint(1, 9, (50, 5))
    for decoded in (
        model.greedy_decode(unseen, 9, 10, 8),
        model.beam_decode(unseen, 9, 10, 8, beams=3),
    ):
        right = sum(torch.equal(a, b) for a, b in zip(decoded, unseen.flip(1), strict=True))
        assert right >= 45


# Errors


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("char_lstm", {"vocab_size": 0}, "vocab_size is 0, expected at least 1"),
        ("char_lstm", {"cell": "elman"}, "cell is 'elman', expected one of 'lstm', 'gru', 'rnn'"),
        ("char_lstm", {"embedding_size": -1}, "embedding_size is -1, expected at least 1"),
        ("char_lstm", {"dropout": float("nan")}, "dropout is nan, expected 0 <= dropout < 1"),
        ("seq2seq_gru", {"cell": "rnn"}, "cell is 'rnn', expected one of 'lstm', 'gru'"),
        ("seq2seq_gru", {"src_vocab": 0}, "src_vocab is 0"),
        ("seq2seq_gru", {"padding": 11}, "padding is 11, expected a token of both vocabularies"),
        ("tagger", {"num_tags": 0}, "num_tags is 0"),
        ("tagger", {"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_bad_arguments_get_a_sentence(name: str, options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build(name, **options)


@pytest.mark.parametrize(
    ("name", "call", "sentence"),
    [
        ("char_lstm", lambda m: m(SRC[0]), r"tokens has shape \(5,\), expected \(B, T\)"),
        ("char_lstm", lambda m: m(SRC.float()), "tokens has dtype torch.float32"),
        ("char_lstm", lambda m: m(SRC + 9), "tokens holds 15, expected 0 to 10"),
        ("char_lstm", lambda m: m(SRC - 1), "tokens holds -1, expected 0 to 10"),
        ("char_lstm", lambda m: m.generate(SRC[:, :0], 3), r"prompt has shape \(3, 0\)"),
        ("char_lstm", lambda m: m.generate(SRC, -1), "length is -1, expected 0 or more"),
        ("char_lstm", lambda m: m.generate(SRC, 3, temperature=-1.0), "temperature is -1.0"),
        ("char_lstm", lambda m: m.generate(SRC, 3, top_k=0), "top_k is 0, expected at least 1"),
        ("char_lstm", lambda m: m.generate(SRC, 3, stop=11), "stop is 11, expected a token"),
        ("tagger", lambda m: m(SRC, LENGTHS[:2]), r"lengths has shape \(2,\), expected \(3,\)"),
        ("tagger", lambda m: m(SRC, LENGTHS - 2), "lengths run from 0 to 3, expected 1 to 5"),
        ("tagger", lambda m: m(SRC, LENGTHS + 2), "lengths run from 4 to 7, expected 1 to 5"),
        ("seq2seq_gru", lambda m: m(SRC.flip(1), TGT), r"src has padding \(0\) before a token"),
        ("seq2seq_gru", lambda m: m(0 * SRC, TGT), r"src has a sequence of padding \(0\) alone"),
        ("seq2seq_gru", lambda m: m(SRC, TGT + 9), "tgt holds 18, expected 0 to 11"),
        ("seq2seq_gru", lambda m: m(SRC, TGT[0]), "tgt has shape"),
        ("seq2seq_gru", lambda m: m.greedy_decode(SRC, 1, 12, 4), "end is 12, expected a token"),
        ("seq2seq_gru", lambda m: m.greedy_decode(SRC, 1, 2, 0), "max_length is 0"),
        ("seq2seq_gru", lambda m: m.beam_decode(SRC, 1, 2, 4, beams=0), "beams is 0"),
    ],
)
def test_bad_input_gets_a_sentence(name: str, call: Call, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call(build(name))


# The lecture's worked exercise


def test_gradient_through_three_steps_is_the_worked_exercise() -> None:
    """For h_0 = 0, dh_3/dx_1 = s'(z_3) W s'(z_2) W s'(z_1) V."""
    torch.manual_seed(0)
    rnn = fastseq.RNN(4, 6, batch_first=True).double()
    inputs = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    jacobian = torch.autograd.functional.jacobian(lambda x: rnn(x)[0][0, 2], inputs)[:, 0, 0]

    w, v = rnn.weight_hh_l0.detach(), rnn.weight_ih_l0.detach()
    bias = (rnn.bias_ih_l0 + rnn.bias_hh_l0).detach()
    hidden, slopes = torch.zeros(6, dtype=torch.float64), []
    for x in inputs.detach()[0]:
        hidden = torch.tanh(w @ hidden + v @ x + bias)
        slopes.append(torch.diag(1.0 - hidden**2))  # s'(z_t), as tanh' = 1 - tanh^2
    expected = slopes[2] @ w @ slopes[1] @ w @ slopes[0] @ v  # (H, I)
    torch.testing.assert_close(jacobian, expected)
