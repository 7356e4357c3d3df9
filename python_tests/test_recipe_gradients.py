"""`fastseq study gradients`: what it measures is the Jacobian, and clipping clips."""

import csv
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning", reason="the train extra is not installed")
pytest.importorskip("matplotlib", reason="the train extra is not installed")


from command_line import invoke

from fastseq.recipes.gradients.config import GradientsConfig
from fastseq.recipes.gradients.run import build, gradient_norms, study_gradients, train

pytestmark = pytest.mark.usefixtures("one_thread")


def small(out: Path, **options: object) -> GradientsConfig:
    sizes = {"steps": 30, "input_size": 3, "hidden_size": 16, "batch": 4, "updates": 12}
    return GradientsConfig(out=out, **{**sizes, **options})


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("native", [False, True])
def test_norms_are_those_of_the_jacobian(tmp_path: Path, cell: str, native: bool) -> None:
    layer = build(small(tmp_path, native=native), cell, 1.0, 2.0)
    inputs = torch.randn(2, 5, 3, dtype=torch.float64)
    norms = torch.zeros(5, dtype=torch.float64)
    for sequence in inputs:
        whole = torch.autograd.functional.jacobian(
            lambda x: layer(x.unsqueeze(0))[0][0, -1], sequence
        )  # (H, T, I)
        norms += whole.square().sum(dim=(0, 2)).sqrt() / 2
    torch.testing.assert_close(gradient_norms(layer, inputs), norms)


def test_norms_of_the_rnn_are_the_product_of_the_lecture(tmp_path: Path) -> None:
    layer = build(small(tmp_path), "rnn", 0.0, 1.0)
    inputs = torch.randn(1, 6, 3, dtype=torch.float64)
    hidden = layer(inputs)[0][0]  # (T, H)
    w, v = layer.weight_hh_l0, layer.weight_ih_l0
    expected, back = [], torch.eye(16, dtype=torch.float64)
    for h in reversed(hidden):
        slope = torch.diag(1.0 - h**2)
        expected.append((back @ slope @ v).norm())
        back = back @ slope @ w
    torch.testing.assert_close(gradient_norms(layer, inputs), torch.stack(expected[::-1]).detach())


def test_open_gates_reach_further_and_large_weights_explode(tmp_path: Path) -> None:
    result = study_gradients(small(tmp_path))
    rnn, gru, lstm, closed_gru, closed_lstm = result.plain
    assert rnn.factor < 0.7 < 0.8 < min(gru.factor, lstm.factor)
    assert closed_gru.factor < gru.factor
    assert closed_lstm.factor < lstm.factor
    assert result.exploding[0].factor > 1.0 > rnn.factor
    assert result.figure.read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "gradients.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 * 30
    kept = [float(r["norm"]) for r in rows if (r["cell"], r["gain"]) == ("rnn", "1.0")]
    assert kept == rnn.norms
    assert rnn.factor**29 == pytest.approx(rnn.norms[0] / rnn.norms[-1])


def test_clipping_bounds_what_is_used_and_nothing_else(tmp_path: Path) -> None:
    config = small(tmp_path, clip=0.5)
    free, clipped = train(config, None), train(config, config.clip)
    assert free.applied == free.norms
    assert max(free.norms) > 0.5
    # The same network and the same sequences at first.
    assert clipped.losses[0] == free.losses[0]
    assert clipped.norms[0] == free.norms[0]
    for norm, applied in zip(clipped.norms, clipped.applied, strict=True):
        assert applied == pytest.approx(min(norm, 0.5), rel=1e-4)


def test_command(tmp_path: Path) -> None:
    sizes = ("--steps", "8", "--hidden-size", "4", "--updates", "3", "--batch", "2")
    given = ["study", "gradients", "--out", str(tmp_path), *sizes]
    result = invoke(given)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1].startswith("over 7 steps the gradient changes by ")
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == ["config.yaml", "gradients.csv", "gradients.png"]
    # The same configuration gives the same numbers.
    again = ["study", "gradients", "--config", str(tmp_path / "config.yaml")]
    numbers = (tmp_path / "gradients.csv").read_text()
    assert invoke([*again, "--out", str(tmp_path / "again")]).exit_code == 0
    assert (tmp_path / "again" / "gradients.csv").read_text() == numbers


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--steps", "1"), "steps is 1, expected at least 2"),
        (("--hidden-size", "0"), "hidden_size is 0, expected at least 1"),
        (("--gain", "0"), "gain is 0.0, expected a positive number"),
        (("--clip", "nan"), "clip is nan, expected a positive number"),
        (("--open-bias", "inf"), "open_bias is inf, expected a number such as 2"),
        (("--seed", "-1"), "seed is -1, expected 0 to"),
    ],
)
def test_bad_arguments_get_a_sentence(
    tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    result = invoke(["study", "gradients", "--out", str(tmp_path), *arguments])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"fastseq: {sentence}")
    assert not list(tmp_path.iterdir())
