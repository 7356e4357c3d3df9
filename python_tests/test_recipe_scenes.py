"""Digit scenes and photographs, and the recipe that segments them."""

import re
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning", reason="the train extra is not installed")
pytest.importorskip("sklearn", reason="the train extra is not installed")
pytest.importorskip("torchvision", reason="the train extra is not installed")

from command_line import Result, invoke
from PIL import Image

from fastseq.recipes.scenes.config import ScenesConfig
from fastseq.recipes.scenes.data import LabelledImages, mirror
from fastseq.recipes.scenes.datasets import (
    CLASSES,
    IGNORE,
    pets_datasets,
    scene_datasets,
    voc_datasets,
)
from fastseq.recipes.scenes.digit_scenes import DigitScenes, compose
from fastseq.recipes.scenes.figures import colours, segmentations
from fastseq.recipes.scenes.run import ScenesRun, train_scenes
from fastseq.recipes.scenes.task import NETWORKS, Segmenter, build_network
from fastseq.recipes.shared.digits import digits_datasets

pytestmark = pytest.mark.usefixtures("one_thread")
PNG = b"\x89PNG\r\n\x1a\n"
SMALL = ["--epochs", "1", "--scenes", "16", "--size", "32", "--width", "4", "--batch-size", "8"]
LAST_LINE = re.compile(r"test mean IoU \d{1,2}\.\d\d %, pixel accuracy \d{1,2}\.\d\d %")


def command(*arguments: str) -> Result:
    return invoke(["train", "scenes", "--accelerator", "cpu", *arguments])


def small(out: Path, **options: object) -> ScenesConfig:
    defaults = {"epochs": 2, "scenes": 16, "size": 32, "width": 4, "batch_size": 8}
    return ScenesConfig(accelerator="cpu", out=out, **{**defaults, **options})


# Data


def test_a_scene_is_a_function_of_seed_and_place() -> None:
    digits = digits_datasets().train
    scenes, again = DigitScenes(digits, 5, 40, seed=3), DigitScenes(digits, 5, 40, seed=3)
    torch.manual_seed(0)
    first = [scenes[place] for place in range(5)]
    torch.manual_seed(1)
    for (image, truth), other in zip(
        first, reversed([again[4 - i] for i in range(5)]), strict=True
    ):
        assert torch.equal(image, other[0])
        assert torch.equal(truth, other[1])
        assert image.shape == (3, 40, 40)
        assert image.min() >= 0.0
        assert image.max() <= 1.0
        assert 2 <= len(truth.unique()) <= 4
        assert 0.02 < (truth > 0).float().mean() < 0.5
    assert not torch.equal(first[0][0], first[1][0])
    assert not torch.equal(first[0][0], DigitScenes(digits, 5, 40, seed=4)[0][0])
    with pytest.raises(IndexError):
        scenes[5]


def test_truth_is_where_the_digits_are() -> None:
    splits = digits_datasets()
    images, labels = splits.train.tensors
    three, eight = ((labels == digit).nonzero()[0] for digit in (3, 8))
    chosen = torch.cat([three, eight])
    _, truth = compose(images[chosen], labels[chosen], 48, torch.Generator().manual_seed(0))
    assert set(truth.unique().tolist()) == {0, 4, 9}
    # The later digit covers the earlier one, and is seen whole.
    assert (truth == 9).nonzero().float().std(0).min() > 2.0
    image, truth = compose(images[three], labels[three], 48, torch.Generator().manual_seed(5))
    ink, ground = image[:, truth > 0].mean(1), image[:, truth == 0].mean(1)
    assert (ink - ground).abs().max() > 0.2


def test_scenes_of_one_part_show_no_digit_of_another() -> None:
    parts = scene_datasets(count=16, size=32)
    assert [len(part) for part in parts] == [16, 2, 4]
    splits = digits_datasets()
    for part, split in zip(parts, splits, strict=True):
        assert torch.equal(part.digits.tensors[0], split.tensors[0])
    # What is held out is the same for every seed of the training.
    other = scene_datasets(count=16, size=32, seed=9)
    assert torch.equal(parts.test[0][0], other.test[0][0])
    assert not torch.equal(parts.train[0][0], other.train[0][0])


