import re
import shutil
import struct
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning", reason="the train extra is not installed")
pytest.importorskip("sklearn", reason="the train extra is not installed")
pytest.importorskip("torchvision", reason="the train extra is not installed")


import yaml
from command_line import Result, invoke

from fastseq.recipes.rows.config import RowsConfig
from fastseq.recipes.rows.figures import misread_digits
from fastseq.recipes.rows.run import RowsRun, train_rows
from fastseq.recipes.shared.figures import learning_curves

LAST_LINE = re.compile(r"test accuracy \d{1,3}\.\d\d %")
PNG = b"\x89PNG\r\n\x1a\n"
SMALL = ["--epochs", "1", "--hidden-size", "16", "--num-layers", "1", "--batch-size", "128"]


def command(*arguments: str) -> Result:
    return invoke(["train", "rows", "--accelerator", "cpu", *arguments])


def last_line(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout.rstrip("\n").splitlines()[-1]


def small(out: Path, **options: object) -> RowsConfig:
    defaults = {"epochs": 2, "hidden_size": 16, "num_layers": 1, "batch_size": 128}
    return RowsConfig(accelerator="cpu", out=out, **{**defaults, **options})


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def history(run_dir: Path) -> list[dict[str, float]]:
    saved = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    return saved["callbacks"]["History"]["epochs"]


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_command_prints_the_accuracy_last_and_writes_files(tmp_path: Path, cell: str) -> None:
    result = command("--cell", cell, "--out", str(tmp_path), *SMALL)
    assert LAST_LINE.fullmatch(last_line(result))
    run_dir = tmp_path / "version_0"
    for name in ("learning_curves.png", "misread_digits.png"):
        assert (run_dir / name).read_bytes().startswith(PNG)
    for name in ("best.ckpt", "last.ckpt"):
        assert (run_dir / "checkpoints" / name).is_file()
    assert list(run_dir.glob("events.out.tfevents.*"))
    assert "num_workers" not in result.output
    assert "litlogger" not in result.output


def test_command_trains_on_mnist_files(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count in (("train", 120), ("t10k", 20)):
        pixels = bytes(i % 256 for i in range(count * 28 * 28))
        header = struct.pack(">4i", 0x803, count, 28, 28)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(header + pixels)
        labels = struct.pack(">2i", 0x801, count) + bytes(i % 10 for i in range(count))
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(labels)
    result = command(
        "--data", "mnist", "--data-dir", str(tmp_path), "--out", str(tmp_path / "out"), *SMALL
    )
    assert LAST_LINE.fullmatch(last_line(result))
    assert "mnist: 110 + 10 + 20 images" in result.output


def test_training_learns(tmp_path: Path) -> None:
    result = train_rows(small(tmp_path, cell="gru", epochs=8, hidden_size=48, batch_size=32))
    # Chance is 10 %; a run of the default length is a matter of half a minute, and reads 98 %.
    assert result.accuracy > 0.7
    losses = [row["train_loss"] for row in history(result.run_dir)]
    assert len(losses) == 8
    assert losses[-1] < 0.5 * losses[0]


def test_accuracy_is_that_of_the_best_checkpoint_on_every_test_image(tmp_path: Path) -> None:
    result = train_rows(small(tmp_path))
    run = RowsRun(small(tmp_path))
    run.task.load_state_dict(weights(result.checkpoint))
    images, labels = run.data.splits.test.tensors
    run.task.eval()
    with torch.no_grad():
        right = (run.task(images).argmax(1) == labels).sum().item()
    assert result.accuracy == pytest.approx(right / len(labels))


def test_native_twin_reaches_the_same_weights(tmp_path: Path) -> None:
    fused = train_rows(small(tmp_path / "fused"))
    native = train_rows(small(tmp_path / "native", native=True))
    for name, value in weights(native.run_dir / "checkpoints" / "last.ckpt").items():
        ours = weights(fused.run_dir / "checkpoints" / "last.ckpt")[name]
        torch.testing.assert_close(ours, value, rtol=1e-2, atol=1e-3)


def test_same_seed_same_weights_other_seed_others(tmp_path: Path) -> None:
    runs = [train_rows(small(tmp_path / str(i), seed=seed)) for i, seed in enumerate((3, 3, 4))]
    one, two, other = (weights(run.run_dir / "checkpoints" / "last.ckpt") for run in runs)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_the_kept_configuration_repeats_the_run(tmp_path: Path) -> None:
    options = ("--cell", "gru", "--seed", "3", "--dropout", "0.1", "--lr", "0.007", "--no-download")
    first = command(*SMALL, *options, "--num-layers", "2", "--out", str(tmp_path / "first"))
    kept = tmp_path / "first" / "version_0"
    again = command("--config", str(kept / "config.yaml"), "--out", str(tmp_path / "again"))
    assert LAST_LINE.fullmatch(last_line(first))
    assert last_line(again) == last_line(first)
    theirs = weights(kept / "checkpoints" / "last.ckpt")
    ours = weights(tmp_path / "again" / "version_0" / "checkpoints" / "last.ckpt")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_resumed_run_keeps_what_it_would_be_from_its_beginning(tmp_path: Path) -> None:
    first = train_rows(small(tmp_path / "first", epochs=1))
    copied = tmp_path / "copied.ckpt"
    shutil.copy(first.run_dir / "checkpoints" / "last.ckpt", copied)
    train_rows(small(tmp_path / "first", resume=first.run_dir))
    kept = yaml.safe_load((first.run_dir / "config.yaml").read_text())
    assert (kept["epochs"], kept["resume"]) == (2, None)
    # In another folder it is another run, which begins with the checkpoint.
    elsewhere = train_rows(small(tmp_path / "other", resume=copied))
    kept = yaml.safe_load((elsewhere.run_dir / "config.yaml").read_text())
    assert kept["resume"] == str(copied)


def test_resumed_run_ends_where_an_unbroken_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_rows(small(tmp_path / "whole", epochs=3, seed=5))

    class Killed(Exception):
        pass

    # Killed in the middle of the second epoch, when one epoch has been saved.
    run = RowsRun(small(tmp_path / "broken", epochs=3, seed=5))
    step = run.task.training_step

    def dying_step(batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        if run.trainer.current_epoch == 1 and batch_idx == 4:
            raise Killed
        return step(batch, batch_idx)

    monkeypatch.setattr(run.task, "training_step", dying_step)
    with pytest.raises(Killed):
        run.run()

    broken = tmp_path / "broken" / "version_0"
    assert len(history(broken)) == 1
    result = command(
        *("--resume", str(broken), "--seed", "5", "--out", str(tmp_path / "broken")),
        *SMALL,
        *("--epochs", "3"),
    )
    assert LAST_LINE.fullmatch(last_line(result))
    # The same run goes on, in its own folder, and its curves have every epoch.
    assert [path.name for path in (tmp_path / "broken").iterdir()] == ["version_0"]
    assert history(broken) == history(whole.run_dir)
    theirs = weights(whole.run_dir / "checkpoints" / "last.ckpt")
    ours = weights(broken / "checkpoints" / "last.ckpt")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_resume_of_a_finished_run_tests_it_again(tmp_path: Path) -> None:
    first = train_rows(small(tmp_path))
    copied = tmp_path / "copied.ckpt"
    shutil.copy(first.run_dir / "checkpoints" / "last.ckpt", copied)
    again = train_rows(small(tmp_path, resume=first.run_dir))
    assert again == first
    elsewhere = train_rows(small(tmp_path, resume=copied))
    assert elsewhere.run_dir != first.run_dir


def test_resume_refuses_what_does_not_fit(tmp_path: Path) -> None:
    first = train_rows(small(tmp_path, epochs=1))
    result = command("--resume", str(first.run_dir), "--cell", "gru", "--hidden-size", "16")
    assert result.exit_code == 1
    assert "was trained with cell='lstm', hidden_size=16, num_layers=1" in result.stderr
    result = command("--resume", str(tmp_path / "nowhere"))
    assert result.exit_code == 1
    assert "there is no checkpoint at" in result.stderr
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    result = command("--resume", str(tmp_path / "text.ckpt"))
    assert result.exit_code == 1
    assert "is not a checkpoint of this recipe" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--epochs", "0"], "epochs is 0, expected at least 1"),
        (["--patience", "0"], "patience is 0, expected at least 1"),
        (["--batch-size", "-1"], "batch_size is -1, expected at least 1"),
        (["--hidden-size", "0"], "hidden_size is 0, expected at least 1"),
        (["--num-layers", "0"], "num_layers is 0, expected at least 1"),
        (["--dropout", "1.5"], "dropout is 1.5, expected 0 <= dropout < 1"),
        (["--lr", "nan"], "lr is nan, expected a positive number"),
        (["--weight-decay", "-1"], "weight_decay is -1.0, expected 0 or more"),
        (["--max-shift", "-1"], "max_shift is -1.0"),
        (["--seed", "-1"], "seed is -1, expected 0 to"),
        (["--data", "mnist", "--data-dir", "nowhere"], "MNIST is not complete in nowhere"),
        (["--strategy", "imaginary"], "imaginary"),
        (["--precision", "7-bit"], "7-bit"),
    ],
)
def test_bad_arguments_get_a_sentence(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    result = command("--out", str(tmp_path), *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("fastseq: ")
    assert sentence in result.stderr
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_unknown_cell_lists_the_known_ones() -> None:
    result = command("--cell", "elman")
    assert result.exit_code == 2
    assert all(name in result.stderr for name in ("elman", "lstm", "gru", "rnn"))


def test_errors_in_training_keep_their_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("in the middle")

    monkeypatch.setattr("fastseq.recipes.rows.task.RowClassifier.training_step", fail)
    result = command("--out", str(tmp_path), *SMALL)
    assert isinstance(result.exception, ValueError)


@pytest.mark.parametrize("epochs", [0, 1, 5])
def test_learning_curves_of_any_length(tmp_path: Path, epochs: int) -> None:
    rows = [
        {"epoch": i + 1, "train_loss": 1 / (i + 1), "val_loss": 1.1 / (i + 1), "val_accuracy": 0.9}
        for i in range(epochs)
    ]
    path = learning_curves(rows, tmp_path / "deep" / "curves.png", "title")
    assert path.read_bytes().startswith(PNG)


@pytest.mark.parametrize("count", [0, 1, 9, 100])
def test_misread_digits_of_any_number(tmp_path: Path, count: int) -> None:
    labels = torch.arange(count) % 10
    path = misread_digits(
        torch.rand(count, 1, 28, 28), labels, (labels + 1) % 10, tmp_path / "wrong.png", 200
    )
    assert path.read_bytes().startswith(PNG)
