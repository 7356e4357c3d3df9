"""`fastseq train tags`: what it prints, writes, refuses and resumes."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("lightning", reason="the train extra is not installed")
pytest.importorskip("torchmetrics", reason="the train extra is not installed")

import recipe_cases
from command_line import Result, invoke
from recipe_cases import NEWS, PNG, weights

from fastseq.recipes.tags.config import TagsConfig
from fastseq.recipes.tags.conll import write_conll
from fastseq.recipes.tags.metrics import EntityF1
from fastseq.recipes.tags.run import TagsRun, train_tags

pytestmark = pytest.mark.usefixtures("one_thread")

LAST_LINE = r"test F1 \d+\.\d\d % \(most frequent tag of each word: \d+\.\d\d %\)"


def command(*arguments: str | Path) -> Result:
    return invoke(["train", "tags", *map(str, arguments), "--accelerator", "cpu"])


def test_command_prints_its_measure_last_and_writes_figures(tmp_path: Path) -> None:
    result = invoke(recipe_cases.command("tags", tmp_path, "--epochs", "1"))
    assert result.exit_code == 0, result.output
    assert re.fullmatch(LAST_LINE, result.stdout.rstrip("\n").splitlines()[-1])
    run_dir = tmp_path / "out" / "version_0"
    figures = sorted(run_dir.glob("*.png"))
    assert [path.name for path in figures] == ["entities.png", "learning_curves.png"]
    assert all(path.read_bytes().startswith(PNG) for path in figures)
    assert list(run_dir.glob("events.out.tfevents.*"))
    # Nothing that no user can act on.
    assert "num_workers" not in result.output
    assert "Warning" not in result.output


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


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--word-dropout", "1.5"), "word_dropout is 1.5, expected 0 to 1"),
        (("--train", "a.conll"), "--val and --test missing: pass a CoNLL file to each"),
        (tuple(f"--{part}=no.conll" for part in ("train", "val", "test")), "at no.conll"),
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
