"""A team of threads by itself (csrc/kernels/cpu/team.h): who is late is left out."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[1] / "csrc"
# A parallel region of two parts, of which the second begins when the first has a team, or after a
# second. Returns 10 * members of the first's team + whether the second found a place in it.
SOURCE = """
#include <thread>
#include "kernels/cpu/team.h"
using namespace fastseq;

extern "C" int late_part() {
  Barrier groups[2];
  Team team{2, groups};
  Member first{}, second{};
  int64_t formed = 0;
  std::thread early([&] {
    join(team, 1, first);
    __atomic_store_n(&formed, 1, __ATOMIC_RELEASE);
  });
  const int64_t start = nanoseconds();
  while (!__atomic_load_n(&formed, __ATOMIC_ACQUIRE) && nanoseconds() - start < 1'000'000'000) {
    sched_yield();
  }
  const bool came = join(team, 1, second);
  early.join();
  return static_cast<int>(10 * first.count + came);
}

extern "C" int both_parts_of_one_thread() {
  Barrier groups[2];
  Team team{2, groups};
  Member self{};
  const bool came = join(team, 2, self);
  return static_cast<int>(10 * self.count + came);
}
"""


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = shutil.which("c++") or shutil.which("g++")
    assert compiler, "the package cannot have been built without a C++ compiler"
    folder = tmp_path_factory.mktemp("team")
    (folder / "team.cpp").write_text(SOURCE)
    subprocess.run(
        [compiler, "-std=gnu++20", "-O1", "-fPIC", "-shared", "-pthread", f"-I{CSRC}",
         str(folder / "team.cpp"), "-o", str(folder / "team.so")],
        check=True,
    )  # fmt: skip
    return ctypes.CDLL(str(folder / "team.so"))


def test_a_late_part_is_left_out(team: ctypes.CDLL) -> None:
    """The first waits for some time, and then works alone; the second has nothing to do."""
    assert team.late_part() == 10


def test_one_thread_with_every_part_is_a_team(team: ctypes.CDLL) -> None:
    assert team.both_parts_of_one_thread() == 11
