"""info(), explain(), and what a broken installation says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import fastseq
from fastseq import _library, _native
from fastseq._build import CPU_LIBRARY, CUDA_LIBRARY, LIBRARIES, build_info


@pytest.fixture
def two_threads() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_info() -> None:
    info = fastseq.info()
    assert list(info) == [
        "fastseq",
        "python",
        "platform",
        "torch",
        "torch CUDA",
        "built against torch",
        "built with",
        "CPU library",
        "CPU capability",
        "CPU caches",
        "threads",
        "CUDA kernels",
        "CUDA architectures",
        "GPUs",
    ]
    assert all(isinstance(value, str) and value for value in info.values())
    assert info["fastseq"] == fastseq.__version__ == build_info()["version"]
    assert info["torch"] == torch.__version__
    assert info["CPU capability"].startswith(_native.cpu_capability())
    assert Path(info["CPU library"]).is_file()
    assert info["threads"] == str(torch.get_num_threads())
    assert (info["GPUs"] == "none") == (torch.cuda.device_count() == 0)


def test_public_names() -> None:
    assert all(hasattr(fastseq, name) for name in fastseq.__all__)
    for name in ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"):
        assert name in fastseq.__all__


@pytest.mark.usefixtures("two_threads")
def test_explain_many_rows() -> None:
    said = fastseq.explain(fastseq.LSTM(8, 128), torch.zeros(30, 64, 8))
    assert said.startswith("LSTM T=30, B=64, H=128: CPU kernels")
    assert f"({_native.cpu_capability()})" in said
    plan = _native.plan_recurrence(0, 30, 64, 8, 128, 128, 2)
    assert plan == (2, 2, 1)
    assert "2 slices of the batch, each with its own time loop" in said


@pytest.mark.usefixtures("two_threads")
def test_explain_one_row_and_little_work() -> None:
    one = fastseq.explain(fastseq.GRU(8, 128), torch.zeros(30, 1, 8))
    assert one.endswith(
        "one time loop, in which 2 threads share the hidden units and meet after every step."
    )
    little = fastseq.explain(fastseq.RNN(2, 2), torch.zeros(2, 2, 2))
    assert little.startswith("RNN_TANH T=2, B=2, H=2")
    assert little.endswith("too little work to wake a second thread.")
    unbatched = fastseq.explain(fastseq.GRU(8, 128), torch.zeros(30, 8))
    assert "T=30, B=1" in unbatched


@pytest.mark.usefixtures("one_thread")
def test_explain_one_thread() -> None:
    said = fastseq.explain(fastseq.LSTM(8, 128), torch.zeros(30, 64, 8))
    assert said.endswith("one time loop: a single thread is allowed.")


@pytest.mark.usefixtures("two_threads")
def test_explain_batch_first_and_projection() -> None:
    module = fastseq.LSTM(8, 128, batch_first=True, proj_size=16)
    assert "T=30, B=64, H=128, R=16" in fastseq.explain(module, torch.zeros(64, 30, 8))


@pytest.mark.parametrize("module", [nn.LSTM(3, 4), nn.GRU(3, 4), nn.Linear(3, 4)])
def test_explain_knows_only_its_own(module: nn.Module) -> None:
    name = type(module).__name__
    with pytest.raises(TypeError, match=f"was given a {name}; it knows fastseq.LSTM"):
        fastseq.explain(module, torch.zeros(5, 2, 3))


def test_planner() -> None:
    one = (1, 1, 1)
    assert _native.plan_recurrence(0, 30, 64, 8, 128, 128, 1) == one
    assert _native.plan_recurrence(0, 1, 1, 128, 32, 32, 8) == one  # too little work
    for threads in (2, 4, 16):
        many = _native.plan_recurrence(0, 30, 64, 8, 128, 128, threads)
        assert many == (threads, threads, 1)
        single = _native.plan_recurrence(0, 128, 1, 256, 1024, 1024, threads)
        assert single == (threads, 1, threads)
    # Weights beyond every L2 cache: a slice of the units reads its part alone.
    assert _native.plan_recurrence(0, 128, 16, 512, 1024, 1024, 16) == (16, 1, 16)
    assert _native.plan_recurrence(0, 128, 64, 512, 1024, 1024, 16) == (16, 2, 8)
    assert _native.plan_recurrence(0, 128, 64, 512, 1024, 1024, 2) == (2, 2, 1)
    # In few steps, half of the weights lie where another core has packed them.
    assert _native.plan_recurrence(1, 5, 16, 100, 128, 128, 2) == (2, 1, 2)
    assert _native.plan_recurrence(1, 50, 16, 100, 128, 128, 2) == (2, 2, 1)
    # Steps of little work: rows are cut, and nobody meets; a single row has no such choice.
    assert _native.plan_recurrence(1, 90, 3, 20, 34, 34, 2) == (2, 2, 1)
    assert _native.plan_recurrence(1, 900, 1, 20, 64, 64, 2) == (2, 1, 2)
    with pytest.raises(ValueError, match="cell should be 0, 1, 2 or 3"):
        _native.plan_recurrence(4, 30, 64, 8, 128, 128, 1)


def said_at_import(preparation: str) -> str:
    """The last line of ``import fastseq`` in a fresh process, after some preparation."""
    ran = subprocess.run(
        [sys.executable, "-c", f"{preparation}\nimport fastseq"],
        cwd=Path(__file__).parent,  # not the root: its fastseq/ would hide an installed one
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    return ran.stderr.strip().splitlines()[-1]


def test_old_torch() -> None:
    said = said_at_import("import torch; torch.__version__ = '2.4.1+cpu'")
    assert said == (
        "ImportError: fastseq needs torch 2.11 or newer, and this is torch 2.4.1+cpu. Run 'pip "
        "install --upgrade torch'; fastseq need not be rebuilt."
    )


NOT_BUILT = """
import pathlib
read = pathlib.Path.read_text
def not_there(self, *rest, **more):
    if self.name == 'build.json':
        raise FileNotFoundError(self)
    return read(self, *rest, **more)
