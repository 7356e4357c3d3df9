"""Files that end too early, or hold what they should not: a sentence, whatever the damage."""

import gzip
import os
import re
import struct
from pathlib import Path

import pytest
import torch

from fastseq.recipes.shared.resume import check_hyper_parameters
from fastseq.recipes.tags.conll import parse_conll, read_conll

OPTIONS = {"hidden_size": 8, "cell": "lstm"}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """As Lightning writes it, in short."""
    path = tmp_path / "last.ckpt"
    weights = {"weight": torch.randn(16, 16)}
    torch.save({"hyper_parameters": OPTIONS, "state_dict": weights, "epoch": 1}, path)
    check_hyper_parameters(path, OPTIONS)
    return path


def test_a_checkpoint_cut_short(checkpoint: Path) -> None:
    whole = checkpoint.read_bytes()
    for length in [*range(0, len(whole), len(whole) // 40), len(whole) - 1]:
        checkpoint.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"last\.ckpt is not a checkpoint of this recipe"):
            check_hyper_parameters(checkpoint, OPTIONS)


def test_a_checkpoint_overwritten_in_parts(checkpoint: Path) -> None:
    """Damage is told, or lies where the options are not; then they are what they were."""
    whole, told = checkpoint.read_bytes(), 0
    for start in range(0, len(whole) - 64, len(whole) // 40):
        checkpoint.write_bytes(whole[:start] + b"\xff" * 64 + whole[start + 64 :])
        try:
            check_hyper_parameters(checkpoint, OPTIONS)
        except ValueError as error:
            told += "last.ckpt" in str(error)
    assert told > 5


class Command:
    """What runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_that_runs_a_command(tmp_path: Path) -> None:
    path, made = tmp_path / "last.ckpt", tmp_path / "made"
    torch.save({"hyper_parameters": OPTIONS, "more": Command(made)}, path)
    with pytest.raises(ValueError, match="is not a checkpoint of this recipe"):
        check_hyper_parameters(path, OPTIONS)
    assert not made.exists()


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_idx_files_cut_short(packed: bool, tmp_path: Path) -> None:
    pytest.importorskip("torchvision", reason="the train extra is not installed")
    from fastseq.recipes.rows.mnist import mnist_datasets

    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    pixels = bytes(i % 251 for i in range(20 * 28 * 28))
    for part in ("train", "t10k"):
        images = struct.pack(">4i", 0x803, 20, 28, 28) + pixels
        labels = struct.pack(">2i", 0x801, 20) + bytes(i % 10 for i in range(20))
        for name, content in (("images-idx3", images), ("labels-idx1", labels)):
            path = folder / f"{part}-{name}-ubyte"
            if packed:
                path.with_suffix(".gz").write_bytes(gzip.compress(content))
            else:
                path.write_bytes(content)
    hurt = folder / ("train-images-idx3-ubyte" + packed * ".gz")
    whole = hurt.read_bytes()
    for length in (0, 1, 3, 4, 8, 15, 16, 17, len(whole) // 2, len(whole) - 1):
        hurt.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"is not a whole (IDX|gzip) file"):
            mnist_datasets(tmp_path)


TEXT = "-DOCSTART- O\n\nAda B-PER\nLovelace I-PER\nsaw O\nPrague B-LOC\n\nIt O\nrained O\n"


def test_a_conll_file_cut_anywhere(tmp_path: Path) -> None:
    """It has the sentences until there, or a line and what is wrong with it."""
    whole = parse_conll(TEXT, "whole")
    path = tmp_path / "cut.conll"
    told: list[str] = []
    for length in range(len(TEXT)):
        path.write_text(TEXT[:length])
        try:
            found = read_conll(path)
        except ValueError as error:
            told.append(str(error))
        else:
            assert len(found) <= len(whole)
            assert all(a.tokens == b.tokens for a, b in zip(found[:-1], whole, strict=False))
    assert len(told) > 10
    for sentence in told:
        assert re.match(
            rf"{re.escape(str(path))}(, line \d: .* (has no tag|is not O)| holds no)", sentence
        )
