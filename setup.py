"""Build fastseq: choose what is built for CUDA, then let CMake and Ninja do the work.

No torch is needed: the headers that the ops are built against are in third_party/torch.

Environment variables:
    FASTSEQ_CUDA                 auto (default): CUDA kernels where there is an nvcc, for the GPUs
                                 of this machine or the architectures named below; 1: always, for
                                 all architectures unless some are named, or fail; 0: never.
    FASTSEQ_CUDA_ARCHITECTURES   CMake's list of architectures, e.g. "90-real" or "native".
    TORCH_CUDA_ARCH_LIST         torch's, e.g. "8.0;9.0+PTX"; the one above goes first.
    FASTSEQ_BASELINE_ONLY        1: leave out the CPU kernels for AVX2 and AVX-512, to build faster.
"""

from __future__ import annotations

import os
import re
import shutil
import site
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import setuptools
from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
# T4, A100, H100, B200, RTX 50. The others of a family run the code of the one before.
ARCHITECTURES = ("75", "80", "90", "100", "120")
NVCC = "pip install 'cuda-toolkit[nvcc,cudart,crt,nvvm,cccl]' brings one"
TORCH_NAMES = {
    "Turing": "7.5+PTX",
    "Ampere": "8.0 8.6+PTX",
    "Ada": "8.9+PTX",
    "Hopper": "9.0+PTX",
    "Blackwell": "10.0 10.3 12.0 12.1+PTX",
}


class Stop(SystemExit):
    """End the build with a sentence for the person who started it."""

    def __init__(self, sentence: str) -> None:
        print(f"\nfastseq: {sentence}\n", file=sys.stderr, flush=True)
        super().__init__(1)


def site_folders() -> list[Path]:
    """Where packages of the user's may be.

    In pip's isolated build Python cannot import them, but sysconfig still names their folders.
    """
    roots = [sysconfig.get_path("platlib"), sysconfig.get_path("purelib")]
    if site.ENABLE_USER_SITE:
        roots.append(site.getusersitepackages())
    return [Path(root) for root in roots if root]


def nvcc_path() -> str | None:
    """The CUDA compiler: CUDACXX, else that of CUDA_HOME, else on PATH or where CUDA installs.

    Last that of pip: ``pip install "cuda-toolkit[nvcc,cudart,crt,nvvm,cccl]"``.
    """
    if named := os.environ.get("CUDACXX"):
        return shutil.which(named)
    if home := os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH"):
        return shutil.which(f"{home}/bin/nvcc")
    of_pip = (str(path) for f in site_folders() for path in f.glob("nvidia/cu[0-9]*/bin/nvcc"))
    places = ("nvcc", "/usr/local/cuda/bin/nvcc", *of_pip)
    return next((found for place in places if (found := shutil.which(place))), None)


def cuda_flags(nvcc: str) -> str:
    """What nvcc must be told: pip's toolkit has its libraries in lib, and it looks in lib64."""
    home = Path(nvcc).resolve().parents[1]
    apart = (home / "lib" / "libcudart_static.a").exists() and not (home / "lib64").exists()
    return f"-L{home / 'lib'}" if apart else ""


@dataclass
class CudaBuild:
    """How the CUDA kernels are built, or why they are not."""

    nvcc: str | None = None
    architectures: str = ""  # CMake's list
    note: str = ""  # what was left out, and how to get it; no semicolons, which CMake splits at


def known_architectures(nvcc: str) -> list[str]:
    """What a CUDA compiler can build for, as in "80", oldest first."""
    done = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=False)
    return sorted(re.findall(r"compute_(\w+)", done.stdout), key=int)


def with_ptx(names: list[str]) -> str:
    """Machine code of each, and of the last also what a newer GPU compiles for itself."""
    return ";".join([f"{name}-real" for name in names] + [f"{name}-virtual" for name in names[-1:]])


def torch_architectures(text: str) -> str:
    """CMake's list for one of torch's: "8.0 9.0+PTX" or "Ampere;Hopper"."""
    if text == "native":
        return text
    names = []
    for entry in " ".join(
        TORCH_NAMES.get(e, e) for e in re.split(r"[;,\s]+", text.strip())
    ).split():
        found = re.fullmatch(r"(\d+)\.(\d+[af]?)(\+PTX)?", entry)
        if not found:
            raise Stop(f"TORCH_CUDA_ARCH_LIST has {entry!r}; it should be like '8.0;9.0+PTX'.")
        names.append(f"{found[1]}{found[2]}-real")
        if found[3]:
            names.append(f"{found[1]}{found[2]}-virtual")
    return ";".join(names)


