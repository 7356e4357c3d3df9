"""The parity tests again, under every instruction set that this machine has."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastseq import _C

HERE = Path(__file__).parent
SUBSET = (
    "test_sizes or test_special or test_16_bit or test_one_hidden or test_outputs"
    " or (test_options and train and hx) or (test_packed and hx) or test_against_the_reference"
)
FILES = [
    "test_recurrent_parity.py",
    "test_recurrent_layouts.py",
    "test_recurrent_special.py",
    "test_ops.py",
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
    assert _C.cpu_capabilities()[0] == "baseline"
    assert _C.cpu_capability() in _C.cpu_capabilities()


@pytest.mark.parametrize("capability", _C.cpu_capabilities())
def test_parity(capability: str) -> None:
    files = [str(HERE / name) for name in FILES]
    # "-p no:cacheprovider": the outer run's record of failures stays its own.
    ran = python(
        *("-m", "pytest", *files, "-q", "-x", "-p", "no:cacheprovider", "-k", SUBSET),
        capability=capability,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-2000:]
    assert int(ran.stdout.rsplit(" passed", 1)[0].split()[-1]) > 400


@pytest.mark.parametrize("capability", _C.cpu_capabilities()[:-1])  # the last is tested anyway
def test_images(capability: str) -> None:
    files = [str(HERE / name) for name in IMAGE_FILES]
    chosen = "shapes or windows or powers or special or nan or reference or every_parameter"
    ran = python(
        *("-m", "pytest", *files, "-q", "-x", "-p", "no:cacheprovider", "-k", chosen),
        capability=capability,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-2000:]
    assert int(ran.stdout.rsplit(" passed", 1)[0].split()[-1]) > 900


@pytest.mark.parametrize("capability", _C.cpu_capabilities())
def test_capability_is_the_one_asked_for(capability: str) -> None:
    ran = python(
        "-c",
        "import fastseq, torch; print(fastseq._C.cpu_capability());"
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
    assert ", ".join(_C.cpu_capabilities()) in last
    assert "Unset the variable" in last


def test_empty_capability_is_none() -> None:
    ran = python("-c", "import fastseq; print(fastseq._C.cpu_capability())", capability="")
    assert ran.stdout.strip() == _C.cpu_capabilities()[-1]
