"""`fastseq train chars`: what it prints, writes, refuses and resumes."""

import re
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning", reason="the train extra is not installed")
pytest.importorskip("torchmetrics", reason="the train extra is not installed")

import recipe_cases
from command_line import Result, invoke
from recipe_cases import PNG, TEXT, weights

from fastseq.recipes.chars.config import CharsConfig
from fastseq.recipes.chars.data import Characters
from fastseq.recipes.chars.run import CharsRun, train_chars

pytestmark = pytest.mark.usefixtures("one_thread")

LAST_LINE = (
    r"test perplexity \d+\.\d\d per character "
    r"\(counts: unigram \d+\.\d\d, bigram \d+\.\d\d\)"
)


def command(*arguments: str | Path) -> Result:
    return invoke(["train", "chars", *map(str, arguments), "--accelerator", "cpu"])


def test_command_prints_its_measure_last_and_writes_figures(tmp_path: Path) -> None:
    result = invoke(recipe_cases.command("chars", tmp_path, "--epochs", "1"))
    assert result.exit_code == 0, result.output
    assert re.fullmatch(LAST_LINE, result.stdout.rstrip("\n").splitlines()[-1])
    run_dir = tmp_path / "out" / "version_0"
    figures = sorted(run_dir.glob("*.png"))
    assert [path.name for path in figures] == ["learning_curves.png"]
    assert all(path.read_bytes().startswith(PNG) for path in figures)
    assert list(run_dir.glob("events.out.tfevents.*"))
    # Nothing that no user can act on.
    assert "num_workers" not in result.output
    assert "Warning" not in result.output


def chars(tmp_path: Path, **options: object) -> CharsConfig:
    (tmp_path / "text.txt").write_text(TEXT)
    defaults = {"window": 32, "hidden_size": 32, "sample": 40, "epochs": 2}
    where = {"text": tmp_path / "text.txt", "out": tmp_path / "out", "accelerator": "cpu"}
    return CharsConfig(**{**where, **defaults, **options})


def test_chars_beat_the_counts_and_sample(tmp_path: Path) -> None:
    config = chars(tmp_path, epochs=8, prompt="the cat", lr=0.02)
    result = train_chars(config)
    assert result.perplexity < 0.75 * result.baselines["bigram"]
    assert result.baselines["bigram"] < result.baselines["unigram"]
    assert result.sample.startswith("the cat")
    assert len(result.sample) == len("the cat") + 40
    # The perplexity is that of the best checkpoint, on the test text read as one.
    run = CharsRun(config)
    run.task.load_state_dict(weights(result.run_dir, "best"))
    lanes = run.data.test_dataloader().dataset
    with torch.no_grad():
        logits = run.task.eval()(lanes.inputs)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), lanes.targets.flatten())
    assert result.perplexity == pytest.approx(float(loss.exp()), rel=1e-4)


def test_chars_native_twin_reaches_the_same_weights(tmp_path: Path) -> None:
    runs = [train_chars(chars(tmp_path, native=native)) for native in (False, True)]
    fused, native = (weights(run.run_dir) for run in runs)
    for name, value in native.items():
        torch.testing.assert_close(fused[name], value, rtol=1e-2, atol=1e-3)


def test_chars_refuse_to_go_on_with_another_text(tmp_path: Path) -> None:
    first = train_chars(chars(tmp_path, epochs=1))
    other = tmp_path / "other.txt"
    other.write_text(TEXT[::-1])
    result = command("--text", other, "--resume", first.run_dir, "--hidden-size", "32")
    assert result.exit_code == 1
    assert "was trained with cell='lstm'" in result.stderr
    assert f"text={Characters(TEXT).fingerprint!r}, and this run asks for" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--window", "0"), "window is 0, expected at least 1"),
        (("--sample", "0"), "sample is 0, expected at least 1"),
        (("--temperature", "-1"), "temperature is -1.0, expected 0 or more"),
        (("--prompt", ""), "prompt is empty"),
        (("--clip", "nan"), "clip is nan, expected 0 or more"),
        (("--text", "nowhere.txt"), "there is no text file at nowhere.txt"),
        (("--hidden-size", "0"), "hidden_size is 0, expected at least 1"),
        (("--epochs", "0"), "epochs is 0, expected at least 1"),
    ],
)
def test_bad_arguments_get_a_sentence(
    tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    result = command(*arguments, "--out", tmp_path)
    assert result.exit_code == 1
    assert result.stderr.startswith("fastseq: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert sentence in result.stderr
    assert not list(tmp_path.iterdir())
