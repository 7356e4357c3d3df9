"""`fastseq bench`: rows, intervals, comparison, pictures, sentences; at tiny sizes."""

import csv
import ctypes
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("cyclopts", reason="the bench extra is not installed")
pytest.importorskip("matplotlib", reason="the bench extra is not installed")
pytest.importorskip("onnxruntime", reason="the bench extra is not installed")

from command_line import invoke
from test_cli import without

from fastseq.bench import heap, interval, rows
from fastseq.bench.cases import provider_of
from fastseq.bench.changes import changes
from fastseq.bench.models import MODELS
from fastseq.bench.processor import cpu_model


def bench(work: str, out: Path, *options: str) -> list[rows.Row]:
    """The rows of a run as short as it can be."""
    quick = ("--threads", "1", "--seconds", "0", "--out", str(out))
    result = invoke(["bench", work, *quick, *options])
    assert result.exit_code == 0, (result.output, result.exception)
    assert f"rows: {out}" in result.stdout
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[rows.Row]]:
    out = tmp_path_factory.mktemp("bench") / "rnn.csv"
    chosen = ("--shape", "6,3,5,7", "--shape", "4,2,3,4", "--cell", "lstm", "--cell", "gru")
    return out, bench("rnn", out, *chosen)


def test_every_row_says_what_it_is_of(recurrent: tuple[Path, list[rows.Row]]) -> None:
    _, found = recurrent
    served = {"torch.nn", "fastseq", "fastseq.freeze", "ONNX Runtime"}
    wanted = {"infer": served, "train": {"torch.nn", "fastseq"}}
    for op in ("LSTM", "GRU"):
        for mode, providers in wanted.items():
            for shape in (["6", "3", "5", "7"], ["4", "2", "3", "4"]):
                case = [r for r in found if (r["op"], r["mode"]) == (op, mode)]
                case = [r for r in case if [r[n] for n in "TBIH"] == shape]
                assert {row["provider"] for row in case} == providers
    for row in found:
        assert row["cpu"]
        assert row["torch"] == torch.__version__
        assert row["fastseq"]
        assert row["version"]
        assert (row["provider"] == "torch.nn") <= (row["version"] == torch.__version__)
        assert int(row["rounds"]) >= interval.ROUNDS
        low, middle, high = (float(row[n]) for n in ("p20_ms", "median_ms", "p80_ms"))
        assert 0 < low <= middle <= high
        assert 0 < float(row["low_ms"]) <= float(row["high_ms"])
        assert float(row["ratio_low"]) <= float(row["ratio"]) <= float(row["ratio_high"])
        assert (row["provider"] != "fastseq") or row["ratio"] == "1"


def test_the_picture_is_drawn(recurrent: tuple[Path, list[rows.Row]]) -> None:
    (picture,) = recurrent[0].parent.glob("*.png")
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("work", ["lrn", "pool", "trio"])
def test_images(work: str, tmp_path: Path) -> None:
    chosen = ("--shape", "1,6,9,9", "--mode", "infer", "--no-picture")
    found = bench(work, tmp_path / "rows.csv", *chosen)
    assert {row["layout"] for row in found} == {"NCHW", "NHWC"}
    assert {row["provider"] for row in found} == {"torch.nn", "fastseq", "copy"}
    assert {tuple(row[name] for name in "NCHW") for row in found} == {("1", "6", "9", "9")}


def test_single_steps(tmp_path: Path) -> None:
    found = bench("cells", tmp_path / "rows.csv", "--shape", "2,3,4", "--no-picture")
    assert {row["op"] for row in found} == {"LSTMCell", "GRUCell", "RNNCell"}
    assert {row["mode"] for row in found} == {"infer", "train"}


def test_whole_models(tmp_path: Path) -> None:
    small = ("RowRNN", "BiLSTM tagger")
    chosen = [option for name in small for option in ("--model", name)]
    found = bench("models", tmp_path / "rows.csv", *chosen, "--batch", "2", "--no-picture")
    assert [row["op"] for row in found] == ["RowRNN"] * 2 + ["BiLSTM tagger"] * 2
    assert {row["B"] for row in found} == {"2"}


