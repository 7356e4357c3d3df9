"""`fastseq study invariance`, small."""

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

from fastseq.recipes.invariance.config import InvarianceConfig
from fastseq.recipes.invariance.run import (
    IDENTITY,
    LAYERS,
    STRENGTHS,
    respond,
    study_invariance,
    transform,
)
from fastseq.recipes.shared.small_alexnet import SmallAlexNet, framed_digits

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"epochs": 1, "width": 2, "batch_size": 256, "accelerator": "cpu"}


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


def test_command(tmp_path: Path) -> None:
    given = ["--epochs", "1", "--width", "2", "--batch-size", "512", "--accelerator", "cpu"]
    result = invoke(["study", "invariance", "--out", str(tmp_path), *given, "--images", "5"])
    assert result.exit_code == 0, result.output
    assert "baseline: the most frequent digit has 10.31 %" in result.stdout
    assert (tmp_path / "invariance.png").is_file()
    assert "batch_size: 512\n" in (tmp_path / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--images", "1"], "images is 1, expected at least 2"),
        (["--width", "0"], "width is 0, expected at least 1"),
    ],
)
def test_bad_arguments_get_a_sentence(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    result = invoke(["study", "invariance", *arguments, "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert not list(tmp_path.iterdir())
