// A team: the threads that work on one call together, and the barriers between their steps.
//
// A parallel region may be given fewer threads than it asked for, or run its parts one after the
// other, so nobody may wait for a thread that never comes: threads join first, whoever is missing
// after a while is left out, and the work is divided among those who are there.
#pragma once

#include <sched.h>
#include <time.h>

#include "../types.h"

namespace fastseq {

// Waits for all of a fixed number of threads. On lines of its own: it is written all the time.
struct alignas(64) Barrier {
  int64_t arrived = 0;
  alignas(64) int64_t generation = 0;
};

struct Team {
  static constexpr int64_t kClosed = int64_t{1} << 62;
  static constexpr int64_t kMember = int64_t{1} << 32;  // above the parts that have come

  int64_t parts;    // of the parallel region
  Barrier* groups;  // [parts], for barriers among some of the members
  alignas(64) int64_t roll = 0;
  Barrier everyone{};
};

struct Member {
  Team* team;
  int64_t id, count;  // of `count` members; those beyond the plan's needs only meet `everyone`
};

FASTSEQ_HD void relax(int64_t spins) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
  // A thread that shares its core with the one it waits for would spin for a whole time slice.
  if (spins % 1024 == 1023) sched_yield();
}

FASTSEQ_HD int64_t nanoseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

// Joins with `parts` of the region's parts. False: the team was complete without this thread, and
// there is nothing to do for it.
FASTSEQ_HD bool join(Team& team, int64_t parts, Member& self) {
  constexpr int64_t kPatience = 200'000;  // ns; waking a sleeping thread takes about 50'000
  int64_t seen = __atomic_load_n(&team.roll, __ATOMIC_ACQUIRE), mine;
  do {
    if (seen & Team::kClosed) return false;
    mine = seen + parts + Team::kMember;
    if (mine % Team::kMember == team.parts) mine |= Team::kClosed;
  } while (!__atomic_compare_exchange_n(&team.roll, &seen, mine, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_ACQUIRE));
  const int64_t id = seen / Team::kMember;
  seen = mine;
  const int64_t start = (seen & Team::kClosed) ? 0 : nanoseconds();
  for (int64_t spins = 0; !(seen & Team::kClosed); ++spins) {
    relax(spins);
    seen = __atomic_load_n(&team.roll, __ATOMIC_ACQUIRE);
    if (spins % 64 == 63 && !(seen & Team::kClosed) && nanoseconds() - start > kPatience) {
      if (__atomic_compare_exchange_n(&team.roll, &seen, seen | Team::kClosed, false,
                                      __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        seen |= Team::kClosed;
      }
    }
  }
  self = {&team, id, (seen & ~Team::kClosed) / Team::kMember};
  return true;
}

FASTSEQ_HD void wait(Barrier& barrier, int64_t threads) {
  if (threads == 1) return;
  const int64_t generation = __atomic_load_n(&barrier.generation, __ATOMIC_RELAXED);
  if (__atomic_add_fetch(&barrier.arrived, 1, __ATOMIC_ACQ_REL) == threads) {
    __atomic_store_n(&barrier.arrived, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&barrier.generation, generation + 1, __ATOMIC_RELEASE);
    return;
  }
  for (int64_t spins = 0; __atomic_load_n(&barrier.generation, __ATOMIC_ACQUIRE) == generation;
       ++spins) {
    relax(spins);
  }
}

}  // namespace fastseq
