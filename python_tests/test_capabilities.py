"""The parity tests again, under every instruction set that this machine has."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastseq import _native
from fastseq.info import info

HERE = Path(__file__).parent
SUBSET = (
    "test_sizes or test_special or test_16_bit or test_one_hidden or test_outputs"
    " or (test_options and train and hx) or (test_packed and hx) or at_odd_sizes or wide_states"
    " or (test_against_the_reference and test_ops) or test_feature or random_cases or quick_cells"
)
FILES = [
    "test_recurrent_parity.py",
    "test_recurrent_layouts.py",
    "test_recurrent_special.py",
    "test_ops.py",
    "test_layer.py",
    "test_extended_layer.py",
    "test_quick.py",
    "test_streaming.py",
]
IMAGE_FILES = ["test_lrn.py", "test_pool.py", "test_trio.py"]


def python(*args: str, capability: str) -> subprocess.CompletedProcess[str]:
    # One thread: the machine may be shared with the other tests.
    environment = {
        **os.environ,
        "FASTSEQ_CPU_CAPABILITY": capability,
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, *args],
        env=environment,
        cwd=HERE,  # not the root: its fastseq/ would hide an installed one
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_baseline_is_always_there() -> None:
    assert _native.cpu_capabilities()[0] == "baseline"
    assert _native.cpu_capability() in _native.cpu_capabilities()


# The default is what all other tests run; avx512_bf16 and amx are avx512 but for one type.
BY_ITSELF = [name for name in _native.cpu_capabilities() if name != "amx"]
DEFAULT = BY_ITSELF[-1]
RECURRENCE = [name for name in _native.cpu_capabilities() if name != DEFAULT]
IMAGES = [name for name in BY_ITSELF if name != "avx512_bf16"][:-1]


@pytest.mark.parametrize("capability", RECURRENCE)
def test_parity(capability: str) -> None:
    files = [str(HERE / name) for name in FILES]
    # "-p no:cacheprovider": the outer run's record of failures stays its own.
    pairs = capability in ("avx512", "amx")
    chosen = f"({SUBSET}) and bfloat16" if pairs else SUBSET
    ran = python(
        *("-m", "pytest", *files, "-q", "-x", "-p", "no:cacheprovider", "-k", chosen),
        capability=capability,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-2000:]
    assert int(ran.stdout.rsplit(" passed", 1)[0].split()[-1]) > (100 if pairs else 1000)


@pytest.mark.parametrize("capability", IMAGES)
def test_images(capability: str) -> None:
    files = [str(HERE / name) for name in IMAGE_FILES]
    chosen = "shapes or windows or powers or special or nan or reference or every_parameter"
    ran = python(
        *("-m", "pytest", *files, "-q", "-x", "-p", "no:cacheprovider", "-k", chosen),
        capability=capability,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-2000:]
    assert int(ran.stdout.rsplit(" passed", 1)[0].split()[-1]) > 900


@pytest.mark.parametrize("capability", RECURRENCE)
def test_long_sums_are_exact(capability: str) -> None:
    """Without fused multiply-adds every product is rounded as well."""
    chosen = "test_padded and float32 and 129 and LSTM"
    ran = python(
        *("-m", "pytest", str(HERE / "test_accuracy.py"), "-q", "-p", "no:cacheprovider"),
        *("-k", chosen),
        capability=capability,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-2000:]
    assert "4 passed" in ran.stdout


LAYERS = """
import sys, torch
from recurrence_cases import all_wanted, whole_layer, whole_layer_backward
from fastseq import ops
found = {}
for cell in ops.Cell:
    for dtype in (torch.float32, torch.bfloat16):
        for project in (None, 31) if cell == ops.Cell.LSTM else (None,):
            options = {"steps": 20, "batch": 9, "width": 45, "hidden": 67, "project": project}
            forward = whole_layer(cell, dtype=dtype, **options)
            saved = ops.layer(**forward, save=True)
            grads = ops.layer_backward(**whole_layer_backward(forward, saved, all_wanted(forward)))
            for name, t in {**saved._asdict(), **grads._asdict()}.items():
                if t.numel():
                    found[f"{cell.name} {project} {dtype} {name}"] = t
torch.save(found, sys.argv[1])
"""


@pytest.mark.parametrize("pairs", ["avx512_bf16", "amx"])
def test_pairs_of_bfloat16_agree_with_sums_of_products(pairs: str, tmp_path: Path) -> None:
    if pairs not in _native.cpu_capabilities():
        pytest.skip(f"the CPU has no {pairs}")
    found = []
    for capability in ("avx512", pairs):
        file = tmp_path / capability
        ran = python("-c", LAYERS, str(file), capability=capability)
        assert ran.returncode == 0, ran.stderr[-2000:]
        found.append(torch.load(file))
    sums, others = found
    assert sums.keys() == others.keys()
    assert len(sums) > 90
    for name, value in sums.items():
        if "float32" in name:  # the same kernels
            assert torch.equal(others[name], value), name
            continue
        exact = value.double()
        off = (others[name].double() - exact).norm() / exact.norm()
        # Numbers near the middle of two of bfloat16 fall to either side, and the steps carry it on.
        assert off < 2 * torch.finfo(torch.bfloat16).eps, (name, off)


@pytest.mark.parametrize("capability", _native.cpu_capabilities())
def test_capability_is_the_one_asked_for(capability: str) -> None:
    ran = python(
        "-c",
        "import fastseq, torch; print(fastseq._native.cpu_capability());"
        "print(fastseq.explain(fastseq.LSTM(3, 4), torch.zeros(5, 2, 3)))",
        capability=capability,
    )
    assert ran.stdout.splitlines()[0] == capability
    assert f"({capability})" in ran.stdout.splitlines()[1]


def test_unknown_capability() -> None:
    ran = python("-c", "import fastseq", capability="mmx")
    assert ran.returncode == 1
    last = ran.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: FASTSEQ_CPU_CAPABILITY is 'mmx'")
    assert ", ".join(_native.cpu_capabilities()) in last
    assert "Unset the variable" in last


def test_empty_capability_is_none() -> None:
    ran = python("-c", "import fastseq; print(fastseq._native.cpu_capability())", capability="")
    assert ran.stdout.strip() == DEFAULT


def test_info_says_that_nobody_has_run_amx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "cpu_capabilities", lambda: ["avx512_bf16", "amx"])
    assert "available: avx512_bf16, amx; no CPU has run amx yet" in info()["CPU capability"]


def test_amx_runs_where_it_is_asked_for_alone() -> None:
    """No CPU has run it yet."""
    assert _native.cpu_capability() != "amx" or os.environ["FASTSEQ_CPU_CAPABILITY"] == "amx"
    if "amx" in _native.cpu_capabilities():
        return  # test_capability_is_the_one_asked_for has it
    ran = python("-c", "import fastseq", capability="amx")
    assert ran.returncode == 1
    assert "FASTSEQ_CPU_CAPABILITY is 'amx', and this build" in ran.stderr.splitlines()[-1]
