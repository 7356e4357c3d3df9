"""`fastseq train chars`, `tags` and `translate`: what they print, write, refuse and resume."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning", reason="the train extra is not installed")
pytest.importorskip("torchmetrics", reason="the train extra is not installed")

import recipe_cases
from recipe_cases import NEWS, TEXT
from typer.testing import CliRunner, Result

from fastseq.commands import app
from fastseq.data.conll import write_conll
from fastseq.data.numbers import (
    BEGIN,
    END,
    Pair,
    PairParts,
    decode_digits,
    encode_words,
    spell,
)
from fastseq.data.text import Characters
from fastseq.training.chars import CharsConfig, CharsRun, train_chars
from fastseq.training.entity_f1 import EntityF1
from fastseq.training.tags import TagsConfig, TagsRun, train_tags
from fastseq.training.translate import TranslateConfig, TranslateRun, train_translate

pytestmark = pytest.mark.usefixtures("one_thread")

PNG = b"\x89PNG\r\n\x1a\n"


def command(*arguments: str | Path) -> Result:
    given = ["train", *map(str, arguments), "--accelerator", "cpu"]
    return CliRunner().invoke(app, given)


def weights(run_dir: Path, name: str = "last") -> dict[str, torch.Tensor]:
    saved = torch.load(run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return saved["state_dict"]


# Recipe: its files and its last line.
FIGURES = {
    "translate": ["attention.png", "learning_curves.png"],
    "chars": ["learning_curves.png"],
    "tags": ["entities.png", "learning_curves.png"],
}
LAST_LINES = {
    "translate": r"test exact match \d+\.\d\d % greedy, \d+\.\d\d % with 4 beams "
    r"\(word by word: \d+\.\d\d %\)",
    "chars": r"test perplexity \d+\.\d\d per character "
    r"\(counts: unigram \d+\.\d\d, bigram \d+\.\d\d\)",
    "tags": r"test F1 \d+\.\d\d % \(most frequent tag of each word: \d+\.\d\d %\)",
}


@pytest.mark.parametrize("recipe", FIGURES)
def test_command_prints_its_measure_last_and_writes_figures(
    tmp_path: Path, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastseq.data.numbers.SIZES", recipe_cases.NUMBERS)
    arguments = recipe_cases.command(recipe, tmp_path, "--epochs", "1")
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert re.fullmatch(LAST_LINES[recipe], result.stdout.rstrip("\n").splitlines()[-1])
    run_dir = tmp_path / "out" / "version_0"
    assert sorted(path.name for path in run_dir.glob("*.png")) == sorted(FIGURES[recipe])
    assert all((run_dir / name).read_bytes().startswith(PNG) for name in FIGURES[recipe])
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
    result = command("chars", "--text", other, "--resume", first.run_dir, "--hidden-size", "32")
    assert result.exit_code == 1
    assert "was trained with cell='lstm'" in result.stderr
    assert f"text={Characters(TEXT).fingerprint!r}, and this run asks for" in result.stderr


def tags(tmp_path: Path, **options: object) -> TagsConfig:
    recipe_cases.tags(tmp_path)
    files = {name: tmp_path / f"{name}.conll" for name in ("train", "val", "test")}
    defaults = {"hidden_size": 32, "embedding_size": 32, "epochs": 8, "accelerator": "cpu"}
    return TagsConfig(**{**files, "out": tmp_path / "out", **defaults, **options})


def test_tags_beat_the_most_frequent_tag(tmp_path: Path) -> None:
    config = tags(tmp_path, lr=0.02, epochs=20, batch_size=16)
    result = train_tags(config)
    assert result.scores["all"].f1 > result.baseline["all"].f1 + 0.05
    assert set(result.scores) == set(result.baseline) == {"LOC", "MISC", "ORG", "PER", "all"}
    # The scores are those of the best checkpoint on every test sentence, one at a time.
    run = TagsRun(config)
    run.task.load_state_dict(weights(result.run_dir, "best"))
    metric = EntityF1(run.data.tags)
    for sentence in NEWS[2]:
        words, _ = run.data.vocabulary.encode(sentence.tokens)
        numbers = run.task.model.tag(words.unsqueeze(0))[0].tolist()
        metric.update([[run.data.tags[number] for number in numbers]], [sentence.tags])
    assert metric.scores() == result.scores


def test_tags_refuse_to_go_on_with_another_corpus(tmp_path: Path) -> None:
    first = train_tags(tags(tmp_path, epochs=1))
    (tmp_path / "val.conll").write_text(write_conll(NEWS[1][:-1]))
    with pytest.raises(ValueError, match=r"was trained with .*corpus='.*', and this run asks for"):
        TagsRun(replace(tags(tmp_path), val=tmp_path / "test.conll", resume=first.run_dir))


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
        (("translate", "--beams", "0"), "beams is 0, expected at least 1"),
        (("translate", "--dropout", "1"), "dropout is 1.0, expected 0 <= dropout < 1"),
        (("tags", "--word-dropout", "1.5"), "word_dropout is 1.5, expected 0 to 1"),
        (("tags", "--train", "a.conll"), "--val and --test missing: pass a CoNLL file to each"),
        (("tags", *(f"--{part}=no.conll" for part in ("train", "val", "test"))), "at no.conll"),
        (("tags", "--dropout", "1"), "dropout is 1.0, expected 0 <= dropout < 1"),
        (("chars", "--window", "0"), "window is 0, expected at least 1"),
        (("chars", "--sample", "0"), "sample is 0, expected at least 1"),
        (("chars", "--temperature", "-1"), "temperature is -1.0, expected 0 or more"),
        (("chars", "--prompt", ""), "prompt is empty"),
        (("chars", "--clip", "nan"), "clip is nan, expected 0 or more"),
        (("chars", "--text", "nowhere.txt"), "there is no text file at nowhere.txt"),
        (("chars", "--hidden-size", "0"), "hidden_size is 0, expected at least 1"),
        (("chars", "--epochs", "0"), "epochs is 0, expected at least 1"),
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
