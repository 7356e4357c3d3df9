"""Every recipe outlives SIGKILL, and two processes train as one does."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning", reason="the train extra is not installed")
pytest.importorskip("sklearn", reason="the train extra is not installed")

import recipe_cases
from command_line import invoke

pytestmark = pytest.mark.usefixtures("one_thread")

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _few_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastseq.recipes.translate.data.SIZES", recipe_cases.NUMBERS)


def run(recipe: str, folder: Path, *options: str) -> None:
    result = invoke(recipe_cases.command(recipe, folder, *options))
    assert result.exit_code == 0, result.output


def last(folder: Path) -> dict:
    path = folder / "out" / "version_0" / "checkpoints" / "last.ckpt"
    return torch.load(path, weights_only=True)


def epochs(checkpoint: dict) -> list[dict[str, float]]:
    return checkpoint["callbacks"]["History"]["epochs"]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """A folder with a run of each recipe that was killed, and how each ended."""
    folder = tmp_path_factory.mktemp("killed")
    result = subprocess.run(
        [sys.executable, str(HERE / "recipe_killer.py"), str(folder)],
        capture_output=True,
        text=True,
        env=recipe_cases.environment(),
        cwd=HERE,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    ends = dict(line.split() for line in result.stdout.splitlines())
    return folder, {recipe: int(end) for recipe, end in ends.items()}


@pytest.mark.parametrize("recipe", recipe_cases.SMALL)
def test_killed_in_an_epoch_and_resumed_nothing_else_is_lost(
    recipe: str, killed: tuple[Path, dict[str, int]], tmp_path: Path
) -> None:
    folder, ends = killed[0] / recipe, killed[1]
    assert ends[recipe] == -signal.SIGKILL
    assert len(epochs(last(folder))) == 1
    run(recipe, folder, "--epochs", "3", "--resume", str(folder / "out" / "version_0"))
    run(recipe, tmp_path, "--epochs", "3")
    # The same run went on, and ends where one that was never killed does.
    assert [path.name for path in (folder / "out").iterdir()] == ["version_0"]
    resumed, whole = last(folder), last(tmp_path)
    assert len(epochs(whole)) == 3
    assert epochs(resumed) == epochs(whole)
    for name, value in whole["state_dict"].items():
        assert torch.equal(resumed["state_dict"][name], value), name


def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    """The same seed and global batch: two gloo processes with half of every batch each.

    Characters, because windows of one length make the mean of two halves' means the mean of all;
    what remains is the order of sums in float32.
    """
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    both = ("--devices", "2", "--strategy", "ddp", "--batch-size", "4", "--epochs", "2")
    result = subprocess.run(
        [sys.executable, "-m", "fastseq.cli", *recipe_cases.command("chars", two, *both)],
        capture_output=True,
        text=True,
        env=recipe_cases.environment(),
        cwd=HERE,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "distributed_backend=gloo" in result.stderr
    assert "with 2 processes" in result.stderr
    # One process speaks.
    assert result.stdout.count("test perplexity") == 1
    run("chars", one, "--batch-size", "8", "--epochs", "2")
    ours, theirs = epochs(last(two)), epochs(last(one))
    assert len(ours) == len(theirs) == 2
    for ours_row, theirs_row in zip(ours, theirs, strict=True):
        assert ours_row == pytest.approx(theirs_row, rel=1e-4)
    weights = last(one)["state_dict"]
    for name, value in last(two)["state_dict"].items():
        torch.testing.assert_close(value, weights[name], rtol=1e-3, atol=1e-4)