pathlib.Path.read_text = not_there
"""


def test_a_checkout_in_which_nothing_was_built() -> None:
    said = said_at_import(NOT_BUILT)
    assert said.startswith(f"ImportError: fastseq's compiled libraries are not in {LIBRARIES}. If")
    assert "pip install -e ." in said


REFUSE = """
import torch
load = torch.ops.load_library
def refuse(path):
    if 'fastseq_cpu' in path:
        raise OSError('undefined symbol: torch_made_up')
    load(path)
torch.ops.load_library = refuse
"""


def test_library_that_does_not_load() -> None:
    said = said_at_import(REFUSE)
    assert said.startswith(f"ImportError: fastseq could not load {CPU_LIBRARY}")
    assert "undefined symbol: torch_made_up" in said
    assert f"It was built for torch {build_info()['torch']}" in said
    assert f"and found torch {torch.__version__}" in said


MISSING = """
import pathlib, torch
load = torch.ops.load_library
torch.ops.load_library = lambda path: load(path.replace('libfastseq_cpu', 'libfastseq_gone'))
"""


def test_library_that_is_missing() -> None:
    said = said_at_import(MISSING)
    assert said.startswith(f"ImportError: fastseq could not load {CPU_LIBRARY}")
    assert "cannot open shared object file" in said
    assert "--force-reinstall" in said


def test_errors_are_sentences_without_paths() -> None:
    x, h, w = torch.zeros(3, 2, 4), torch.zeros(2, 5), torch.zeros(5, 6)
    with pytest.raises(RuntimeError) as raised:
        torch.ops.fastseq.layer(x, h, None, w, w, None, None, None, None, 2, False, False)
    assert str(raised.value) == (
        "fastseq::recurrence: weight_hh should have shape [5, 5], got [5, 6]"
    )


def test_too_large_an_output_is_torchs_error() -> None:
    x, weight = torch.empty(2**25, 0), torch.empty(2**20, 0)
    with pytest.raises(RuntimeError, match="can't allocate memory") as native:
        nn.functional.linear(x, weight)
    with pytest.raises(RuntimeError, match="can't allocate memory") as raised:
        torch.ops.fastseq.linear(x, weight, False)
    if torch.__version__ >= torch.torch_version.TorchVersion("2.13"):  # before, it kept its words
        assert str(raised.value) == str(native.value)


@pytest.mark.parametrize("library", [CPU_LIBRARY, CUDA_LIBRARY])
def test_no_path_of_the_machine_that_built_it_is_in_a_library(library: Path) -> None:
    """Torch's headers put the name of their file into errors of their own."""
    if not library.exists():
        pytest.skip("this fastseq was built without CUDA kernels")
    assert re.findall(rb"\0(/[ -~]+\.(?:h|hpp|cpp|cu|cuh))\0", library.read_bytes()) == []


@pytest.mark.parametrize(
    ("built", "driver", "known"),
    [("13.0.88", 12080, "12.8"), ("13.0.88", 12090, "12.9"), ("12.8.61", 11040, "11.4")],
)
def test_a_driver_that_does_not_know_the_toolkits_cuda(built: str, driver: int, known: str) -> None:
    major = built[:2]
    assert _library._old_driver(built, driver) == (
        f"fastseq's CUDA kernels were built with CUDA {built} and need a driver that knows CUDA "
        f"{major}; this one knows CUDA {known}. They will fail. Update the driver, or rebuild "
        f"fastseq with a CUDA {known[:2]} toolkit."
    )


@pytest.mark.parametrize(
    ("built", "driver"), [("13.0.88", 13000), ("12.8.61", 12020), ("12.8.61", 13020), ("13.0", 0)]
)
def test_a_driver_that_will_do(built: str, driver: int) -> None:
    assert _library._old_driver(built, driver) is None


OLD_DRIVER = """
import ctypes
class Driver:
    def __init__(self, name):
        assert name == 'libcuda.so.1'
    def cuDriverGetVersion(self, version):
        version._obj.value = 9020
        return 0
load, ctypes.CDLL = ctypes.CDLL, lambda name, *a, **k: (
    Driver(name) if name == 'libcuda.so.1' else load(name, *a, **k)
)
import torch, fastseq
assert not torch.cuda.is_initialized()
"""


@pytest.mark.skipif(not CUDA_LIBRARY.exists(), reason="built without CUDA kernels")
@pytest.mark.skipif(torch.version.cuda is None, reason="this torch has no CUDA")
def test_an_old_driver_is_warned_of_at_import() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", OLD_DRIVER],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "RuntimeWarning: fastseq's CUDA kernels were built with CUDA" in ran.stderr
    assert "this one knows CUDA 9.2" in ran.stderr
