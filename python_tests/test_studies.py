"""`fastseq study lrn` and `fastseq study invariance`, small."""

import csv
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning", reason="the train extra is not installed")
pytest.importorskip("sklearn", reason="the train extra is not installed")
pytest.importorskip("torchvision", reason="the train extra is not installed")

from torch import nn
from typer.testing import CliRunner

import fastseq
from fastseq.commands import app
from fastseq.data import digits_datasets
from fastseq.study.invariance import (
    IDENTITY,
    LAYERS,
    STRENGTHS,
    InvarianceConfig,
    respond,
    study_invariance,
    transform,
)
from fastseq.study.lrn import VARIANTS, LrnConfig, step_times, study_lrn
from fastseq.study.small_alexnet import SmallAlexNet, framed_digits

pytestmark = pytest.mark.usefixtures("one_thread")
PNG = b"\x89PNG\r\n\x1a\n"
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
    monkeypatch.setattr("fastseq.study.lrn.VARIANTS", two)
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


def test_transformations_do_what_they_say() -> None:
    images = torch.zeros(1, 1, 28, 28)
    images[:, :, 10, 20] = 1.0
    for kind, still in IDENTITY.items():
        torch.testing.assert_close(transform(images, kind, still), images)
        assert still in STRENGTHS[kind]
    right = transform(images, "translation", 3.0)
    assert right[0, 0, 10, 23] == pytest.approx(1.0, abs=1e-4)
    turned = transform(images, "rotation", 90.0)  # counterclockwise: right of centre goes up
    assert turned[0, 0, 27 - 20, 10] == pytest.approx(1.0, abs=1e-4)
    large, small = (transform(torch.ones(1, 1, 28, 28), "scaling", s) for s in (1.4, 0.5))
    assert large.min() > 0.999
    assert small.sum() == pytest.approx(14 * 14, rel=0.02)
    with pytest.raises(ValueError, match="kind is 'shear', expected one of translation"):
        transform(images, "shear", 1.0)


def test_features_of_an_untouched_image_do_not_move() -> None:
    torch.manual_seed(0)
    model = SmallAlexNet(width=2).eval()
    images, labels = (part[:20] for part in framed_digits(5).test.tensors)
    for kind, still in IDENTITY.items():
        response = respond(model, images, labels, kind)
        place = response.strengths.index(still)
        for layer in LAYERS:
            distances = response.distances[layer]
            assert distances[place] < 1e-3
            assert distances[0] > 0.1
            assert len(distances) == len(response.strengths) == len(response.accuracies)


def test_distances_count_in_distances_between_images() -> None:
    # A layer that copies its input, so that distances are those of the pixels.
    model = nn.Module()
    for layer in LAYERS:
        model.add_module(layer, nn.Flatten())
    model.head = nn.Identity()
    images, labels = (part[:6] for part in framed_digits(5).test.tensors)
    response = respond(model, images, labels, "translation")
    pairs = [(a - b).norm() for i, a in enumerate(images) for j, b in enumerate(images) if i != j]
    moved = (transform(images, "translation", 4.0) - images).flatten(1).norm(dim=1).mean()
    place = response.strengths.index(4.0)
    expected = float(moved / torch.stack(pairs).mean())
    assert response.distances["layer1"][place] == pytest.approx(expected, rel=1e-4)


def test_invariance_study_sees_that_rotation_is_not_translation(tmp_path: Path) -> None:
    options = {**SMALL, "epochs": 4, "width": 6, "batch_size": 32}
    result = study_invariance(InvarianceConfig(images=60, out=tmp_path, **options))
    assert result.accuracy > 0.7
    assert result.figure.read_bytes().startswith(PNG)
    translation, _, rotation = result.responses
    one, quarter = translation.strengths.index(1.0), rotation.strengths.index(90.0)
    assert rotation.accuracies[quarter] < translation.accuracies[one]
    # The top layer moves less than the first, where images move a little.
    assert translation.distances["layer3"][one] < translation.distances["layer1"][one]
    rows = list(csv.DictReader((tmp_path / "invariance.csv").open()))
    assert len(rows) == sum(map(len, STRENGTHS.values()))


@pytest.mark.parametrize("study", ["lrn", "invariance"])
def test_commands(study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastseq.study.lrn.VARIANTS", {"LRN": VARIANTS["LRN"]})
    given = ["--epochs", "1", "--width", "2", "--batch-size", "512", "--accelerator", "cpu"]
    extra = ["--seeds", "1", "--repeats", "1"] if study == "lrn" else ["--images", "5"]
    result = CliRunner().invoke(app, ["study", study, "--out", str(tmp_path), *given, *extra])
    assert result.exit_code == 0, result.output
    assert "baseline: the most frequent digit has 10.31 %" in result.stdout
    assert (tmp_path / f"{study}.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["lrn", "--seeds", "0"], "seeds is 0, expected at least 1"),
        (["lrn", "--repeats", "0"], "repeats is 0, expected at least 1"),
        (["lrn", "--lr", "-1"], "lr is -1.0, expected a positive number"),
        (["invariance", "--images", "1"], "images is 1, expected at least 2"),
        (["invariance", "--width", "0"], "width is 0, expected at least 1"),
    ],
)
def test_bad_arguments_get_a_sentence(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    result = CliRunner().invoke(app, ["study", *arguments, "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert not list(tmp_path.iterdir())