def gpus_here(known: list[str]) -> list[str]:
    """The architectures of this machine's GPUs, or what nvcc knows that comes before."""
    tool = shutil.which("nvidia-smi")
    if not tool:
        return []
    query = [tool, "--query-gpu=compute_cap", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    found = {
        major + minor for major, minor in re.findall(r"^(\d+)\.(\d)$", done.stdout, re.MULTILINE)
    }
    older = {max((k for k in known if int(k) <= int(name)), key=int, default="") for name in found}
    return sorted(older - {""}, key=int)


def cuda_build() -> CudaBuild:
    """What to build for CUDA, by the environment variables, nvcc and the GPUs found."""
    choice = os.environ.get("FASTSEQ_CUDA", "auto")
    if choice not in {"auto", "0", "1"}:
        raise Stop(f"FASTSEQ_CUDA is {choice!r}; it should be auto, 0 or 1.")
    again = "rebuild with FASTSEQ_CUDA=1"
    if choice == "0":
        return CudaBuild(note=f"FASTSEQ_CUDA was 0: {again}")
    nvcc = nvcc_path()
    if choice == "1" and not nvcc:
        raise Stop(
            f"FASTSEQ_CUDA=1, but no nvcc was found. {NVCC}, or install the CUDA toolkit and set "
            "CUDA_HOME to its folder, or set FASTSEQ_CUDA=0 for CPU kernels only."
        )
    if not nvcc:
        return CudaBuild(note=f"no nvcc was found: {again} where there is one ({NVCC})")
    for variable, read in (
        ("FASTSEQ_CUDA_ARCHITECTURES", str),
        ("TORCH_CUDA_ARCH_LIST", torch_architectures),
    ):
        if named := os.environ.get(variable, "").strip():
            return CudaBuild(nvcc, read(named), f"those of {variable}")
    known = known_architectures(nvcc)
    if choice == "1":
        chosen = [name for name in ARCHITECTURES if name in known]
        missing = [name for name in ARCHITECTURES if name not in known]
        if not chosen:
            raise Stop(f"{nvcc} knows none of the architectures {', '.join(ARCHITECTURES)}.")
        note = f"not {', '.join(missing)}, which need a newer CUDA toolkit" if missing else ""
        return CudaBuild(nvcc, with_ptx(chosen), note)
    if here := gpus_here(known):
        return CudaBuild(nvcc, with_ptx(here), f"this machine's: {again} for all")
    return CudaBuild(
        note=f"no GPU was there: {again} for all, or with TORCH_CUDA_ARCH_LIST for some"
    )


def show_progress(done: int, of: int) -> None:
    """Say on the terminal, some ten times in a build of minutes, how far it is.

    pip shows nothing that a build prints; where there is no terminal, nothing is said.
    """
    if done < of and done * 10 // of == (done - 1) * 10 // of:
        return
    try:
        with open("/dev/tty", "w") as terminal:
            terminal.write(f"\r  fastseq: {done} of {of} steps of the build\n")
    except OSError:
        pass


class PlatformWheel(bdist_wheel):
    """A wheel for every Python: its libraries are torch's extensions, not Python's."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


class CMakeBuild(build_ext):
    """Drive CMakeLists.txt and put what it installs into the package."""

    def get_ext_filename(self, fullname: str) -> str:
        """A library of ops: no Python is in its name, for none is in it."""
        return f"{Path(*fullname.split('.'))}.so"

    def build_extension(self, ext: Extension) -> None:
        self.check_tools()
        target = Path(self.get_ext_fullpath(ext.name)).resolve().parents[1]
        work = Path(self.build_temp).resolve() / "cmake"
        configure = [
            "cmake",
            "-S", str(ROOT), "-B", str(work), "-G", "Ninja",
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DCMAKE_INSTALL_PREFIX={target}",
            f"-DCMAKE_MAKE_PROGRAM={shutil.which('ninja')}",
            f"-DFASTSEQ_VERSION={self.distribution.get_version()}",
        ]  # fmt: skip
        if os.environ.get("FASTSEQ_BASELINE_ONLY") == "1":
            configure.append("-DFASTSEQ_BASELINE_ONLY=ON")
        cuda = cuda_build()
        configure.append(f"-DFASTSEQ_CUDA={'ON' if cuda.nvcc else 'OFF'}")
        configure.append(f"-DFASTSEQ_CUDA_NOTE={cuda.note}")
        if cuda.nvcc:
            configure.append(f"-DCMAKE_CUDA_COMPILER={cuda.nvcc}")
            if flags := cuda_flags(cuda.nvcc):
                configure.append(f"-DCMAKE_CUDA_FLAGS={flags}")
            configure.append(f"-DFASTSEQ_CUDA_ARCHITECTURES={cuda.architectures}")
        self.run_tool(configure)
        self.run_tool(["cmake", "--build", str(work)])
        if not cuda.nvcc:  # the kernels of an earlier build with CUDA must not be shipped
            (target / "lib" / "libfastseq_cuda.so").unlink(missing_ok=True)
        self.run_tool(["cmake", "--install", str(work)])
        built = f"built for {cuda.architectures.replace(';', ', ')}" if cuda.nvcc else "left out"
        print(f"fastseq: CUDA kernels {built}{f' ({cuda.note})' if cuda.note else ''}", flush=True)

    def copy_extensions_to_source(self) -> None:
        """For 'pip install -e .': all that was built, and nothing of an earlier build."""
        here = ROOT / "fastseq" / "lib"
        shutil.rmtree(here, ignore_errors=True)
        shutil.copytree(Path(self.build_lib) / "fastseq" / "lib", here)

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
                    "'pip install cmake ninja \"setuptools>=77\"' first."
                )

    @staticmethod
    def run_tool(command: list[str]) -> None:
        verbose, said = bool(os.environ.get("FASTSEQ_VERBOSE")), []
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout
            for line in process.stdout:
                said.append(line.rstrip())
                if verbose:
                    print(said[-1], flush=True)
                elif done := re.match(r"\[(\d+)/(\d+)\]", line):
                    show_progress(int(done[1]), int(done[2]))
        if process.returncode:
            telling = re.compile(r"error|not found|no such file|failed", re.IGNORECASE)
            lines = [line for line in said if telling.search(line)]
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
        "--no-build-isolation, or run 'pip install \"setuptools>=77\" cmake ninja' first."
    )

setup(
    ext_modules=[Extension("fastseq.lib.libfastseq_cpu", sources=[])],
    cmdclass={"build_ext": CMakeBuild, "bdist_wheel": PlatformWheel},
)
