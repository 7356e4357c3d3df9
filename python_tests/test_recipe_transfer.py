"""Half of the classes at a time, and the recipe that carries a network over to the others."""

import csv
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("lightning", reason="the train extra is not installed")
pytest.importorskip("sklearn", reason="the train extra is not installed")
pytest.importorskip("torchvision", reason="the train extra is not installed")

from command_line import Result, invoke
from torch.utils.data import TensorDataset

from fastseq.recipes.shared.digits import digits_datasets
from fastseq.recipes.shared.images import MIN_BATCHES, ClassImages
from fastseq.recipes.transfer.cifar import cifar10_datasets
from fastseq.recipes.transfer.config import TransferConfig
from fastseq.recipes.transfer.data import few_labels, halves
from fastseq.recipes.transfer.figures import transfer_accuracy
from fastseq.recipes.transfer.run import TransferRun, train_transfer
from fastseq.recipes.transfer.task import WAYS, SmallConvNet, TransferClassifier, build_network

pytestmark = pytest.mark.usefixtures("one_thread")
PNG = b"\x89PNG\r\n\x1a\n"


def command(*arguments: str) -> Result:
    return invoke(["train", "transfer", "--accelerator", "cpu", *arguments])


def small(out: Path, **options: object) -> TransferConfig:
    defaults = {"epochs": 1, "target_epochs": 1, "width": 2, "labels": "2", "batch_size": 128}
    return TransferConfig(accelerator="cpu", out=out, **{**defaults, **options})


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write files as torchvision wants them, but for their checksums."""
    from torchvision.datasets import CIFAR10

    folder = root / CIFAR10.base_folder
    folder.mkdir()
    names = [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]
    for name in names:
        pixels = np.arange(20 * 3072, dtype=np.int64).reshape(20, 3072).astype(np.uint8)
        batch = {"data": pixels, "labels": [n % 10 for n in range(20)]}
        (folder / name).write_bytes(pickle.dumps(batch))
    meta = {"label_names": list("abcdefghij")}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta))
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)


def test_halves_are_the_digits() -> None:
    old, new = halves("digits")
    for part, first, second in zip(digits_datasets(), old, new, strict=True):
        images, labels = part.tensors
        assert torch.equal(first.tensors[0], images[labels < 5])
        assert torch.equal(second.tensors[1] + 5, labels[labels >= 5])
        assert set(second.tensors[1].tolist()) == set(range(5))


def test_few_labels_grow_by_adding() -> None:
    train = halves("digits")[1].train
    three, ten = (few_labels(train, count, seed=1) for count in (3, 10))
    assert three.tensors[1].bincount().tolist() == [3] * 5
    small, large = ({image.numpy().tobytes() for image in d.tensors[0]} for d in (three, ten))
    assert len(large) == 50
    assert small < large
    other = few_labels(train, 3, seed=2)
    assert not torch.equal(other.tensors[0], three.tensors[0])
    with pytest.raises(ValueError, match="labels is 500, expected 1 to 1"):
        few_labels(train, 500)


def test_an_epoch_of_few_images_has_batches_enough() -> None:
    old, _ = halves("digits")
    few = few_labels(old.train, 2)
    data = ClassImages(old._replace(train=few), batch_size=8)
    assert len(data.train_dataloader()) >= MIN_BATCHES
    seen = torch.cat([labels for _, labels in data.train_dataloader()])
    assert (seen.bincount() == seen.bincount()[0]).all()
    whole = ClassImages(old, batch_size=8)
    assert len(whole.train_dataloader().dataset) == len(old.train)


def test_cifar10_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(tmp_path, monkeypatch)
    splits = cifar10_datasets(tmp_path)
    assert [len(part) for part in splits] == [90, 10, 20]
    images, labels = splits.test.tensors
    assert images.shape == (20, 3, 32, 32)
    assert images[0, 0, 0, 5] == pytest.approx(5 / 255)  # red plane first, row by row
    assert labels.tolist() == [n % 10 for n in range(20)]


def test_missing_cifar10_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"CIFAR-10 is not complete in .*cifar-10-batches"):
        cifar10_datasets(tmp_path)


@pytest.mark.parametrize("way", WAYS)
def test_ways_carry_what_they_should(way: str) -> None:
    torch.manual_seed(0)
    source = TransferClassifier(width=2).model.state_dict()
    task = TransferClassifier(width=2, way=way)
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    task.carry_over(source)
    carried = {
        name
        for name, value in task.model.state_dict().items()
        if name.endswith("weight") and torch.equal(value, source[name]) and value.dim() > 1
    }
    convolutions = {name for name, value in source.items() if value.dim() == 4}
    assert carried == (set() if way == "scratch" else convolutions)
    trained = {name for name, p in task.model.named_parameters() if p.requires_grad}
    if way == "scratch":
        assert all(torch.equal(v, before[n]) for n, v in task.model.state_dict().items())
    head = {"head.weight", "head.bias"}
    assert (trained == head) == (way == "frozen")
    assert (convolutions < trained) == (way in ("scratch", "fine-tuned"))


def test_networks_fit_their_data() -> None:
    assert build_network("digits", 2)(torch.rand(2, 1, 28, 28)).shape == (2, 5)
    ours, native = SmallConvNet(3, 4).eval(), SmallConvNet(3, 4, native=True).eval()
    native.load_state_dict(ours.state_dict())
    images = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(ours(images), native(images))
    with pytest.raises(ValueError, match="pretrained weights are for cifar10 only"):
        build_network("digits", pretrained=True)


def test_command_prints_a_table_and_writes_files(tmp_path: Path) -> None:
    small_run = ["--epochs", "1", "--target-epochs", "1", "--width", "2", "--labels", "2"]
    result = command("--out", str(tmp_path), "--batch-size", "128", *small_run)
    assert result.exit_code == 0, result.output
    run_dir = tmp_path / "version_0"
    rows = list(csv.DictReader((run_dir / "transfer.csv").open()))
    assert [(row["way"], row["labels_per_class"]) for row in rows] == [
        (way, count) for way in WAYS for count in ("2",)
    ]
    # The table on the screen is that of the file.
    for way in WAYS:
        (line,) = re.findall(rf"^{way} +[\d,]+ +([\d. %]+)$", result.stdout, re.MULTILINE)
        shown = [float(cell) for cell in line.replace("%", "").split()]
        assert shown == [
            pytest.approx(100 * float(row["test_accuracy"]), abs=0.01)
            for row in rows
            if row["way"] == way
        ]
    assert "the most frequent class has 20.11 %" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("test accuracy ")
    for name in ("learning_curves.png", "transfer.png"):
        assert (run_dir / name).read_bytes().startswith(PNG)
    assert list((run_dir / "frozen_2" / "version_0").glob("events.out.tfevents.*"))


def test_command_moves_mobilenet_between_halves_of_cifar10(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar(tmp_path, monkeypatch)
    monkeypatch.setattr("fastseq.recipes.shared.images.MIN_BATCHES", 1)
    monkeypatch.setattr("fastseq.recipes.transfer.run.WAYS", ("frozen", "fine-tuned"))
    where = ["--data", "cifar10", "--data-dir", str(tmp_path), "--out", str(tmp_path / "out")]
    options = ["--epochs", "1", "--target-epochs", "1", "--labels", "2", "--batch-size", "64"]
    result = command(*where, *options)
    assert result.exit_code == 0, result.output
    assert "MobileNetV2" in result.stdout


def test_features_are_worth_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastseq.recipes.transfer.run.WAYS", ("frozen", "fine-tuned"))
    config = small(tmp_path, epochs=4, width=6, labels="20", batch_size=32, target_epochs=3)
    result = train_transfer(config)
    assert result.source_accuracy > 0.8
    assert result.accuracy["fine-tuned"][20] > 0.5 > result.baseline
    assert result.trained["frozen"] == 5 * 24 + 5
    assert result.trained["fine-tuned"] > 50 * result.trained["frozen"]


def test_resumed_run_ends_where_an_unbroken_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastseq.recipes.transfer.run.WAYS", ("scratch", "frozen"))
    whole = train_transfer(small(tmp_path / "whole", target_epochs=2))

    class Killed(Exception):
        pass

    step = TransferClassifier.training_step

    def dying_step(self: TransferClassifier, batch: object, batch_idx: int) -> torch.Tensor:
        # In the middle of the second epoch of the second way.
        if self.way == "frozen" and self.trainer.current_epoch == 1 and batch_idx == 3:
            raise Killed
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(TransferClassifier, "training_step", dying_step)
        with pytest.raises(Killed):
            train_transfer(small(tmp_path / "broken", target_epochs=2))
    broken = tmp_path / "broken" / "version_0"
    again = train_transfer(small(tmp_path / "broken", target_epochs=2, resume=broken))
    assert again.run_dir == broken
    assert again.accuracy == whole.accuracy
    for way in ("scratch_2", "frozen_2"):
        place = Path(way) / "version_0" / "checkpoints" / "last.ckpt"
        ours, theirs = (
            torch.load(result.run_dir / place, weights_only=True)["state_dict"]
            for result in (again, whole)
        )
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
        assert [path.name for path in (broken / way).iterdir()] == ["version_0"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--labels", "some"], "labels is 'some', expected numbers such as 1,3,10"),
        (["--labels", "0,3"], "labels is '0,3', expected numbers"),
        (["--labels", "5000"], "labels is 5000, expected 1 to 11"),
        (["--target-epochs", "0"], "target_epochs is 0, expected at least 1"),
        (["--max-shift", "nan"], "max_shift is nan, expected 0 or more"),
        (["--pretrained"], "pretrained weights are for cifar10 only"),
        (["--data", "cifar10", "--data-dir", "nowhere"], "CIFAR-10 is not complete in nowhere"),
    ],
)
def test_bad_arguments_get_a_sentence(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    result = command("--out", str(tmp_path / "out"), *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("fastseq: ")
    assert sentence in result.stderr
    assert not list(tmp_path.iterdir())


def test_data_by_name_only() -> None:
    with pytest.raises(ValueError, match="source is 'cats', expected one of digits, cifar10"):
        TransferRun(TransferConfig(data="cats", accelerator="cpu"))
    assert isinstance(halves("digits")[0].train, TensorDataset)


def test_picture_of_one_number_of_labels(tmp_path: Path) -> None:
    accuracy = {way: {10: 0.5} for way in WAYS}
    path = transfer_accuracy(accuracy, 0.2, tmp_path / "a" / "transfer.png", "title")
    assert path.read_bytes().startswith(PNG)
