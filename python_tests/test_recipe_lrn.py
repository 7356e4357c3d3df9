"""`fastseq study lrn`, small."""

import csv
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning", reason="the train extra is not installed")
pytest.importorskip("sklearn", reason="the train extra is not installed")
pytest.importorskip("torchvision", reason="the train extra is not installed")

from command_line import invoke
from recipe_cases import PNG
from torch import nn

import fastseq
from fastseq.recipes.lrn.config import LrnConfig
from fastseq.recipes.lrn.run import VARIANTS, step_times, study_lrn
from fastseq.recipes.shared.digits import digits_datasets
from fastseq.recipes.shared.small_alexnet import SmallAlexNet, framed_digits

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"epochs": 1, "width": 2, "batch_size": 256, "accelerator": "cpu"}


@pytest.mark.parametrize("name", VARIANTS)
def test_networks_equal_their_native_twins(name: str) -> None:
    lrn, overlap = VARIANTS[name]
    torch.manual_seed(0)
    native = SmallAlexNet(lrn, overlap, 4, native=True).double()
    ours = SmallAlexNet(lrn, overlap, 4).double()
    ours.load_state_dict(native.state_dict())
    images = torch.rand(3, 1, 28, 28, dtype=torch.float64)
    gradients = []
    for model in (ours, native):
        loss = nn.functional.cross_entropy(model(images), torch.arange(3))
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs)
    kinds = [type(module) for module in native.modules()]
    assert kinds.count(nn.LocalResponseNorm) == (2 if lrn else 0)
    pools = [module for module in native.modules() if type(module) is nn.MaxPool2d]
    assert [pool.kernel_size for pool in pools] == [3 if overlap else 2] * 2
    fused = [m for m in ours.modules() if isinstance(m, fastseq.ReLULRNMaxPool2d)]
    assert len(fused) == (2 if lrn else 0)


def test_framed_digits_keep_their_pixels() -> None:
    images, labels = framed_digits(5).test.tensors
    inner, others = digits_datasets(size=18).test.tensors
    assert torch.equal(images[:, :, 5:-5, 5:-5], inner)
    assert torch.equal(labels, others)
    assert images.sum() == pytest.approx(inner.sum().item(), rel=1e-5)


def test_lrn_study_reports_what_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = {name: VARIANTS[name] for name in ("neither", "LRN + overlap")}
    monkeypatch.setattr("fastseq.recipes.lrn.run.VARIANTS", two)
    result = study_lrn(LrnConfig(seeds=2, repeats=2, out=tmp_path, **SMALL))
    assert [variant.name for variant in result.variants] == list(two)
    for variant in result.variants:
        assert len(variant.accuracies) == 2
        assert min(variant.accuracies) <= variant.accuracy <= max(variant.accuracies)
        assert variant.fused_ms > 0
        assert variant.native_ms > 0
    assert result.baseline == pytest.approx(37 / 359)
    assert result.figure.read_bytes().startswith(PNG)
    rows = list(csv.DictReader((tmp_path / "lrn.csv").open()))
    assert [float(row["fastseq_ms"]) for row in rows] == pytest.approx(
        [variant.fused_ms for variant in result.variants], abs=1e-3
    )
    # The same seed gives the same network again.
    again = study_lrn(LrnConfig(seeds=1, repeats=1, out=tmp_path / "again", **SMALL))
    for one, two in zip(result.variants, again.variants, strict=True):
        assert one.accuracies[:1] == two.accuracies


def test_lrn_costs_torch_nn_more() -> None:
    times = step_times(LrnConfig(width=16, repeats=5, batch_size=32))
    fused, native = times["LRN + overlap"]
    # Several times; how many is for a quiet machine to say.
    assert fused < native


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastseq.recipes.lrn.run.VARIANTS", {"LRN": VARIANTS["LRN"]})
    given = ["--epochs", "1", "--width", "2", "--batch-size", "512", "--accelerator", "cpu"]
    result = invoke(
        ["study", "lrn", "--out", str(tmp_path), *given, "--seeds", "1", "--repeats", "1"]
    )
    assert result.exit_code == 0, result.output
    assert "baseline: the most frequent digit has 10.31 %" in result.stdout
    assert (tmp_path / "lrn.png").is_file()
    assert "batch_size: 512\n" in (tmp_path / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--seeds", "0"], "seeds is 0, expected at least 1"),
        (["--repeats", "0"], "repeats is 0, expected at least 1"),
        (["--lr", "-1"], "lr is -1.0, expected a positive number"),
    ],
)
def test_bad_arguments_get_a_sentence(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    result = invoke(["study", "lrn", *arguments, "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert not list(tmp_path.iterdir())
