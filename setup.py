"""Build fastseq: find torch without importing it, then let CMake and Ninja do the work.

Environment variables:
    FASTSEQ_CUDA                 auto (default): CUDA kernels where nvcc is found and torch has
                                 CUDA; 1: always, or fail; 0: never.
    FASTSEQ_CUDA_ARCHITECTURES   CMake's list of architectures, e.g. "90a-real" or "native".
    FASTSEQ_TORCH_DIR            the folder of the torch package to build against.
    FASTSEQ_BASELINE_ONLY        1: leave out the CPU kernels for AVX2 and AVX-512, to build faster.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import site
import subprocess
import sys
import sysconfig
from pathlib import Path

import setuptools
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
OLDEST_TORCH = (2, 11)
HEADER = Path("include/torch/csrc/stable/library.h")


class Stop(SystemExit):
    """End the build with a sentence for the person who started it."""

    def __init__(self, sentence: str) -> None:
        print(f"\nfastseq: {sentence}\n", file=sys.stderr, flush=True)
        super().__init__(1)


def torch_folders() -> list[Path]:
    """Where torch may be: named by the user, importable, or in the environment pip installs into.

    In pip's isolated build Python cannot import the user's torch, but sysconfig still names the
    folder that it lives in.
    """
    folders = []
    if named := os.environ.get("FASTSEQ_TORCH_DIR"):
        return [Path(named)]
    spec = importlib.util.find_spec("torch")
    if spec and spec.origin:
        folders.append(Path(spec.origin).parent)
    roots = [sysconfig.get_path("platlib"), sysconfig.get_path("purelib")]
    if site.ENABLE_USER_SITE:
        roots.append(site.getusersitepackages())
    folders += [Path(root) / "torch" for root in roots if root]
    return folders


def version_facts(folder: Path) -> dict[str, str | None]:
    """The literals of torch/version.py: __version__, cuda, ..."""
    text = (folder / "version.py").read_text()
    found = re.findall(r"^(\w+)(?:\s*:[^=]+)?\s*=\s*(?:'([^']*)'|None)", text, flags=re.MULTILINE)
    return {name: value or None for name, value in found}


def usable(folder: Path) -> bool:
    """A torch with the headers that we build against, new enough."""
    if not (folder / "version.py").exists() or not (folder / HEADER).exists():
        return False
    version = version_facts(folder)["__version__"] or "0.0"
    return tuple(int(part) for part in version.split(".")[:2]) >= OLDEST_TORCH


def find_torch() -> Path | None:
    """The torch to build against, or None where none can be used."""
    return next((folder for folder in torch_folders() if usable(folder)), None)


def build_requirements() -> list[str]:
    """Ask for torch at build time only where the user has none: never a second, different one."""
    oldest = ".".join(map(str, OLDEST_TORCH))
    return [] if find_torch() else [f"torch>={oldest}"]


def nvcc_path() -> str | None:
    """The CUDA compiler: CUDACXX, else that of CUDA_HOME, else on PATH or where CUDA installs."""
    if named := os.environ.get("CUDACXX"):
        return shutil.which(named)
    if home := os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH"):
        return shutil.which(f"{home}/bin/nvcc")
    return shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")


def want_cuda(torch_cuda: str | None) -> str | None:
    """The nvcc to use, or None for a build without CUDA kernels."""
    choice = os.environ.get("FASTSEQ_CUDA", "auto")
    if choice not in {"auto", "0", "1"}:
        raise Stop(f"FASTSEQ_CUDA is {choice!r}; it should be auto, 0 or 1.")
    nvcc = nvcc_path()
    if choice == "1" and not nvcc:
        raise Stop(
            "FASTSEQ_CUDA=1, but no nvcc was found. Install the CUDA toolkit and set CUDA_HOME to "
            "its folder, or set FASTSEQ_CUDA=0 for a build with CPU kernels only."
        )
    if choice == "0" or (choice == "auto" and not torch_cuda):
        return None
    return nvcc


class CMakeBuild(build_ext):
    """Drive CMakeLists.txt and put what it installs into the package."""

    def build_extension(self, ext: Extension) -> None:
        folder = find_torch()
        if folder is None:
            oldest = ".".join(map(str, OLDEST_TORCH))
            raise Stop(
                f"building needs torch {oldest} or newer, and none was found in "
                f"{', '.join(str(f) for f in torch_folders()) or 'this environment'}. "
                "Run 'pip install torch' first, or set FASTSEQ_TORCH_DIR to torch's folder."
            )
        facts = version_facts(folder)
        self.check_tools()
        target = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        work = Path(self.build_temp).resolve() / "cmake"
        configure = [
            "cmake",
            "-S", str(ROOT), "-B", str(work), "-G", "Ninja",
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DCMAKE_INSTALL_PREFIX={target}",
            f"-DCMAKE_MAKE_PROGRAM={shutil.which('ninja')}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={self.pybind11_folder()}",
            f"-DFASTSEQ_VERSION={self.distribution.get_version()}",
            f"-DFASTSEQ_TORCH_INCLUDE={folder / 'include'}",
            f"-DFASTSEQ_TORCH_VERSION={facts['__version__']}",
        ]  # fmt: skip
        if os.environ.get("FASTSEQ_BASELINE_ONLY") == "1":
            configure.append("-DFASTSEQ_BASELINE_ONLY=ON")
        nvcc = want_cuda(facts.get("cuda"))
        configure.append(f"-DFASTSEQ_CUDA={'ON' if nvcc else 'OFF'}")
        if nvcc:
            configure.append(f"-DCMAKE_CUDA_COMPILER={nvcc}")
            if architectures := os.environ.get("FASTSEQ_CUDA_ARCHITECTURES"):
                configure.append(f"-DFASTSEQ_CUDA_ARCHITECTURES={architectures}")
        self.run_tool(configure)
        self.run_tool(["cmake", "--build", str(work)])
        if not nvcc:  # a build without CUDA must not ship the kernels of an earlier build with it
            (target / "lib" / "libfastseq_cuda.so").unlink(missing_ok=True)
        self.run_tool(["cmake", "--install", str(work)])

    def copy_extensions_to_source(self) -> None:
        """For 'pip install -e .': take the op libraries along, not the extension module alone."""
        super().copy_extensions_to_source()
        built = Path(self.build_lib) / "fastseq" / "lib"
        shutil.copytree(built, ROOT / "fastseq" / "lib", dirs_exist_ok=True)

    @staticmethod
    def pybind11_folder() -> str:
        try:
            import pybind11
        except ImportError:
            raise Stop(
                "building needs pybind11. With --no-build-isolation, run "
                "'pip install cmake ninja pybind11 \"setuptools>=77\"' first."
            ) from None
        return pybind11.get_cmake_dir()

    @staticmethod
    def check_tools() -> None:
        names = os.environ.get("CXX", "").split()[:1] or ["c++", "g++"]
        if not any(shutil.which(name) for name in names):
            raise Stop(
                f"building needs a C++ compiler, and {' or '.join(names)} was not found. Install "
                "one (Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++; conda: conda "
                "install gxx_linux-64), or set CXX to yours."
            )
        for tool in ("cmake", "ninja"):
            if not shutil.which(tool):
                raise Stop(
                    f"building needs {tool}. With --no-build-isolation, run "
                    "'pip install cmake ninja pybind11 \"setuptools>=77\"' first."
                )

    @staticmethod
    def run_tool(command: list[str]) -> None:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if os.environ.get("FASTSEQ_VERBOSE"):
            print(done.stdout, flush=True)
        if done.returncode:
            telling = re.compile(r"error|not found|no such file|failed", re.IGNORECASE)
            lines = [line for line in done.stdout.splitlines() if telling.search(line)]
            print("\n".join(line[:300] for line in lines[:8]), flush=True)
            raise Stop(
                f"'{' '.join(command[:2])}' failed; the lines above say why, and FASTSEQ_VERBOSE=1 "
                "prints all of them. fastseq needs GCC 11 or Clang 15 or newer, and for CUDA "
                "kernels a toolkit that knows the architectures asked for (FASTSEQ_CUDA=0 builds "
                "without them)."
            )


if int(setuptools.__version__.split(".")[0]) < 77:
    raise Stop(
        f"building needs setuptools 77 or newer, and this is {setuptools.__version__}. Leave out "
        "--no-build-isolation, or run 'pip install \"setuptools>=77\" cmake ninja pybind11' first."
    )

setup(
    ext_modules=[Extension("fastseq._C", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
    setup_requires=build_requirements(),
)
