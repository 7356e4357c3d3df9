"""Teams and barriers (csrc/kernels/cpu/team.h) under ThreadSanitizer, without Python around them.

No memory is touched by two threads but in the order that a barrier gives: what the sanitizer sees
here is the C++ memory model, not the luck of one machine. Without the barrier it must complain.
"""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[1] / "csrc"
# As the recurrence does: every step each member writes its units, all wait, all read all of them.
# Some teams are of one group, some of two that meet apart at `groups` and together at the end;
# in the last a part comes so late that it may be left out.
SOURCE = """
#include <cstdio>
#include <thread>
#include <vector>
#include "kernels/cpu/team.h"
using namespace fastseq;

constexpr int64_t kSteps = 300, kUnits = 24;

struct Work {
  double state[2][2][kUnits] = {};  // [group][step % 2][unit]
  double sums[8] = {};              // of each member, read by the first
};

void meet(Barrier& barrier, int64_t threads) {
#ifndef WITHOUT_BARRIER
  wait(barrier, threads);
#endif
}

void run(const Member& self, Work& work, int64_t groups) {
  if (self.count < groups) groups = 1;
  const int64_t group = self.id % groups, place = self.id / groups;
  const int64_t members = (self.count - group + groups - 1) / groups;
  const int64_t first = kUnits * place / members, last = kUnits * (place + 1) / members;
  for (int64_t t = 0; t < kSteps; ++t) {
    const double* before = work.state[group][t % 2];
    double sum = 1;
    for (int64_t u = 0; u < kUnits; ++u) sum += before[u];
    for (int64_t u = first; u < last; ++u) work.state[group][(t + 1) % 2][u] = sum / kUnits;
    meet(self.team->groups[group], members);
  }
  work.sums[self.id] = work.state[group][kSteps % 2][first];
  meet(self.team->everyone, self.count);
  if (self.id == 0) {
    for (int64_t i = 0; i < self.count; ++i) {
      if (work.sums[i] != work.sums[0]) std::printf("member %d differs\\n", int(i));
    }
  }
}

void team_of(int64_t parts, int64_t groups, bool late) {
  std::vector<Barrier> barriers(parts);
  Team team{parts, barriers.data()};
  Work work;
  std::vector<std::thread> threads;
  for (int64_t part = 0; part < parts; ++part) {
    threads.emplace_back([&, part] {
      if (late && part == parts - 1) {
        const int64_t start = nanoseconds();
        while (nanoseconds() - start < 200'000) sched_yield();
      }
      Member self;
      if (join(team, 1, self)) run(self, work, groups);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

int main() {
  for (int turn = 0; turn < 20; ++turn) {
    for (int64_t parts = 2; parts <= 4; ++parts) {
      for (int64_t groups = 1; groups <= 2; ++groups) team_of(parts, groups, false);
      team_of(parts, 1, true);
    }
  }
  std::printf("done\\n");
}
"""


def sanitized(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Compile the teams and run them; the status is 66 where the sanitizer complained."""
    compiler = shutil.which("c++") or shutil.which("g++")
    assert compiler, "the package cannot have been built without a C++ compiler"
    (folder / "teams.cpp").write_text(SOURCE)
    built = subprocess.run(
        [compiler, "-std=gnu++20", "-O1", "-g", "-fsanitize=thread", "-pthread", f"-I{CSRC}",
         *flags, "teams.cpp", "-o", "teams"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if built.returncode and "tsan" in built.stderr:
        pytest.skip("the compiler has no ThreadSanitizer")
    assert built.returncode == 0, built.stderr
    # The sanitizer's memory map leaves no room for addresses as random as those of new kernels.
    command = [str(folder / "teams")]
    if setarch := shutil.which("setarch"):
        command = [setarch, platform.machine(), "-R", *command]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_teams_have_no_races(tmp_path: Path) -> None:
    ran = sanitized(tmp_path)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert ran.stdout == "done\n"


def test_without_the_barrier_the_sanitizer_complains(tmp_path: Path) -> None:
    ran = sanitized(tmp_path, "-DWITHOUT_BARRIER")
    assert ran.returncode == 66
    assert "data race" in ran.stderr