def write_pets(root: Path) -> None:
    folder = root / "oxford-iiit-pet"
    (folder / "images").mkdir(parents=True)
    (folder / "annotations" / "trimaps").mkdir(parents=True)
    for part, names in (("trainval", "abcd"), ("test", "ef")):
        lines = [f"cat_{name} 1 1 1" for name in names]
        (folder / "annotations" / f"{part}.txt").write_text("\n".join(lines) + "\n")
        for name in names:
            Image.new("RGB", (30, 20), (255, 0, 51)).save(folder / "images" / f"cat_{name}.jpg")
            trimap = Image.new("L", (30, 20), 2)
            trimap.paste(1, (0, 0, 15, 20))
            trimap.paste(3, (15, 0, 18, 20))
            trimap.save(folder / "annotations" / "trimaps" / f"cat_{name}.png")


def write_voc(root: Path) -> None:
    folder = root / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    for part, names in (("train", "abcd"), ("val", "ef")):
        (folder / "ImageSets" / "Segmentation" / f"{part}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            Image.new("L", (20, 30), 80).save(folder / "JPEGImages" / f"{name}.jpg")
            labels = Image.new("L", (20, 30), 0)
            labels.paste(12, (0, 0, 20, 15))
            labels.paste(255, (0, 15, 20, 18))
            labels.save(folder / "SegmentationClass" / f"{name}.png")


def test_pets_from_disk(tmp_path: Path) -> None:
    write_pets(tmp_path)
    parts = pets_datasets(tmp_path, size=10)
    assert [len(part) for part in parts] == [3, 1, 2]
    image, classes = parts.train[0]
    assert image.shape == (3, 10, 10)
    torch.testing.assert_close(image[:, 5, 5], torch.tensor([1.0, 0.0, 0.2]), atol=0.02, rtol=0)
    # Pet to the left, border beside it, background to the right.
    assert classes[0].tolist() == [0] * 5 + [2] + [1] * 4
    assert classes.dtype == torch.int64


def test_voc_from_disk(tmp_path: Path) -> None:
    write_voc(tmp_path)
    image, classes = voc_datasets(tmp_path, size=10).test[1]
    assert image.shape == (3, 10, 10)  # gray files too
    assert classes[:, 0].tolist() == [12] * 5 + [IGNORE] + [0] * 4
    assert CLASSES["voc"][12] == "dog"
    assert [len(names) for names in CLASSES.values()] == [11, 3, 21]


@pytest.mark.parametrize(("load", "folder"), [(pets_datasets, "oxford"), (voc_datasets, "VOC")])
def test_missing_photographs_get_a_sentence(tmp_path: Path, load: object, folder: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"images are not complete in .*{folder}") as error:
        load(tmp_path)
    assert "--download" in str(error.value)


def test_mirroring_keeps_image_and_truth_together() -> None:
    images = torch.arange(64.0).reshape(16, 1, 1, 4)
    seen, classes = mirror(images, images[:, 0].long(), seed=1)
    assert torch.equal(seen[:, 0].long(), classes)
    turned = (seen[:, 0, 0, 0] > seen[:, 0, 0, 3]).sum()
    assert 0 < turned < 16
    assert torch.equal(seen.sort(-1).values, images)


def test_scenes_are_never_mirrored() -> None:
    data = LabelledImages("scenes", count=4, size=32)
    batch = next(iter(data.train_dataloader()))
    assert data.on_after_batch_transfer(batch, 0) is batch


# The recipe


@pytest.mark.parametrize("network", NETWORKS)
def test_command_trains_each_network(tmp_path: Path, network: str) -> None:
    result = command("--network", network, "--out", str(tmp_path), *SMALL)
    assert result.exit_code == 0, result.output
    lines = result.stdout.rstrip("\n").splitlines()
    assert LAST_LINE.fullmatch(lines[-1])
    assert lines[-2].startswith("baseline: background everywhere has mean IoU ")
    run_dir = tmp_path / "version_0"
    for name in ("learning_curves.png", "segmentations.png"):
        assert (run_dir / name).read_bytes().startswith(PNG)
    assert (run_dir / "checkpoints" / "best.ckpt").is_file()
    assert list(run_dir.glob("events.out.tfevents.*"))


@pytest.mark.parametrize("data", ["pets", "voc"])
def test_command_trains_on_photographs(tmp_path: Path, data: str) -> None:
    (write_pets if data == "pets" else write_voc)(tmp_path)
    result = command("--data", data, "--data-dir", str(tmp_path), "--out", str(tmp_path), *SMALL)
    assert result.exit_code == 0, result.output
    assert f"{data}: 3 + 1 + 2 images of 32 x 32 pixels" in result.stdout
    # Of 20 rows 15 are the background; in VOC the border counts for nothing.
    share = {"pets": "pet everywhere has mean IoU 16.67", "voc": "dog everywhere has mean IoU 27"}
    assert share[data] in result.stdout


def test_training_learns_and_figures_are_those_of_the_best_checkpoint(tmp_path: Path) -> None:
    config = small(tmp_path, network="unet", epochs=5, scenes=64, width=8)
    result = train_scenes(config)
    run = ScenesRun(config)
    run.task.load_state_dict(torch.load(result.checkpoint, weights_only=True)["state_dict"])
    run.task.eval()
    images, truth = map(torch.stack, zip(*run.data.parts.test, strict=True))
    with torch.no_grad():
        read = run.task(images).argmax(1)
    ious, base = [], []
    for place in range(11):
        seen, true = read == place, truth == place
        union = (seen | true).sum()
        if union > 0:
            ious.append((seen & true).sum() / union)
        if true.any():
            base.append(true.float().mean() if place == 0 else torch.tensor(0.0))
    assert result.iou == pytest.approx(torch.stack(ious).mean().item(), abs=1e-5)
    assert result.accuracy == pytest.approx((read == truth).float().mean().item(), abs=1e-5)
    assert result.baseline_class == "background"
    assert result.baseline_iou == pytest.approx(torch.stack(base).mean().item(), abs=1e-5)
    assert result.baseline_accuracy == pytest.approx((truth == 0).float().mean().item(), abs=1e-5)
    # A moment of training only; a run of the default length has four times the baseline's IoU.
    saved = torch.load(result.run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    losses = [row["train_loss"] for row in saved["callbacks"]["History"]["epochs"]]
    assert losses[-1] < 0.85 * losses[0]


def test_resumed_run_ends_where_an_unbroken_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_scenes(small(tmp_path / "whole", epochs=3))

    class Killed(Exception):
        pass

    run = ScenesRun(small(tmp_path / "broken", epochs=3))
    step = run.task.training_step

    def dying_step(batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        if run.trainer.current_epoch == 1 and batch_idx == 1:
            raise Killed
        return step(batch, batch_idx)

    monkeypatch.setattr(run.task, "training_step", dying_step)
    with pytest.raises(Killed):
        run.run()
    again = train_scenes(
        small(tmp_path / "broken", epochs=3, resume=tmp_path / "broken" / "version_0")
    )
    assert again.run_dir == tmp_path / "broken" / "version_0"
    theirs, ours = (
        torch.load(result.run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for result in (whole, again)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert (again.iou, again.accuracy) == (whole.iou, whole.accuracy)


def test_resume_refuses_another_network(tmp_path: Path) -> None:
    run = train_scenes(small(tmp_path, epochs=1, network="upsample"))
    result = command("--resume", str(run.run_dir), "--network", "unet", *SMALL)
    assert result.exit_code == 1
    assert "was trained with network='upsample', width=4, data='scenes'" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--scenes", "0"], "scenes is 0, expected at least 1"),
        (["--size", "8"], "size is 8, expected at least 32"),
        (["--width", "0"], "width is 0, expected at least 1"),
        (["--epochs", "0"], "epochs is 0, expected at least 1"),
        (["--data", "pets", "--data-dir", "nowhere"], "not complete in nowhere/oxford-iiit-pet"),
        (["--data", "voc", "--data-dir", "nowhere"], "the folder that holds VOCdevkit"),
        (["--pretrained"], "pretrained weights are for deeplab only"),
        (["--precision", "7-bit"], "7-bit"),
    ],
)
def test_bad_arguments_get_a_sentence(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    result = command("--out", str(tmp_path / "out"), *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("fastseq: ")
    assert sentence in result.stderr
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_networks_and_data_by_name_only() -> None:
    with pytest.raises(ValueError, match="network is 'fcn', expected one of unet, deeplab"):
        build_network("fcn", 3, 4)
    with pytest.raises(ValueError, match="source is 'cats', expected one of scenes, pets, voc"):
        LabelledImages("cats")
    with pytest.raises(ValueError, match="data is 'cats', expected one of"):
        ScenesRun(ScenesConfig(data="cats", accelerator="cpu"))
    assert Segmenter("transpose", width=4, native=True).hparams["native"] is True


@pytest.mark.parametrize("data", CLASSES)
@pytest.mark.parametrize("count", [1, 6])
def test_pictures_of_any_number(tmp_path: Path, data: str, count: int) -> None:
    classes = CLASSES[data]
    palette = colours(classes)
    assert len({tuple(palette[place]) for place in range(len(classes))}) == len(classes)
    truth = torch.arange(32 * 32).reshape(32, 32) % len(classes)
    truth[0] = IGNORE
    example = (torch.rand(3, 32, 32), truth, truth.T)
    path = segmentations([example] * count, classes, tmp_path / f"{data}.png", "title")
    assert path.read_bytes().startswith(PNG)
