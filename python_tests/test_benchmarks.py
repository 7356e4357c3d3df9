import csv
import runpy
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import torch

pytest.importorskip("typer", reason="the bench extra is not installed")

from benchmark_scripts import BENCHMARKS, run

pytestmark = pytest.mark.usefixtures("scripts")
SHAPE = "6,3,5,7"
RUN = ["run", "commit", "torch", "device", "cpu", "gpu", "threads"]
CASE = ["op", "dtype", "mode", "layout", "T", "B", "I", "H"]
ROOFLINE = ["gemm_gflop", "gemm_gflops", "floor_ms", "mbytes"]
MEASURED = ["provider", "capability", "rounds", "calls", "contention"]
MEASURED += ["median_ms", "p20_ms", "p80_ms"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("results") / "tiny.csv"
    chosen = ["--quick", "--shape", SHAPE, "--seconds", 0, "--threads", 1, "--out", out]
    result = run("rnn.py", *chosen)
    assert result.returncode == 0, result.stderr
    return out, result.stdout


def test_rows_of_a_quick_run(measured: tuple[Path, str]) -> None:
    out, _ = measured
    with out.open(newline="") as file:
        reader = csv.DictReader(file)
        found = list(reader)
    assert reader.fieldnames == RUN + CASE + ROOFLINE + MEASURED
    cases = {tuple(row[n] for n in ("op", "dtype", "mode", "layout", "provider")) for row in found}
    assert len(cases) == len(found)
    peers = {"torch.nn", "fastseq"}
    onnx = all(find_spec(name) for name in ("onnx", "onnxruntime"))
    for op in ("LSTM", "GRU", "RNN"):
        for dtype in ("float32", "bfloat16"):
            for mode in ("infer", "forward", "train"):
                for layout in ("dense", "packed"):
                    providers = {case[4] for case in cases if case[:4] == (op, dtype, mode, layout)}
                    timed = onnx and dtype == "float32" and mode == "infer"
                    assert providers == (peers | {"ONNX Runtime"} if timed else peers)
    for row in found:
        assert [row[name] for name in "TBIH"] == SHAPE.split(",")
        assert (row["device"], row["gpu"], row["threads"]) == ("cpu", "", "1")
        assert row["torch"] == torch.__version__
        assert row["cpu"]
        assert row["commit"]
        assert int(row["rounds"]) >= 5
        assert int(row["calls"]) >= int(row["rounds"])
        assert float(row["contention"]) >= 0
        low, middle, high = (float(row[name]) for name in ("p20_ms", "median_ms", "p80_ms"))
        assert 0 < low <= middle <= high < 10_000


def test_table_of_a_quick_run(measured: tuple[Path, str], rows: ModuleType) -> None:
    out, printed = measured
    cases = rows.read(out)
    assert len(cases) == 36
    for item in cases:
        label = "6, 3, 5, 7" if item.columns["layout"] == "dense" else "6, 3, 5, 7 packed"
        assert item.label == label
        assert item.ratio == item.times["torch.nn"] / item.times["fastseq"]
        assert any(
            line.startswith(item.columns["op"]) and label in line and f"{item.ratio:.2f}x" in line
            for line in printed.splitlines()
        )
    assert printed.count("SLOWER than") == sum(item.loses for item in cases)


def test_plot_is_drawn(measured: tuple[Path, str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the bench extra is not installed")
    result = run("plot.py", measured[0], "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    names = ["tiny_cpu_bfloat16_1threads.png", "tiny_cpu_float32_1threads.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    for path in tmp_path.iterdir():
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_readme_table(measured: tuple[Path, str]) -> None:
    result = run("readme_table.py", measured[0], "--mode", "train", "--dtype", "float32")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert "| cell | T, B, I, H | torch.nn ms | fastseq ms | torch.nn / fastseq |" in lines
    for op in ("LSTM", "GRU", "RNN"):
        for label in ("6, 3, 5, 7", "6, 3, 5, 7 packed"):
            assert sum(line.startswith(f"| {op} | {label} |") for line in lines) == 1
    assert "Inference" not in result.stdout


def row(rows: ModuleType, run: str, shape: int, provider: str, ms: float) -> dict[str, str]:
    values = dict.fromkeys((*rows.RUN, *rows.CASE, "T", *rows.MEASURED), "")
    values |= {"run": run, "op": "GRU", "layout": "dense", "T": str(shape), "provider": provider}
    values["contention"] = "0"
    return values | dict.fromkeys(("median_ms", "p20_ms", "p80_ms"), str(ms))


def test_a_loss_is_said_plainly(rows: ModuleType, tmp_path: Path) -> None:
    table = [
        row(rows, "1", 8, "torch.nn", 4.0),
        row(rows, "1", 8, "fastseq", 1.0),
        row(rows, "1", 8, "ONNX Runtime", 0.5),
        row(rows, "1", 9, "torch.nn", 1.0),
        row(rows, "1", 9, "fastseq", 1.0),
    ]
    rows.append(tmp_path / "made.csv", table)
    losing, even = rows.read(tmp_path / "made.csv")
    assert (losing.ratio, losing.best_ratio, losing.loses) == (4.0, 0.5, True)
    assert (even.best_ratio, even.loses) == (1.0, False)
    assert rows.line(losing, ["torch.nn"]).endswith("SLOWER than ONNX Runtime (0.50x)")
    assert rows.line(even, ["torch.nn"]).endswith("1.00x")
    (summary,) = rows.summarise([losing, even])
    assert summary.ratio == pytest.approx(2.0)
    assert summary.best_ratio == pytest.approx(0.5**0.5)
    assert summary.losing == ("8",)
    printed = run("readme_table.py", tmp_path / "made.csv").stdout
    assert "measure again" not in printed
    assert "| GRU | 8 | 4 | 0.5 | 1 | 4.00× | **0.50× (slower)** |" in printed


def test_cores_that_others_held_are_told(rows: ModuleType, tmp_path: Path) -> None:
    table = [
        row(rows, "1", 8, name, 1.0) | {"contention": "0.7"} for name in (rows.NATIVE, rows.OURS)
    ]
    rows.append(tmp_path / "made.csv", table)
    (item,) = rows.read(tmp_path / "made.csv")
    assert rows.line(item, []).endswith("contended (0.7 cores)")
    sentence = "1 of 1 cases ran while other processes held cores"
    assert rows.summary_lines([item])[-1].startswith(sentence)
    assert sentence in run("readme_table.py", tmp_path / "made.csv").stdout


def test_the_newest_run_counts_whole(rows: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "made.csv"
    rows.append(path, [row(rows, "1", 8, name, 9.0) for name in ("torch.nn", "fastseq", "other")])
    rows.append(path, [row(rows, "2", 8, name, 3.0) for name in ("torch.nn", "fastseq")])
    (item,) = rows.read(path)
    assert item.times == {"torch.nn": 3.0, "fastseq": 3.0}
    with pytest.raises(ValueError, match="other columns"):
        rows.append(path, [{"run": "3"}])


def test_providers_must_agree() -> None:
    from fastseq.bench import harness

    right = harness.Provider("right", lambda: (torch.ones(3),))
    wrong = harness.Provider("wrong", lambda: (torch.full((3,), 1.01),))
    cpu = torch.device("cpu")
    with pytest.raises(RuntimeError, match="wrong: result 0 is off by"):
        harness.measure([right, wrong], cpu, torch.float32, 0.0)
    timings = harness.measure([right, right], cpu, torch.float32, 0.0)
    assert [timing.rounds for timing in timings] == [5, 5]


def test_a_wrong_shape_is_refused() -> None:
    import rnn
    import typer

    assert rnn.parse_shape("28, 1, 28, 128") == (28, 1, 28, 128)
    for text in ("1,2,3", "a,b,c,d", "1,0,2,3"):
        with pytest.raises(typer.BadParameter, match=text):
            rnn.parse_shape(text)


def test_what_the_roofline_counts() -> None:
    from fastseq.bench import roofline
    from fastseq.bench.rnn_cases import Case, Cell, DType, Layout, Mode

    shape = (5, 3, 4, 7)
    found = {
        (cell, mode): Case(cell, DType.bfloat16, mode, Layout.dense, shape)
        for cell in Cell
        for mode in Mode
    }
    for cell, gates, saved, states in (("lstm", 4, 5, 2), ("gru", 3, 4, 1), ("rnn", 1, 0, 1)):
        infer, forward, train = (found[Cell(cell), mode] for mode in Mode)
        work = 5 * 3 * 2 * gates * 7 * (4 + 7) * 1e-9
        assert roofline.gemm_gflop(infer) == pytest.approx(work)
        assert roofline.gemm_gflop(forward) == pytest.approx(work)
        assert roofline.gemm_gflop(train) == pytest.approx(3 * work)
        moved = 15 * (4 + 7) + gates * 7 * (4 + 7 + 2)
        ends = states * 3 * 7
        assert roofline.mbytes(infer) == pytest.approx(2e-6 * (moved + ends))
        assert roofline.mbytes(forward) == pytest.approx(2e-6 * (moved + ends + saved * 15 * 7))
        assert roofline.mbytes(train) == pytest.approx(2e-6 * (2 * moved + ends + saved * 15 * 7))
    ragged = Case(Cell.gru, DType.float32, Mode.infer, Layout.packed, shape)
    count = int(ragged.lengths().sum())
    assert 3 <= count < 15
    dense = roofline.gemm_gflop(found[Cell.gru, Mode.infer])
    assert roofline.gemm_gflop(ragged) == pytest.approx(dense * count / 15)


def test_floors_of_measured_rows(measured: tuple[Path, str], rows: ModuleType) -> None:
    with measured[0].open(newline="") as file:
        for row in csv.DictReader(file):
            assert float(row["gemm_gflops"]) > 0.1
            floor = 1e3 * float(row["gemm_gflop"]) / float(row["gemm_gflops"])
            assert float(row["floor_ms"]) == pytest.approx(floor, rel=1e-3)
            assert float(row["mbytes"]) > 0
    for item in rows.read(measured[0]):
        assert item.floor > 0
        assert item.floor_ratio is None  # too small a shape
    assert "/ floor" in measured[1]


def sized(
    rows: ModuleType, threads: int, provider: str, ms: float, batch: int = 32, hidden: int = 256
) -> dict[str, str]:
    made = row(rows, "1", 8, provider, ms)
    sizes = {"T": "8", "B": str(batch), "I": "9", "H": str(hidden)}
    limits = dict.fromkeys(rows.ROOFLINE, "") | {"floor_ms": "2"}
    return made | {"threads": str(threads), "mode": "train", "dtype": "float32"} | sizes | limits


def test_floor_and_scaling_are_told(rows: ModuleType, tmp_path: Path) -> None:
    table = [
        *(sized(rows, 1, name, ms) for name, ms in (("torch.nn", 6.0), ("fastseq", 5.0))),
        *(sized(rows, 2, name, ms) for name, ms in (("torch.nn", 4.0), ("fastseq", 2.5))),
        # Not judged: too few rows, too few units, one number of threads alone.
        *(sized(rows, n, name, 9.0, batch=31) for n in (1, 2) for name in ("torch.nn", "fastseq")),
        *(sized(rows, 2, name, 9.0, hidden=255) for name in ("torch.nn", "fastseq")),
    ]
    rows.append(tmp_path / "made.csv", table)
    found = rows.read(tmp_path / "made.csv")
    assert [item.floor_ratio for item in found] == [2.5, 1.25, None, None, None]
    assert "1.60x    1.25x" in rows.line(found[1], [])
    (gain,) = rows.scaling(found)
    assert gain.count == 1
    assert gain.speedups == pytest.approx({"torch.nn": 1.5, "fastseq": 2.0})
    assert list(gain.speedups) == ["torch.nn", "fastseq"]
    lines = [" ".join(text.split()) for text in rows.summary_lines(found)]
    assert any(text.endswith("1 shape 1.25x, at most 1.25x") for text in lines)
    assert any(text.endswith("1 shape torch.nn 1.50x, fastseq 2.00x") for text in lines)
    printed = run("readme_table.py", tmp_path / "made.csv").stdout
    assert "| GRU | 8, 32, 9, 256 | 4 | 2.5 | 1.60× | 1.25 |" in printed
    assert "| GRU | 8, 31, 9, 256 | 9 | 9 | 1.00× | – |" in printed
    assert "| GRU | float32 | train | 1 dense | 1.50× | 2.00× |" in printed
    assert rows.scaling(found[1:]) == []


@pytest.mark.parametrize("grid", ["heat", "steps"])
def test_grids_and_their_figures(grid: str, rows: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / f"rnn_{grid}.csv"
    chosen = ["--quick", "--dtype", "float32", "--threads", 1, "--seconds", 0, "--out", out]
    result = run("rnn.py", "--grid", grid, *chosen, "--cell", "gru")
    assert result.returncode == 0, result.stderr
    found = rows.read(out)
    shapes = {tuple(item.size(name) for name in "TBIH") for item in found}
    if grid == "heat":
        assert shapes == {(32, b, h, h) for b in (1, 4) for h in (32, 64)}
        assert {item.columns["mode"] for item in found} == {"train"}
    else:
        assert shapes == {(t, 8, 128, 128) for t in (1, 4, 16)}
        assert {item.columns["mode"] for item in found} == {"infer", "train"}
    pytest.importorskip("matplotlib", reason="the bench extra is not installed")
    import plot

    from fastseq.bench import plot_grids

    drawn = run("plot.py", out)
    assert drawn.returncode == 0, drawn.stderr
    assert drawn.stdout.strip() == str(tmp_path / f"rnn_{grid}_cpu_float32_1threads.png")
    assert plot.kind_of(Path("rnn.csv")) is plot.kind_of(Path("heat_rnn.csv")) is plot.Kind.bars
    if grid == "heat":
        written = [text.get_text() for text in plot_grids.heat_figure(found[:-1]).axes[0].texts]
        assert written == [*(plot_grids.times(item.ratio) for item in found[:-1]), "–"]
    else:
        lines = plot_grids.steps_figure(found).axes[0].get_lines()
        ours = [item.times["fastseq"] for item in found[:3]]
        assert any(list(line.get_ydata()) == ours for line in lines)


def test_overhead(rows: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "overhead.csv"
    result = run("overhead.py", "--seconds", 0, "--threads", 1, "--out", out)
    assert result.returncode == 0, result.stderr
    found = rows.read(out)
    modules = ["LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"]
    assert [item.columns["op"] for item in found] == 2 * modules
    assert {item.label for item in found} == {"1, 1, 32, 32"}
    assert all(0 < item.times["fastseq"] < 100 for item in found)
    empty = [item.times["empty Function"] for item in found[len(modules) :]]
    assert all(0 < time < 100 for time in empty)
    assert run("readme_table.py", out, "--op", "grucell").stdout.count("| GRUCell | 1, 1,") == 2


def test_memory(rows: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "memory.csv"
    shape = ("--shape", "200,16,64,64", "--threads", 1)
    result = run("memory.py", "--quick", *shape, "--cell", "gru", "--layout", "dense", "--out", out)
    assert result.returncode == 0, result.stderr
    (item,) = rows.read(out)
    assert item.unit == "MB"
    # y and the gradient of x at least; what is saved is several times that.
    least = 2 * 200 * 16 * 64 * 4e-6
    assert all(least < size < 40 * least for size in item.times.values())
    assert f"{item.ratio:.2f}x" in result.stdout
    table = run("readme_table.py", out).stdout
    assert "torch.nn MB" in table
    assert "larger on" in table


@pytest.mark.parametrize("op", ["lrn", "pool", "trio"])
def test_images(op: str, rows: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / f"{op}.csv"
    # On the CPU torch.nn has no LRN in the 16-bit types.
    dtypes = ("float32", "bfloat16") if op == "pool" else ("float32",)
    for dtype in dtypes:
        result = run(
            f"{op}.py", "--quick", "--no-compiled", "--shape", "2,9,11,13", "--seconds", 0,
            "--threads", 1, "--dtype", dtype, "--out", out,
        )  # fmt: skip
        assert result.returncode == 0, result.stdout + result.stderr
    found = rows.read(out)
    assert len(found) == 4 * len(dtypes)
    for item in found:
        infer = item.columns["mode"] == "infer"
        assert set(item.times) == {"torch.nn", "fastseq", *(["copy"] if infer else [])}
        assert item.best_ratio == item.ratio  # a copy is no rival
        assert item.label.endswith(item.columns["layout"])
    table = run("readme_table.py", out, "--summary")
    assert table.returncode == 0, table.stderr
    assert "1 NCHW" in table.stdout
    if find_spec("matplotlib"):
        drawn = run("plot.py", out)
        assert drawn.returncode == 0, drawn.stderr


def test_images_with_torch_compile(rows: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "pool.csv"
    shape = ("--shape", "1,2,7,8", "--layout", "NHWC", "--mode", "infer", "--seconds", 0)
    result = run("pool.py", *shape, "--out", out)
    assert result.returncode == 0, result.stdout + result.stderr
    (item,) = rows.read(out)
    assert set(item.times) == {"torch.nn", "fastseq", "torch.compile", "copy"}


def test_the_planners_regret(tmp_path: Path) -> None:
    out = tmp_path / "plans.csv"
    ran = run("plans.py", "--shapes", 2, "--seconds", 0, "--threads", 2, "--out", out)
    assert ran.returncode == 0, ran.stderr
    with out.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert len(found) == 2
    for row in found:
        planner, best = float(row["planner_ms"]), float(row["best_ms"])
        assert 0 < best <= planner
        assert float(row["regret"]) > -1
        assert float(row["again"]) > -1
    assert "of 2 shapes, of itself on" in ran.stdout


def test_a_plan_is_chosen_by_one_half_of_the_rounds_and_judged_by_the_other() -> None:
    """One that looks good in odd rounds alone is no better; a drift of all does not count."""
    regret = runpy.run_path(str(BENCHMARKS / "plans.py"))["Regret"]
    own = [1.0, 2.0, 4.0, 8.0]
    lucky = [0.5 * t if i % 2 else 2 * t for i, t in enumerate(own)]
    times = {"planner": own, "planner, again": own, "lucky": lucky}
    assert regret.of(times) == (pytest.approx(-0.25), 0)  # 0 by the planner's own, 0.5 by the other
    better = [0.8 * t for t in own]
    late = [1.25 * t for t in own]
    times = {"planner": own, "planner, again": late, "lucky": lucky, "better": better}
    assert regret.of(times) == (pytest.approx((0.25 - 0.5) / 2), pytest.approx(-0.2))


def test_a_frozen_layer_is_no_rival(rows: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    times = {"torch.nn": 2.0, "fastseq": 1.0, "fastseq.freeze": 0.5, "ONNX Runtime": 0.9}
    rows.append(out, [row(rows, "2026-01-01", 5, name, ms) for name, ms in times.items()])
    (item,) = rows.read(out)
    assert rows.mark(item) == "SLOWER than ONNX Runtime (0.90x)"
