"""`fastseq tune rows`: goes on where it was, mends what was killed, and reports the best."""

import re
from pathlib import Path

import pytest

pytest.importorskip("lightning", reason="the train extra is not installed")
pytest.importorskip("sklearn", reason="the train extra is not installed")
pytest.importorskip("optuna", reason="the tune extra is not installed")

import optuna
from command_line import Result, invoke
from optuna.trial import TrialState

from fastseq.recipes.tune_rows import run as module
from fastseq.recipes.tune_rows.config import TuneRowsConfig
from fastseq.recipes.tune_rows.run import TuneRowsRun, tune_rows

pytestmark = pytest.mark.usefixtures("one_thread")

LAST_LINE = re.compile(
    r"best validation accuracy \d+\.\d\d %, test \d+\.\d\d % "
    r"\(defaults with as many epochs: \d+\.\d\d %, test \d+\.\d\d %\)"
)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"hidden_size": [16, 128], "batch_size": [32, 128]}
    monkeypatch.setattr(module, "CHOICES", {**module.CHOICES, **sizes})


def command(out: Path, *arguments: str) -> Result:
    given = ["tune", "rows", "--accelerator", "cpu", "--epochs", "1", "--out", str(out)]
    return invoke([*given, *arguments])


def test_search_goes_on_to_the_number_of_trials_asked_for(tmp_path: Path) -> None:
    first = command(tmp_path, "--trials", "2")
    assert first.exit_code == 0, first.output
    assert "0 of them done" in first.stdout
    assert LAST_LINE.fullmatch(first.stdout.rstrip("\n").splitlines()[-1])
    assert "trials: 2\n" in (tmp_path / "config.yaml").read_text()
    assert (tmp_path / "search.png").read_bytes().startswith(b"\x89PNG")
    second = command(tmp_path, "--trials", "3")
    assert "2 of them done" in second.stdout
    assert re.findall(r"^trial +(\d+)", second.stdout, re.MULTILINE) == ["2"]
    study = optuna.load_study(study_name="rows", storage=f"sqlite:///{tmp_path / 'study.db'}")
    options = [trial.params for trial in study.trials]
    # The first takes the defaults; the others differ, though the search began anew.
    assert (options[0]["cell"], options[0]["lr"], options[0]["hidden_size"]) == ("lstm", 2e-3, 128)
    assert len({trial["lr"] for trial in options}) == 3
    # The result is the best of what is stored.
    best = max(trial.value for trial in study.trials)
    assert f"best validation accuracy {100 * best:.2f} %" in second.stdout
    # Nothing is left to do: the same report again.
    assert (
        command(tmp_path, "--trials", "3").stdout.splitlines()[-8:]
        == (second.stdout.splitlines()[-8:])
    )


def test_a_killed_trial_is_trained_again_with_its_options(tmp_path: Path) -> None:
    config = TuneRowsConfig(trials=1, epochs=1, cell="gru", accelerator="cpu", out=tmp_path)
    tune_rows(config)
    # What a killed process leaves: a trial that runs, with what it had been given.
    study = optuna.load_study(study_name="rows", storage=f"sqlite:///{tmp_path / 'study.db'}")
    killed = study.ask()
    given = {
        "cell": killed.suggest_categorical("cell", ["gru"]),
        "hidden_size": killed.suggest_categorical("hidden_size", [16, 128]),
        "batch_size": killed.suggest_categorical("batch_size", [32, 128]),
        "num_layers": killed.suggest_int("num_layers", 1, 2),
        "max_shift": killed.suggest_float("max_shift", 0.0, 2.5),
        "lr": killed.suggest_float("lr", 3e-4, 1e-2, log=True),
        "weight_decay": killed.suggest_float("weight_decay", 1e-3, 0.3, log=True),
    }
    run = TuneRowsRun(
        TuneRowsConfig(trials=2, epochs=1, cell="gru", accelerator="cpu", out=tmp_path)
    )
    run.run()
    states = [trial.state for trial in run.study.trials]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    assert run.study.trials[2].params == given


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--trials", "0"), "trials is 0, expected at least 1"),
        (("--epochs", "0"), "epochs is 0, expected at least 1"),
        (("--seed", "-1"), "seed is -1, expected 0 to"),
        (("--data", "mnist", "--data-dir", "nowhere"), "MNIST is not complete in nowhere"),
    ],
)
def test_bad_arguments_get_a_sentence(
    tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    result = command(tmp_path / "out", *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("fastseq: ")
    assert sentence in result.stderr
    assert not (tmp_path / "out").exists()


def test_another_search_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    TuneRowsRun(TuneRowsConfig(epochs=1, accelerator="cpu", out=tmp_path))
    result = command(tmp_path, "--epochs", "2")
    assert result.exit_code == 1
    assert f"the search in {tmp_path} was made with epochs=1; pass the same" in result.stderr
