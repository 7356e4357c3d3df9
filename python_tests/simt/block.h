// A block that is alive: its threads and what each waits for, its shared memory and its barriers.
#pragma once

#include <array>
#include <cstdint>
#include <source_location>
#include <string>
#include <vector>

#include "shadow.h"
#include "traffic.h"

namespace fastseq::simt {

using Site = std::source_location;

inline std::string name_of(const Site& site) {
  const std::string path = site.file_name();
  return path.substr(path.rfind('/') + 1) + ":" + std::to_string(site.line());
}

enum class State { kReady, kBarrier, kWarp, kPoll, kEnded };

// What a warp does as one: from the operands of its 32 lanes, which it may write to.
using Collective = void (*)(void* const* lanes);

struct Thread {
  State state = State::kReady;
  Site site;
  int barrier = 0;  // the one it waits at
  Collective collective = nullptr;
  void* operands = nullptr;
  std::vector<uint32_t*> empty;  // words that it found empty; the last is the one it waits for
};

// bar.sync: the threads that it waits for, and those that are there.
struct Barrier {
  int expected = 0;
  std::vector<int> waiting;
};

struct Block {
  static constexpr int kBarriers = 16;

  int64_t index = 0;
  int ended = 0;
  std::vector<Thread> team;
  std::array<Barrier, kBarriers> barriers;
  std::vector<int> at_collective;  // lanes of each warp that are there
  std::vector<unsigned char> shared;
  std::vector<Cell> shadow;
  Clock clock;
  BlockTraffic traffic;

  void start(int64_t number, int threads, int64_t bytes) {
    index = number;
    ended = 0;
    team.assign(static_cast<size_t>(threads), Thread{});
    barriers = {};
    at_collective.assign(static_cast<size_t>(threads / 32), 0);
    shared.assign(static_cast<size_t>(bytes), 0xff);  // NaN
    shadow.assign(static_cast<size_t>(bytes), Cell{});
    clock = Clock(threads / 32);
    traffic.start(threads);
  }

  Observer observer(int thread) const {
    const auto threads = static_cast<uint32_t>(team.size());
    const uint32_t first = static_cast<uint32_t>(index) * threads + 1;
    return {first + static_cast<uint32_t>(thread), first, threads, thread / 32, &clock};
  }

  std::string who(int t) const {
    return "block " + std::to_string(index) + ", thread " + std::to_string(t);
  }
  std::string waits(int t) const {
    const Thread& one = team[static_cast<size_t>(t)];
    switch (one.state) {
      case State::kReady:
        return who(t) + " runs";
      case State::kBarrier:
        return who(t) + " waits at the barrier " + name_of(one.site);
      case State::kWarp:
        return who(t) + " waits for its warp at " + name_of(one.site);
      case State::kPoll:
        return who(t) + " polls, at " + name_of(one.site) + ",";
      case State::kEnded:
        return who(t) + " has ended";
    }
    return who(t);
  }
  // Whether two threads wait for the same thing at the same place.
  bool together(int a, int b) const {
    const Thread &x = team[static_cast<size_t>(a)], &y = team[static_cast<size_t>(b)];
    return x.state == y.state && x.site.line() == y.site.line() && x.barrier == y.barrier &&
           x.collective == y.collective;
  }
};

}  // namespace fastseq::simt
