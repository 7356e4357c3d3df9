"""The package as strangers meet it: sdist, wheel, fresh environments, oldest torch, errors."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
import setuptools
import torch

import fastseq
from fastseq._build import CPU_LIBRARY, CUDA_LIBRARY

ROOT = Path(__file__).resolve().parents[1]
OLDEST = "2.11.0"
SMOKE = """
import sys, torch, fastseq
from fastseq import check
assert fastseq.__file__.startswith(sys.argv[1]), fastseq.__file__
report = check.run(quick=True)
print(report.table())
print("torch", torch.__version__, "ok" if report.ok else "MISMATCH")
"""


def run(
    *command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **(env or {})},
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=1500,
    )


def succeed(*command: str | Path, **options: object) -> str:
    done = run(*command, **options)  # type: ignore[arg-type]
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def script(path: Path, text: str) -> Path:
    """A program that stands in for another."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


# The package under test was built with everything; these builds are for the way they come about.
QUICK = {
    "FASTSEQ_CUDA": "0",
    "FASTSEQ_BASELINE_ONLY": "1",
}


class Environment:
    """A fresh virtual environment, outside the checkout."""

    def __init__(self, folder: Path, without: tuple[str, ...] = ()) -> None:
        """What is installed here is borrowed, but for names that begin like one of ``without``."""
        venv.create(folder, with_pip=True)
        self.folder = folder
        self.python = folder / "bin" / "python"
        site = succeed(self.python, "-c", "import sysconfig; print(sysconfig.get_path('platlib'))")
        self.site = Path(site.strip())
        # Gigabytes: linked, not copied, and without the fastseq under test.
        borrowed = folder / "borrowed"
        borrowed.mkdir()
        for entry in Path(sysconfig.get_path("platlib")).iterdir():
            wanted = "fastseq" not in entry.name and entry.suffix != ".pth"
            if wanted and not entry.name.startswith(without):
                (borrowed / entry.name).symlink_to(entry)
        (self.site / "borrowed.pth").write_text(str(borrowed))

    def pip(self, *arguments: str | Path, **options: object) -> str:
        # Bytecode of all of torch would take longer than what the tests import of it.
        command = (self.python, "-m", "pip", "install", "-q", "--no-compile")
        return succeed(*command, *arguments, **options)

    def smoke(self) -> str:
        return succeed(self.python, "-c", SMOKE, self.folder, cwd=self.folder)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that is gone afterwards: an environment with torch takes 6 GB."""
    folder = tmp_path_factory.mktemp("packaging")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def source(work: Path) -> Path:
    """A copy of what git would clone."""
    copy = work / "source"
    keep = shutil.ignore_patterns(
        ".git", "build", "dist", "*.egg-info", "*.so", "runs", ".venv", "__pycache__", ".*_cache"
    )
    shutil.copytree(ROOT, copy, ignore=keep)
    return copy


@pytest.fixture(scope="module")
def sdist(work: Path, source: Path) -> Path:
    succeed(sys.executable, "-m", "build", "--sdist", "--no-isolation", "-o", work / "dist", source)
    return next((work / "dist").glob("*.tar.gz"))


LAUNCHER = """
# The builds are of the same sources, in different folders: what one compiled serves the other.
kept=KEPT/$(printf '%s\\n' "$@" | sed 's|^.*/||' | cksum | tr -d ' ')
to=$(printf '%s\\n' "$@" | sed -n '/^-o$/{n;p;}')
[ -f "$kept" ] && exec cp "$kept" "$to"
"$@" -O1 && cp "$to" "$kept"
"""


@pytest.fixture(scope="module")
def quickly(work: Path) -> dict[str, str]:
    """The environment of a build whose kernels compile quickly, once, and run as they may."""
    (work / "kept").mkdir()
    launcher = script(work / "launcher", LAUNCHER.replace("KEPT", str(work / "kept")))
    return {**QUICK, "CMAKE_CXX_COMPILER_LAUNCHER": str(launcher)}


@pytest.fixture(scope="module")
def wheel(work: Path, sdist: Path, quickly: dict[str, str]) -> Path:
    """Built from the sdist as an installer without a wheel would: isolated, for this torch."""
    succeed(
        sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", work / "wheels", sdist,
        env=quickly,
    )  # fmt: skip
    return next((work / "wheels").glob("*.whl"))


@pytest.mark.packaging
def test_sdist_to_wheel_to_fresh_environment(work: Path, wheel: Path) -> None:
    assert re.fullmatch(r"fastseq-[\d.]+-py3-none-linux_\w+\.whl", wheel.name)  # for any Python
    environment = Environment(work / "fresh")
    environment.pip("--no-deps", wheel)
    assert (environment.site / "fastseq" / "py.typed").exists()
    assert f"torch {torch.__version__} ok" in environment.smoke()


@pytest.fixture(scope="module")
def oldest(work: Path) -> Iterator[Environment]:
    """An environment with the oldest torch; gigabytes, so gone with the last test that uses it."""
    environment = Environment(work / "oldest", without=("torch", "functorch", "triton"))
    environment.pip("--no-deps", f"torch=={OLDEST}")
    if torch.version.cuda is not None:  # CUDA's libraries are the newest torch's, if they serve
        cuda = environment.site / "nvidia"
        cuda.symlink_to(environment.folder / "borrowed/nvidia")
        if run(environment.python, "-c", "import torch").returncode:
            cuda.unlink()
            environment.pip(f"torch=={OLDEST}")
    yield environment
    shutil.rmtree(environment.folder)


@pytest.mark.packaging
def test_the_headers_are_those_of_the_oldest_torch(oldest: Environment) -> None:
    """Unchanged, and all that the ops include: no other torch was there when these were built."""
    ours = ROOT / "third_party/torch/include"
    files = [path.relative_to(ours) for path in ours.rglob("*") if path.is_file()]
    assert len(files) > 40
    theirs = oldest.site / "torch/include"
    assert [f for f in files if (ours / f).read_bytes() != (theirs / f).read_bytes()] == []
    version = (ours / "torch/headeronly/version.h").read_text()
    assert f'"{OLDEST}"' in version


@pytest.mark.packaging
@pytest.mark.parametrize("library", [CPU_LIBRARY, CUDA_LIBRARY], ids=["cpu", "cuda"])
def test_the_oldest_torch_has_all_that_a_library_asks_for(
    oldest: Environment, library: Path
) -> None:
    """Built against whatever torch is here, it asks for C functions of the oldest one alone."""
    if not library.exists():
        pytest.skip("this fastseq was built without CUDA kernels")
    names = succeed("nm", "--dynamic", "--undefined-only", "--no-demangle", library).split()
    asked = {name for name in names if re.match(r"torch_|aoti_|_ZN?K?(2at|3c10|5torch)", name)}
    assert "aoti_torch_empty_strided" in asked
    include = oldest.site / "torch/include/torch/csrc"
    headers = [include / "stable/c/shim.h", *(include / "inductor/aoti_torch").rglob("*.h")]
    offered = set(
        re.findall(r"\b(?:aoti_)?torch_\w+(?=\()", "".join(h.read_text() for h in headers))
    )
    assert asked - offered == set()


@pytest.mark.parametrize("library", [CPU_LIBRARY, CUDA_LIBRARY], ids=["cpu", "cuda"])
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the symbols of x86-64")
def test_a_library_asks_for_no_newer_c_library_than_torch_does(library: Path) -> None:
    """Wherever it was built, it runs on manylinux_2_28, as torch's wheels do."""
    if not library.exists():
        pytest.skip("this fastseq was built without CUDA kernels")
    asked = succeed("objdump", "--dynamic-syms", library)
    for name, most in {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 24), "CXXABI": (1, 3, 11)}.items():
        found = re.findall(rf"\b{name}_([\d.]+)", asked)
        assert found, f"nothing of {name} in {library.name}"
        assert max(tuple(map(int, version.split("."))) for version in found) <= most


