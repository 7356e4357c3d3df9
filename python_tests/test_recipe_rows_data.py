import gzip
import itertools
import struct
from pathlib import Path

import pytest
import torch

pytest.importorskip("sklearn", reason="the train extra is not installed")
pytest.importorskip("lightning", reason="the train extra is not installed")
pytest.importorskip("torchvision", reason="the train extra is not installed")

from fastseq.recipes.rows.data import DigitImages
from fastseq.recipes.rows.mnist import mnist_datasets
from fastseq.recipes.shared.digits import digits_datasets
from fastseq.recipes.shared.images import random_shift
from fastseq.recipes.shared.splits import stratified_split


def write_idx(root: Path, train: int = 120, test: int = 20, packed: bool = False) -> torch.Tensor:
    """Write the four MNIST files, and return the training images."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    first = torch.empty(0)
    for prefix, count in (("train", train), ("t10k", test)):
        images = torch.randint(256, (count, 28, 28), generator=generator).to(torch.uint8)
        labels = (torch.arange(count) % 10).to(torch.uint8)
        first = images if prefix == "train" else first
        files = {
            f"{prefix}-images-idx3-ubyte": struct.pack(">4i", 0x803, count, 28, 28)
            + bytes(images.flatten().tolist()),
            f"{prefix}-labels-idx1-ubyte": struct.pack(">2i", 0x801, count)
            + bytes(labels.tolist()),
        }
        for name, content in files.items():
            if packed:
                (raw / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (raw / name).write_bytes(content)
    return first


def test_digits_sizes_and_values() -> None:
    splits = digits_datasets()
    assert [len(part) for part in splits] == [1169, 269, 359]
    for part in splits:
        images, labels = part.tensors
        assert images.shape[1:] == (1, 28, 28)
        assert images.dtype == torch.float32
        assert labels.dtype == torch.int64
        assert images.min() >= 0.0
        assert 0.9 < images.max() <= 1.0
        # Stratified: every class has its tenth of every part.
        share = labels.bincount(minlength=10) / len(labels)
        assert share.min() > 0.09
        assert share.max() < 0.11


def test_digits_parts_are_disjoint_and_together_all_of_them() -> None:
    from sklearn.datasets import load_digits

    def keys(images: torch.Tensor) -> list[bytes]:
        return [image.numpy().tobytes() for image in images]

    original = torch.from_numpy(load_digits().images).float().div(16.0).unsqueeze(1)
    resized = torch.nn.functional.interpolate(original, size=(28, 28), mode="bilinear")
    parts = [keys(part.tensors[0]) for part in digits_datasets()]
    assert sorted(itertools.chain(*parts)) == sorted(keys(resized))


def test_digits_split_is_the_same_every_time() -> None:
    torch.manual_seed(1)
    first = digits_datasets()
    torch.manual_seed(2)
    second, other = digits_datasets(), digits_datasets(split_seed=5)
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one.tensors[0], two.tensors[0])
    assert not torch.equal(first.test.tensors[0], other.test.tensors[0])


def test_digits_refuse_a_size() -> None:
    with pytest.raises(ValueError, match="size is 4, expected at least 8"):
        digits_datasets(size=4)


def test_stratified_split() -> None:
    labels = torch.tensor([0] * 10 + [1] * 30 + [2] * 20)
    rest, held = stratified_split(labels, 0.2, seed=0)
    assert torch.equal(torch.cat([rest, held]).sort().values, torch.arange(60))
    assert labels[held].bincount().tolist() == [2, 6, 4]
    with pytest.raises(ValueError, match=r"share is 1.5, expected 0 < share < 1"):
        stratified_split(labels, 1.5, seed=0)


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_from_idx_files(tmp_path: Path, packed: bool) -> None:
    images = write_idx(tmp_path, packed=packed)
    train, validation, test = mnist_datasets(tmp_path)
    assert [len(train), len(validation), len(test)] == [110, 10, 20]
    assert sorted(validation.tensors[1].tolist()) == list(range(10))
    seen = torch.cat([train.tensors[0], validation.tensors[0]]).mul(255).round().to(torch.uint8)
    assert seen.shape == (120, 1, 28, 28)
    assert sorted(map(bytes, seen.flatten(1).numpy())) == sorted(
        map(bytes, images.flatten(1).numpy())
    )
    assert not list((tmp_path / "MNIST" / "raw").glob("*.partial"))


def test_mnist_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        mnist_datasets(tmp_path / "nowhere")
    assert "train-images-idx3-ubyte" in str(error.value)
    assert "--data-dir" in str(error.value)
    assert "download=True" in str(error.value)
    write_idx(tmp_path)
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="t10k-labels-idx1-ubyte missing"):
        mnist_datasets(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"\x00\x00", b"not an IDX file at all", b"\0\0\x08\x03" * 5]
)
def test_mnist_broken_file(tmp_path: Path, content: bytes) -> None:
    write_idx(tmp_path)
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match="not a whole IDX file"):
        mnist_datasets(tmp_path)


def test_mnist_broken_gzip_leaves_nothing_behind(tmp_path: Path) -> None:
    write_idx(tmp_path, packed=True)
    packed = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    packed.write_bytes(packed.read_bytes()[:1000])
    with pytest.raises(ValueError, match="not a whole gzip file"):
        mnist_datasets(tmp_path)
    assert not (packed.parent / "train-images-idx3-ubyte").exists()
    assert not list(packed.parent.glob("*.partial"))


def test_mnist_labels_must_match_images(tmp_path: Path) -> None:
    write_idx(tmp_path)
    labels = tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    labels.write_bytes(struct.pack(">2i", 0x801, 5) + bytes(5))
    with pytest.raises(ValueError, match=r"images of shape \(20, 28, 28\) and 5 labels"):
        mnist_datasets(tmp_path)


@pytest.mark.parametrize("source", ["digits", "mnist"])
def test_module_loaders(tmp_path: Path, source: str) -> None:
    write_idx(tmp_path)
    module = DigitImages(source, tmp_path, batch_size=8)
    module.prepare_data()
    module.setup("fit")
    images, labels = next(iter(module.train_dataloader()))
    assert images.shape == (8, 1, 28, 28)
    assert labels.shape == (8,)
    for loader, part in (
        (module.val_dataloader(), module.splits.validation),
        (module.test_dataloader(), module.splits.test),
    ):
        # In order and whole: the accuracy is that of every image once.
        seen = torch.cat([labels for _, labels in loader])
        assert torch.equal(seen, part.tensors[1])


def test_module_order_follows_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        loader = DigitImages(batch_size=2000, seed=seed).train_dataloader()
        loader.sampler.set_epoch(epoch)
        return next(iter(loader))[1].tolist()

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"source": "cifar"}, "source is 'cifar', expected one of digits, mnist"),
        ({"batch_size": 0}, "batch_size is 0, expected at least 1"),
        ({"max_shift": -1.0}, "max_shift is -1.0"),
        ({"max_shift": float("nan")}, "max_shift is nan"),
    ],
)
def test_module_refuses_arguments(arguments: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        DigitImages(**arguments)


def test_random_shift_moves_within_bounds_and_by_seed() -> None:
    images = torch.zeros(64, 1, 28, 28)
    images[:, :, 14, 14] = 1.0
    moved = random_shift(images, 2.0, seed=3)
    assert moved.shape == images.shape
    assert torch.equal(moved, random_shift(images, 2.0, seed=3))
    assert not torch.equal(moved, random_shift(images, 2.0, seed=4))
    # The mass of the lit pixel stays, and its centre moves by at most two pixels, each its own way.
    torch.testing.assert_close(moved.sum((1, 2, 3)), torch.ones(64))
    place = torch.arange(28.0)
    for axis in (2, 3):
        centre = (moved.sum(5 - axis).squeeze(1) * place).sum(1) - 14.0
        assert centre.abs().max() <= 2.0 + 1e-4
        assert centre.min() < -1.0
        assert centre.max() > 1.0


def test_random_shift_of_nothing_changes_nothing() -> None:
    images = torch.rand(3, 1, 28, 28)
    torch.testing.assert_close(random_shift(images, 0.0, seed=0), images, rtol=0, atol=1e-4)