@pytest.mark.parametrize("name", ["CharRNN", "Seq2Seq"])
def test_models_learn(name: str) -> None:
    words = {"work": "models", "op": name, "dtype": "float32", "mode": "train", "layout": "dense"}
    words |= {"shape": [2], "device": "cpu", "compiled": False, "threads": 1}
    for provider in ("torch.nn", "fastseq"):
        loss, *grads = provider_of({**words, "provider": provider}).call()
        assert 0 < loss.item() < 20
        assert all(g.isfinite().all() and g.abs().sum() > 0 for g in grads)
    with pytest.raises(ValueError, match="there is no provider MXNet"):
        provider_of({**words, "provider": "MXNet"})
    assert set(MODELS) >= {"RowRNN", "CharRNN", "Seq2Seq", "BiLSTM tagger", "AlexNet", "GoogLeNet"}


def test_peak_memory(tmp_path: Path) -> None:
    chosen = ("--shape", "100,16,64,64", "--cell", "gru", "--mode", "train", "--memory")
    found = bench("rnn", tmp_path / "rows.csv", *chosen, "--no-picture")
    least = 2 * 100 * 16 * 64 * 4e-6  # y and the gradient of x
    assert all(least < float(row["peak_mb"]) < 60 * least for row in found)


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    random.seed(0)
    for count in (6, 11, 40):
        hits = 0
        for _ in range(2000):
            drawn = [random.lognormvariate(0, 1) for _ in range(count)]
            middle, low, high = interval.median_interval(drawn)
            assert low <= middle <= high
            hits += low <= 1 <= high  # the median of a log-normal
        assert 0.94 < hits / 2000 < 0.995
    assert interval.median_interval([3.0]) == (3.0, 3.0, 3.0)
    assert interval.ratio_interval([2, 4, 6], [1, 2, 3]) == (2, 2, 2)
    with pytest.raises(ValueError, match="no rounds were measured"):
        interval.median_interval([])


def scaled(source: Path, target: Path, factor: float, provider: str, spread: float = 1.01) -> None:
    """The rows of a file with the times of a provider changed, and intervals as wide as said."""
    with source.open(newline="") as file:
        found = list(csv.DictReader(file))
    for row in found:
        by = factor if row["provider"] == provider else 1.0
        median = by * float(row["median_ms"])
        row |= {"median_ms": str(median)}
        row |= {"low_ms": str(median / spread), "high_ms": str(median * spread)}
    rows.append(target, found)


def test_compare_tells_changes_beyond_the_noise(
    recurrent: tuple[Path, list[rows.Row]], tmp_path: Path
) -> None:
    source, before = recurrent[0], tmp_path / "before.csv"
    scaled(source, before, 1.0, "fastseq")
    for factor, spread, verdict in (
        (0.8, 1.01, "faster"),
        (1.25, 1.01, "slower"),
        (1.25, 1.3, "no change"),  # the intervals meet
        (1.015, 1.001, "no change"),
    ):
        after = tmp_path / f"{factor}_{spread}.csv"
        scaled(source, after, factor, "fastseq", spread)
        verdicts = {change.provider: change.verdict for change in changes(before, after)}
        expected = "no change" if spread == 1.3 else verdict
        assert verdicts == {
            "torch.nn": "no change",
            "ONNX Runtime": "no change",
            "fastseq.freeze": "no change",
            "fastseq": expected,
        }
        result = invoke(["bench", "compare", str(before), str(after), "--check"])
        assert result.exit_code == (verdict == "slower"), result.output
        assert re.search(rf"\d+ {expected}", result.stdout.splitlines()[-1])
    assert (
        "+25.0 %"
        in invoke(["bench", "compare", str(before), str(tmp_path / "1.25_1.01.csv")]).stdout
    )