def test_a_library_shows_its_entries_and_nothing_else() -> None:
    shown = succeed("nm", "--dynamic", "--defined-only", CPU_LIBRARY)
    names = {line.split()[-1] for line in shown.splitlines()}
    assert names == {
        "fastseq_ask_for_plan",
        "fastseq_caches",
        "fastseq_capability",
        "fastseq_capability_available",
        "fastseq_capability_name",
        "fastseq_persistent_kernel",
        "fastseq_plan_recurrence",
    }


@pytest.mark.packaging
def test_the_same_wheel_beside_the_oldest_torch(
    work: Path, wheel: Path, oldest: Environment
) -> None:
    oldest.pip("--no-deps", wheel)
    assert f"torch {OLDEST}" in oldest.smoke()
    # What crosses the ABI: every op with every type, through modules, packed or not.
    names = ("test_recurrent_parity.py", "test_ops.py", "test_layer.py")
    tests = [ROOT / "python_tests" / name for name in names]
    chosen = "test_packed or test_sizes or opcheck and (padded or packed or projection)"
    succeed(oldest.python, "-m", "pytest", "-q", *tests, "-k", chosen, cwd=work)


@pytest.mark.packaging
def test_editable_install(work: Path, source: Path, quickly: dict[str, str]) -> None:
    """`pip install --no-build-isolation -e .`, as CONTRIBUTING has it, runs in place."""
    environment = Environment(work / "editable")
    environment.pip("setuptools>=77")  # the rest is borrowed
    environment.pip(
        *("--no-deps", "--no-build-isolation", "-e", source),
        env=quickly,
    )
    code = "import fastseq; print(fastseq.__file__, fastseq.info()['CPU capability'])"
    out = succeed(environment.python, "-c", code, cwd=work)
    assert out.split()[:2] == [str(source / "fastseq" / "__init__.py"), "baseline"]


