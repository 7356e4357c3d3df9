import pytest
import torch

from fastseq.models import RowRNN

CELLS = ["lstm", "gru", "rnn"]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("native", [False, True])
def test_row_rnn_shapes(cell: str, native: bool) -> None:
    model = RowRNN(cell, hidden_size=16, num_classes=7, native=native)
    assert model(torch.rand(5, 1, 28, 28)).shape == (5, 7)
    assert model(torch.rand(5, 28, 28)).shape == (5, 7)
    # One image is a batch of one, never a batch of 28 rows.
    assert model(torch.rand(1, 1, 28, 28)).shape == (1, 7)


def test_row_rnn_reads_other_sizes() -> None:
    model = RowRNN("gru", input_size=12, hidden_size=8)
    assert model(torch.rand(2, 1, 20, 12)).shape == (2, 10)


def test_row_rnn_channel_is_ignored() -> None:
    model = RowRNN("lstm", hidden_size=8)
    images = torch.rand(3, 1, 28, 28)
    assert torch.equal(model(images), model(images.squeeze(1)))


def test_row_rnn_reads_rows_from_the_top() -> None:
    model = RowRNN("rnn", hidden_size=8)
    images = torch.rand(2, 28, 28)
    hidden = torch.zeros(2, 8)
    weights = model.rnn.weight_ih_l0, model.rnn.weight_hh_l0
    biases = model.rnn.bias_ih_l0 + model.rnn.bias_hh_l0
    for row in images.unbind(1):
        hidden = torch.tanh(row @ weights[0].T + hidden @ weights[1].T + biases)
    torch.testing.assert_close(model(images), model.head(hidden))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_row_rnn_matches_its_native_twin(cell: str, num_layers: int) -> None:
    torch.manual_seed(0)
    native = RowRNN(cell, hidden_size=33, num_layers=num_layers, native=True)
    torch.manual_seed(0)
    fused = RowRNN(cell, hidden_size=33, num_layers=num_layers)
    # The same seed gives the same parameters, in the same order.
    for (name, ours), (other, theirs) in zip(
        fused.named_parameters(), native.named_parameters(), strict=True
    ):
        assert name == other
        assert torch.equal(ours, theirs)

    labels = torch.randint(10, (6,))
    gradients, logits = [], []
    for model in (fused, native):
        images = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(1))
        images.requires_grad_()
        logits.append(model(images))
        loss = torch.nn.functional.cross_entropy(logits[-1], labels)
        gradients.append(torch.autograd.grad(loss, [images, *model.parameters()]))
    torch.testing.assert_close(*logits)
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_row_rnn_uses_fastseq_unless_native() -> None:
    import fastseq.nn

    assert type(RowRNN("lstm").rnn) is fastseq.nn.LSTM
    assert type(RowRNN("lstm", native=True).rnn) is torch.nn.LSTM


def test_row_rnn_dropout_acts_between_layers_in_training_only() -> None:
    model = RowRNN("gru", hidden_size=16, num_layers=2, dropout=0.5)
    images = torch.rand(4, 28, 28)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_row_rnn_one_layer_takes_dropout_without_a_warning(
    recwarn: pytest.WarningsRecorder,
) -> None:
    RowRNN("lstm", dropout=0.5)
    assert not [str(item.message) for item in recwarn]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"cell": "elman"}, "cell is 'elman', expected one of 'lstm', 'gru', 'rnn'"),
        ({"hidden_size": 0}, "hidden_size is 0, expected at least 1"),
        ({"input_size": -3}, "input_size is -3, expected at least 1"),
        ({"num_layers": 0}, "num_layers is 0, expected at least 1"),
        ({"num_classes": 0}, "num_classes is 0, expected at least 1"),
        ({"dropout": 1.0}, "dropout is 1.0, expected 0 <= dropout < 1"),
        ({"dropout": float("nan")}, "dropout is nan"),
    ],
)
def test_row_rnn_refuses_arguments(arguments: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        RowRNN(**arguments)


@pytest.mark.parametrize(
    "shape", [(28, 28), (2, 3, 28, 28), (2, 1, 28, 20), (2, 28, 20), (2, 0, 28), (1, 2, 1, 28, 28)]
)
def test_row_rnn_refuses_images(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError) as error:
        RowRNN("lstm", hidden_size=8)(torch.rand(shape))
    assert f"images have shape {shape}, expected (B, 1, rows, 28)" in str(error.value)
