"""benchmarks/gpu.py: its rehearsal on the CPU, what it does with failures, and its cases."""

import csv
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import torch

pytest.importorskip("typer", reason="the bench extra is not installed")

from benchmark_scripts import run

pytestmark = pytest.mark.usefixtures("scripts")


def test_gpu_rehearsal(rows: ModuleType, tmp_path: Path) -> None:
    """All sections of gpu.py but build and tests, on the CPU, where each route is our CPU layer."""
    result = run("gpu.py", "--device", "cpu", "--out", tmp_path, "--commit", "c0ffee")
    assert result.returncode == 0, result.stderr
    with (tmp_path / "gpu_rnn.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    routes = ["torch.nn", "fastseq", *(f"fastseq {r}" for r in ("persistent", "cudnn", "step"))]
    ops = ["LSTM", "LSTM", "LSTMx2", "biLSTM", "GRU", "GRU", "GRUx2", "biGRU"]
    assert [row["provider"] for row in found] == 16 * routes
    assert [row["op"] for row in found[::5]] == 2 * ops
    for row in found:
        assert [row[name] for name in rows.SOFTWARE] == ["", "", ""]  # there is no GPU
        assert row["commit"] == "c0ffee"
        order = [float(row[name]) for name in ("p10_ms", "p20_ms", "median_ms", "p80_ms", "p90_ms")]
        assert order[0] > 0
        assert order == sorted(order)
        assert int(row["calls"]) >= 5
        assert float(row["host_us"]) > 0
        assert float(row["error"]) <= 5e-2
        assert bool(row["step_us"]) == bool(row["fixed_us"]) == (row["layout"] == "dense")
        assert bool(row["kernels"]) == (row["provider"] == "torch.nn")
    with (tmp_path / "gpu_images.csv").open(newline="") as file:
        assert "aten::" in next(csv.DictReader(file))["kernels"]
    pictured = rows.read(tmp_path / "gpu_images.csv")
    assert {item.columns["op"] for item in pictured} == {"LRN", "pool", "trio"}
    assert any("torch.compile" in item.times for item in pictured)
    said = (tmp_path / "gpu.txt").read_text()
    assert said in result.stdout  # and some lines of the profiler's
    assert "WRONG" not in said
    for head in ("== the same work against itself", "== recurrences", "us/step", "Geometric mean"):
        assert head in said
    assert said.rindex("us/step") < said.rindex("Geometric mean of torch.nn / fastseq, and")
    if find_spec("matplotlib"):
        assert (tmp_path / "gpu_rnn_cpu_float32_1threads.png").exists()


def test_gpu_lists_what_did_not_fit(tmp_path: Path) -> None:
    result = run("gpu.py", "--device", "cpu", "--minutes", 0, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Did not fit in the time (35):" in result.stdout
    assert "\nGRUx2 float32 train dense 6, 3, 4, 5\n" in result.stdout
    assert not (tmp_path / "gpu_rnn.csv").exists()


def test_gpu_goes_on_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu_cases
    import gpu_measure
    from gpu_timing import Deadline

    lines: list[str] = []
    log = type("Log", (), {"say": lambda self, text: lines.append(text)})()
    bench = gpu_measure.Bench(torch.device("cpu"), dict.fromkeys(("gpu", "cpu"), ""), tmp_path, log)
    calls = {"torch.nn": [lambda: (torch.ones(3),)], "fastseq": [lambda: (torch.full((3,), 2.0),)]}
    assert bench._errors(calls, "case", 1e-2) == {"torch.nn": 0.0, "fastseq": 1.0}
    assert bench.wrong == ["case: fastseq is off by 1.0e+00"]

    def broken(*args: object) -> None:
        raise RuntimeError("no such kernel\nsecond line")

    monkeypatch.setattr(gpu_cases, "recurrent_calls", broken)
    bench.recurrences(Deadline(60))
    assert len(bench.wrong) == 17
    assert bench.wrong[-1] == "biGRU float32 infer dense 6, 3, 4, 5: no such kernel"


def test_gpu_build_and_tests(tmp_path: Path) -> None:
    import gpu

    command, environment = gpu.build_command((9, 0))
    assert command[1:] == ["-m", "pip", "install", "--no-build-isolation", "--no-deps", "."]
    assert environment["FASTSEQ_CUDA_ARCHITECTURES"] == "90-real"
    names = {Path(word).name for word in gpu.test_command()}
    assert names >= {"pytest", "test_cuda.py", "test_cuda_images.py", "test_cuda_persistent.py"}
    log = gpu.Log(tmp_path / "gpu.txt")
    assert gpu.run([sys.executable, "-c", "print(1); print(2); print(3)"], 60, log, 2)
    assert not gpu.run([sys.executable, "-c", "raise SystemExit(3)"], 60, log, 2)
    slow = "print('begun', flush=True); import time; time.sleep(60)"
    assert not gpu.run([sys.executable, "-c", slow], 2, log, 2)
    assert not gpu.run(["no-such-command"], 2, log, 2)
    said = (tmp_path / "gpu.txt").read_text()
    assert said.startswith("2\n3\n")
    assert "stopped after 2 s\nbegun\n" in said


def test_names_of_kernels() -> None:
    import gpu_timing

    long = "void cudnn::rnn::LSTM_elementWise_fp<float, 4, (int)2>(int, float*)"
    assert gpu_timing.short(long) == "cudnn::rnn::LSTM_elementWise_fp"
    assert gpu_timing.short("sm90_xmma_gemm_bf16") == "sm90_xmma_gemm_bf16"
    assert gpu_timing.copies(1, torch.device("cpu")) == 2


def test_float32_on_a_gpu_may_be_tf32() -> None:
    from fastseq.bench import rnn_cases
    from fastseq.bench.rnn_cases import Case, Cell, DType, Layout, Mode

    def allowed(dtype: DType, device: str) -> float:
        case = Case(Cell.lstm, dtype, Mode.train, Layout.dense, (5, 3, 4, 7))
        return rnn_cases.tolerance(case, torch.device(device))

    assert allowed(DType.float32, "cpu") == 1e-4
    assert allowed(DType.float32, "cuda") == 5e-3
    assert allowed(DType.float16, "cuda") == allowed(DType.float16, "cpu") == 1e-2
    assert DType.float16 in rnn_cases.DTYPES["cuda"]
    assert DType.float16 not in rnn_cases.DTYPES["cpu"]


def test_cases_of_stacks_and_both_directions() -> None:
    import gpu_cases

    from fastseq.bench import rnn_cases

    cases = list(gpu_cases.recurrent(tiny=False))
    assert len(cases) == len(set(cases)) == 9 * 3 * 15
    assert {case.shape for case in cases} >= {(512, 44, 160, 160), (1024, 16, 768, 768)}
    tiny = list(gpu_cases.recurrent(tiny=True))
    (deep,) = [case for case in tiny[:4] if case.layers == 2]
    assert [m.num_layers for m in rnn_cases.layers(deep, torch.device("cpu"))] == [2, 2]
    (both,) = [case for case in tiny[:4] if case.directions == 2]
    x, grad = rnn_cases.tensors(both, torch.device("cpu"))
    assert grad.shape == (6, 3, 10)
    assert x.shape == (6, 3, 4)