def test_a_build_requires_no_torch() -> None:
    code = "from setuptools import build_meta as b; print(b.get_requires_for_build_wheel())"
    asked = succeed(sys.executable, "-c", code, cwd=ROOT).splitlines()[-1]
    assert asked == "[]"
    needed = re.search(r"^requires = (.*)$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert needed
    assert "torch" not in needed[1]


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ({"CXX": "no-such-compiler"}, "needs a C++ compiler, and no-such-compiler was not found"),
        ({"FASTSEQ_CUDA": "yes"}, "FASTSEQ_CUDA is 'yes'; it should be auto, 0 or 1"),
        (
            {"FASTSEQ_CUDA": "1", "CUDA_HOME": "/nonexistent", "CUDACXX": ""},
            "FASTSEQ_CUDA=1, but no nvcc was found",
        ),
        ({"PATH": ""}, "building needs a C++ compiler"),
    ],
    ids=["no such compiler", "bad switch", "no nvcc", "nothing installed"],
)
def test_a_build_that_cannot_be_says_what_to_do(
    env: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    done = run(
        sys.executable, "setup.py", "build_ext",
        "--build-temp", tmp_path / "temp", "--build-lib", tmp_path / "lib",
        cwd=ROOT, env=env,
    )  # fmt: skip
    assert done.returncode != 0
    assert sentence in done.stdout
    assert "Traceback" not in done.stdout


def test_the_cuda_library_names_what_it_was_built_for() -> None:
    """Where CUDA kernels are built in, they load beside this torch, GPU or not."""
    info = fastseq.info()
    if info["CUDA architectures"] != "none":
        assert info["CUDA kernels"] == "loaded" or torch.version.cuda is None
    elif torch.version.cuda is None:
        assert info["CUDA kernels"] == "not loaded: this torch has no CUDA"
    else:  # why not, and how to get them
        assert re.fullmatch(r"not built: .+: rebuild with FASTSEQ_CUDA=1.*", info["CUDA kernels"])


ALL = "75-real;80-real;90-real;100-real;120-real;120-virtual"
AGAIN = "rebuild with FASTSEQ_CUDA=1"


class Chooser:
    """What setup.py chooses beside programs that stand in for nvcc and nvidia-smi."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(setuptools, "setup", lambda **_: None)
        spec = importlib.util.spec_from_file_location("setup", ROOT / "setup.py")
        assert spec
        assert spec.loader
        self.setup = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "setup", self.setup)  # where its data class looks itself up
        spec.loader.exec_module(self.setup)
        self.folder, self.patch = folder, patch
        patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def __call__(
        self,
        gpus: str = "",
        known: str = "75 80 86 90 100 120",
        **env: str,
    ) -> tuple[str, str]:
        """The architectures and the note."""
        nvcc = script(self.folder / "nvcc", "\n".join(f"echo compute_{k}" for k in known.split()))
        script(self.folder / "nvidia-smi", "\n".join(f"echo {g}" for g in gpus.split()) or "exit 9")
        clean = {
            "FASTSEQ_CUDA": "auto",
            "FASTSEQ_CUDA_ARCHITECTURES": "",
            "TORCH_CUDA_ARCH_LIST": "",
        }
        for name, value in {**clean, "CUDACXX": str(nvcc), **env}.items():
            self.patch.setenv(name, value)
        choice = self.setup.cuda_build()
        assert (choice.nvcc is None) == (choice.architectures == "")
        return choice.architectures, choice.note


@pytest.fixture
def choose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chooser:
    return Chooser(tmp_path, monkeypatch)


def test_cuda_kernels_are_built_for_the_gpus_that_are_there(choose: Chooser) -> None:
    assert choose("9.0\n9.0") == (
        "90-real;90-virtual",
        f"this machine's: {AGAIN} for all",
    )
    assert choose("12.0 8.0")[0] == "80-real;120-real;120-virtual"
    # An RTX 4090 beside a toolkit that does not know it: the newest code that it can run.
    assert choose("8.9")[0] == "86-real;86-virtual"
    none = f"no GPU was there: {AGAIN} for all, or with TORCH_CUDA_ARCH_LIST for some"
    assert choose() == ("", none)
    assert choose("9.0", FASTSEQ_CUDA="0") == ("", f"FASTSEQ_CUDA was 0: {AGAIN}")
    no_nvcc = choose("9.0", CUDACXX="/nonexistent/nvcc")
    assert no_nvcc == ("", f"no nvcc was found: {AGAIN} where there is one ({choose.setup.NVCC})")


def test_all_cuda_architectures_are_those_that_nvcc_knows(choose: Chooser) -> None:
    assert choose("9.0", FASTSEQ_CUDA="1") == (ALL, "")
    old = choose(known="70 75 80 86 90", FASTSEQ_CUDA="1")
    assert old == (
        "75-real;80-real;90-real;90-virtual",
        "not 100, 120, which need a newer CUDA toolkit",
    )


def test_the_nvcc_that_pip_brings(
    choose: Chooser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its libraries in lib; but one that is named or on PATH goes first."""
    home = tmp_path / "site/nvidia/cu13"
    for name in ("bin", "lib"):
        (home / name).mkdir(parents=True)
    nvcc = script(home / "bin/nvcc", "echo compute_90")
    (home / "lib/libcudart_static.a").touch()
    monkeypatch.setattr(choose.setup, "site_folders", lambda: [tmp_path / "site"])
    for name in ("CUDACXX", "CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")
    if not Path("/usr/local/cuda/bin/nvcc").exists():
        assert choose.setup.nvcc_path() == str(nvcc)
    assert choose.setup.cuda_flags(str(nvcc)) == f"-L{home / 'lib'}"
    (home / "lib64").mkdir()
    assert choose.setup.cuda_flags(str(nvcc)) == ""
    monkeypatch.setenv("CUDACXX", str(script(tmp_path / "mine", "")))
    assert choose.setup.nvcc_path() == str(tmp_path / "mine")


@pytest.mark.parametrize("switch", ["auto", "1"])
def test_cuda_architectures_that_variables_name(
    choose: Chooser, switch: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def chosen(**env: str) -> str:
        return choose(FASTSEQ_CUDA=switch, **env)[0]

    assert chosen(TORCH_CUDA_ARCH_LIST="8.0;9.0+PTX") == "80-real;90-real;90-virtual"
    assert chosen(TORCH_CUDA_ARCH_LIST=" 7.5 8.6, 9.0a ") == "75-real;86-real;90a-real"
    assert (
        chosen(TORCH_CUDA_ARCH_LIST="Ampere;12.0+PTX")
        == "80-real;86-real;86-virtual;120-real;120-virtual"
    )
    ours = {"FASTSEQ_CUDA_ARCHITECTURES": "90-real", "TORCH_CUDA_ARCH_LIST": "8.0"}
    assert chosen(**ours) == "90-real"
    with pytest.raises(SystemExit):
        chosen(TORCH_CUDA_ARCH_LIST="Fermi")
    assert "has 'Fermi'; it should be like '8.0;9.0+PTX'" in capsys.readouterr().err
