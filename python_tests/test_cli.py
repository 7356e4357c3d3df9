import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("cyclopts", reason="the cli extra is not installed")

from command_line import invoke

import fastseq
import fastseq.nn

HIDE = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hide())
sys.argv = ["fastseq", *{arguments!r}]
from fastseq.cli import main
main()
"""


def without(hidden: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process where some packages cannot be imported."""
    code = HIDE.format(hidden=hidden, arguments=arguments)
    # The child must find the same fastseq, installed or not.
    path = os.pathsep.join([str(Path(fastseq.__file__).parents[1]), *sys.path])
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        cwd=Path(__file__).parent,  # not the root: its fastseq/ would hide an installed one
        check=False,
    )


def test_info_is_an_aligned_table() -> None:
    result = invoke(["info"])
    assert result.exit_code == 0
    facts = fastseq.info()
    width = max(map(len, facts))
    assert result.output.splitlines()[: len(facts)]
    for name, value in facts.items():
        assert f"{name:<{width}}  {value}" in result.output


def test_check_quick_passes() -> None:
    result = invoke(["check", "--quick"])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1].endswith("checks passed on cpu")
    for op in ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"):
        assert f"\n{op} " in result.output


def test_check_fails_when_an_op_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(fastseq.nn.GRUCell):
        def forward(self, *arguments: torch.Tensor) -> torch.Tensor:
            return super().forward(*arguments) * 1.001

    monkeypatch.setattr(fastseq.nn, "GRUCell", Wrong)
    result = invoke(["check", "--quick"])
    assert result.exit_code == 1
    # Every GRUCell row and no other is a mismatch.
    wrong = [line for line in result.output.splitlines() if line.endswith("MISMATCH")]
    assert wrong
    assert all(line.startswith("GRUCell") for line in wrong)
    assert f"{len(wrong)} of " in result.output.splitlines()[-1]
    assert "FAILED" in result.output.splitlines()[-1]


def test_check_refuses_a_device() -> None:
    result = invoke(["check", "--device", "abacus"])
    assert result.exit_code == 1
    assert result.stderr.startswith("fastseq: device is 'abacus'")


@pytest.mark.parametrize("package", ["cyclopts", "yaml"])
def test_missing_cli_extra_gets_a_sentence(package: str) -> None:
    result = without([package], "info")
    assert result.returncode == 1
    sentence = f"fastseq's command line needs {package}: pip install 'fastseq[cli]'\n"
    assert result.stderr == sentence


@pytest.mark.parametrize("package", ["lightning", "torchmetrics", "matplotlib", "sklearn"])
def test_missing_train_extra_gets_a_sentence(package: str, tmp_path: Path) -> None:
    pytest.importorskip("lightning", reason="the train extra is not installed")
    result = without([package], "train", "rows", "--out", str(tmp_path))
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        f"fastseq: fastseq train needs {package}: pip install 'fastseq[train]'"
    )


def test_help_does_not_import_lightning() -> None:
    result = without(["lightning", "matplotlib", "sklearn"], "train", "rows", "--help")
    assert result.returncode == 0
    assert "--cell" in result.stdout
