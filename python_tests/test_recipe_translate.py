"""`fastseq train translate`: what it prints, writes, refuses and resumes."""

import re
from pathlib import Path

import pytest

pytest.importorskip("lightning", reason="the train extra is not installed")
pytest.importorskip("torchmetrics", reason="the train extra is not installed")

import recipe_cases
from command_line import Result, invoke
from recipe_cases import NUMBERS, PNG, weights

from fastseq.recipes.translate.config import TranslateConfig
from fastseq.recipes.translate.data import (
    BEGIN,
    END,
    Pair,
    PairParts,
    decode_digits,
    encode_words,
    spell,
)
from fastseq.recipes.translate.run import TranslateRun, train_translate

pytestmark = pytest.mark.usefixtures("one_thread")

LAST_LINE = (
    r"test exact match \d+\.\d\d % greedy, \d+\.\d\d % with 4 beams "
    r"\(word by word: \d+\.\d\d %\)"
)


def command(*arguments: str | Path) -> Result:
    return invoke(["train", "translate", *map(str, arguments), "--accelerator", "cpu"])


def test_command_prints_its_measure_last_and_writes_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastseq.recipes.translate.data.SIZES", NUMBERS)
    result = invoke(recipe_cases.command("translate", tmp_path, "--epochs", "1"))
    assert result.exit_code == 0, result.output
    assert re.fullmatch(LAST_LINE, result.stdout.rstrip("\n").splitlines()[-1])
    run_dir = tmp_path / "out" / "version_0"
    figures = sorted(run_dir.glob("*.png"))
    assert [path.name for path in figures] == ["attention.png", "learning_curves.png"]
    assert all(path.read_bytes().startswith(PNG) for path in figures)
    assert list(run_dir.glob("events.out.tfevents.*"))
    # Nothing that no user can act on.
    assert "num_workers" not in result.output
    assert "Warning" not in result.output


def test_translation_beats_the_words_alone(tmp_path: Path) -> None:
    # Numbers below a hundred, where the words alone fail at every whole ten.
    pairs = [Pair(spell(number), str(number)) for number in range(100)]
    parts = PairParts(pairs, pairs[::5], pairs[::5])
    config = TranslateConfig(
        hidden_size=32, epochs=25, batch_size=10, lr=0.01, accelerator="cpu", out=tmp_path
    )
    result = train_translate(config, parts)
    assert result.baseline == pytest.approx(0.6)  # 0, 5, ..., 95: the whole tens from 20 fail
    assert result.greedy > 0.8
    assert result.beam > 0.8
    # The share is that of the best checkpoint, one number at a time.
    run = TranslateRun(config, parts)
    run.task.load_state_dict(weights(result.run_dir, "best"))
    model = run.task.model
    right = 0
    for words, digits in parts.test:
        (written,) = model.greedy_decode(encode_words(words).unsqueeze(0), BEGIN, END, 10)
        right += decode_digits(written) == digits
    assert result.greedy == pytest.approx(right / len(parts.test))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--beams", "0"), "beams is 0, expected at least 1"),
        (("--dropout", "1"), "dropout is 1.0, expected 0 <= dropout < 1"),
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
