"""Every recipe is a room with the same few parts."""

import ast
import importlib
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("lightning", reason="the train extra is not installed")
pytest.importorskip("torchmetrics", reason="the train extra is not installed")
pytest.importorskip("torchvision", reason="the train extra is not installed")

import recipe_cases
from lightning.pytorch import LightningModule

from fastseq import recipes
from fastseq.recipes.shared.config import RunConfig
from fastseq.recipes.shared.run import Run

HERE = Path(__file__).parent
ROOMS = Path(recipes.__file__).parent
WORDS = {folder: words for words, folder in recipes.commands().items()}
# What stands on the floors below, for recipes to use.
BELOW = ("fastseq.models", "fastseq.transfer", "fastseq.nn", "fastseq.recipes.shared")
# A search trains the recipe that it searches.
GUESTS = {"tune_rows": "fastseq.recipes.rows"}


def part(folder: str, name: str) -> ModuleType:
    if "tune" in folder:
        pytest.importorskip("optuna", reason="the tune extra is not installed")
    return importlib.import_module(f"fastseq.recipes.{folder}.{name}")


def title(folder: str) -> str:
    return "".join(word.capitalize() for word in folder.split("_"))


def test_every_folder_is_a_command() -> None:
    folders = {path.name for path in ROOMS.iterdir() if (path / "__init__.py").is_file()}
    assert folders - {"shared"} == set(WORDS)


@pytest.mark.parametrize("folder", WORDS)
def test_parts(folder: str) -> None:
    # A sentence, which is the command's help.
    sentence = importlib.import_module(f"fastseq.recipes.{folder}").__doc__ or ""
    assert sentence.endswith(".")
    assert "\n" not in sentence
    config = getattr(part(folder, "config"), f"{title(folder)}Config")
    run = part(folder, "run")
    assert callable(getattr(run, f"{title(folder)}Run").run)
    function = getattr(run, WORDS[folder].replace(" ", "_"))
    assert config.__name__ in function.__annotations__["config"]
    assert (HERE / f"test_recipe_{folder}.py").is_file()


@pytest.mark.parametrize("folder", [name for name, words in WORDS.items() if "train" in words])
def test_parts_of_what_trains(folder: str) -> None:
    run = getattr(part(folder, "run"), f"{title(folder)}Run")
    assert issubclass(run, Run)
    task = getattr(part(folder, "task"), run.build_task.__annotations__["return"])
    assert issubclass(task, LightningModule)
    config = getattr(part(folder, "config"), f"{title(folder)}Config")
    assert issubclass(config, RunConfig)
    # What outlives SIGKILL: test_recipe_survival.py.
    assert folder in recipe_cases.SMALL


@pytest.mark.parametrize("folder", WORDS)
def test_a_recipe_imports_what_is_shared_and_no_other_recipe(folder: str) -> None:
    own = (f"fastseq.recipes.{folder}", GUESTS.get(folder, "fastseq.models"))
    for path in (ROOMS / folder).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("fastseq"):
                assert str(node.module).startswith((*BELOW, *own)), f"{path}: {node.module}"


def test_what_is_shared_imports_no_recipe() -> None:
    for path in (ROOMS / "shared").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("fastseq"):
                assert str(node.module).startswith(BELOW), f"{path}: {node.module}"