def test_what_cannot_be_done_is_said(
    recurrent: tuple[Path, list[rows.Row]], tmp_path: Path
) -> None:
    def said(*arguments: str) -> str:
        result = invoke(["bench", *arguments])
        assert result.exit_code != 0
        assert result.exception is None
        return result.stderr

    assert "--shape is '1,2,3', expected T,B,I,H: 4 numbers above 0" in said(
        "rnn", "--shape", "1,2,3"
    )
    assert "--shape is '0,1,1', expected B,I,H" in said("cells", "--shape", "0,1,1")
    assert "--threads is 0, expected at least 1" in said("lrn", "--threads", "0")
    assert "--batch is -1" in said("models", "--batch", "-1")
    assert "torch sees no GPU" in said("rnn", "--device", "cuda") or torch.cuda.is_available()
    assert "int8" in said("rnn", "--dtype", "int8")
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    assert "has no rows that `fastseq bench` wrote" in said(
        "compare", str(other), str(recurrent[0])
    )
    assert "other columns" in said(
        "cells", "--out", str(other), "--shape", "1,2,3", "--seconds", "0"
    )
    assert "nowhere.csv" in said("compare", str(tmp_path / "nowhere.csv"), str(other))


def test_without_the_extra_the_command_says_so() -> None:
    result = without(["onnxruntime"], "bench", "rnn", "--shape", "1,1,1,1")
    assert result.returncode == 1
    assert "fastseq bench needs onnxruntime: pip install 'fastseq[bench]'" in result.stderr


CPUINFO = """processor : 0
vendor_id : {vendor}
cpu family : {family}
model : {model}
model name : A processor
stepping : {stepping}

processor : 1
model : 999
"""


@pytest.mark.parametrize(
    ("vendor", "family", "model", "stepping", "generation"),
    [
        ("AuthenticAMD", 25, 1, 1, "Zen 3"),
        ("AuthenticAMD", 25, 17, 1, "Zen 4"),
        ("AuthenticAMD", 25, 97, 2, "Zen 4"),
        ("AuthenticAMD", 23, 49, 0, "Zen 2"),
        ("AuthenticAMD", 26, 2, 1, "Zen 5"),
        ("GenuineIntel", 6, 85, 4, "Skylake-SP"),
        ("GenuineIntel", 6, 85, 7, "Cascade Lake"),
        ("GenuineIntel", 6, 85, 11, "Cooper Lake"),
        ("GenuineIntel", 6, 143, 8, "Sapphire Rapids"),
        ("GenuineIntel", 6, 250, 0, "family 6, model 250"),
        ("Another", 1, 2, 3, "family 1, model 2"),
    ],
)
def test_the_generation_of_a_processor_is_told(
    vendor: str, family: int, model: int, stepping: int, generation: str
) -> None:
    text = CPUINFO.format(vendor=vendor, family=family, model=model, stepping=stepping)
    assert cpu_model(text) == f"A processor ({generation})"


def test_a_processor_without_numbers() -> None:
    assert cpu_model("model name : An ARM\n") == "An ARM"
    assert cpu_model("Hardware : a board\n")


KEEPING = """
import ctypes, resource, sys
from fastseq.bench.heap import keep_freed_memory
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(3 << 24)
    ctypes.memset(block, 1, 3 << 24)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
given_back = [faults() for _ in range(3)][-1]
keep_freed_memory()
print(given_back, [faults() for _ in range(3)][-1])
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="no glibc")
def test_freed_memory_is_kept_when_asked() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", KEEPING],
        cwd=Path(__file__).parent,  # not the root: its fastseq/ would hide an installed one
        capture_output=True,
        text=True,
        check=True,
    )
    given_back, kept = map(int, ran.stdout.split())
    assert kept < 8 < given_back  # 24 pages if they are huge, 12,288 if not


def test_kept_memory_is_another_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "keep_freed_memory", lambda: None)  # this process goes on
    out, shape = tmp_path / "rows.csv", ("--shape", "4,2,3,4", "--cell", "rnn", "--mode", "train")
    given_back = bench("rnn", out, *shape)
    both = bench("rnn", out, *shape, "--keep-memory")
    assert [row["heap"] for row in given_back] == ["", ""]
    assert [row["heap"] for row in both] == ["", "", "kept", "kept"]
    assert [item.label for item in rows.read(out)] == ["4, 2, 3, 4", "4, 2, 3, 4 memory kept"]
    assert len(changes(out, out)) == 4
