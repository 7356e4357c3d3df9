// A GPU for tests. Every CUDA thread of a block is a fiber; a seeded scheduler switches between
// them at barriers, shuffles and, now and then, at memory accesses. It reports, as a sentence:
//   - a barrier or shuffle that not all threads reach, or that they reach on different lines
//   - two threads that touch one address, one of them writing, with no barrier between them
//   - accesses outside shared memory or the tensors of the launch, misaligned ones, and reads of
//     shared memory that nothing wrote
// Blocks run one after another, in random order. It proves nothing about speed or registers.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <mutex>
#include <source_location>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "fibers.h"
#include "shadow.h"

namespace fastseq::simt {

using Site = std::source_location;

inline std::string name_of(const Site& site) {
  const std::string path = site.file_name();
  return path.substr(path.rfind('/') + 1) + ":" + std::to_string(site.line());
}

enum class State { kReady, kBarrier, kShuffle, kEnded };

struct Thread {
  State state = State::kReady;
  Site site;
  uint64_t value = 0;  // handed to a shuffle
  int source = 0;      // the lane whose value is wanted
};

class Machine {
 public:
  // Settings: what tests choose.
  uint64_t seed = 1;
  std::string dropped;             // the barrier, "file:line", that does nothing
  std::vector<std::string> sites;  // barriers met since the test cleared it

  int64_t block = 0;
  int thread = 0, threads = 0;

  const char* run(int64_t blocks, int threads_, int64_t shared, const std::function<void()>& kernel,
                  const std::vector<Region>& regions) {
    const std::lock_guard<std::mutex> one_launch(mutex_);
    random_ = seed * 0x9e3779b97f4a7c15u + 1;
    threads = threads_;
    global_.clear();
    regions_ = regions;
    kernel_ = &kernel;
    try {
      if (threads % 32) throw Fault("a block should hold whole warps");
      std::vector<int64_t> order(static_cast<size_t>(blocks));
      for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i);
      for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random(i)]);
      for (int64_t b : order) run_block(b, shared);
    } catch (const Fault& fault) {
      fibers_.abandon();
      error_ = fault.what();
      return error_.c_str();
    }
    return nullptr;
  }

  void barrier(const Site& site) {
    if (is_dropped(site)) return;
    wait(State::kBarrier, site);
  }

  uint64_t exchange(uint64_t value, int source, const Site& site) {
    team_[thread].value = value;
    team_[thread].source = source;
    wait(State::kShuffle, site);
    return team_[thread].value;
  }

  // Element i of an array of `count` elements at a byte offset of shared memory.
  unsigned char* shared(int64_t offset, int i, int count, size_t bytes, bool write) {
    const int64_t at = offset + i * static_cast<int64_t>(bytes);
    if (i < 0 || i >= count || at + bytes > shared_.size()) {
      fail("touches element " + std::to_string(i) + " of an array of " + std::to_string(count) +
           " in shared memory");
    }
    if (at % static_cast<int64_t>(bytes)) fail("makes a misaligned access to shared memory");
    maybe_yield();
    check(shadow_[static_cast<size_t>(at)], write, "shared memory, byte", at);
    if (!write && shadow_[static_cast<size_t>(at)].writer == 0) {
      fail("reads byte " + std::to_string(at) + " of shared memory, which nothing wrote");
    }
    return shared_.data() + at;
  }

  void global(const void* p, size_t bytes, int count, bool write) {
    const auto address = reinterpret_cast<uintptr_t>(p);
    if (address % (bytes * static_cast<size_t>(count))) fail("makes a misaligned access");
    const Region* region = nullptr;
    for (const Region& r : regions_) {
      if (address >= r.begin && address + bytes * count <= r.end) region = &r;
    }
    if (!region && !regions_.empty()) fail("touches memory outside the tensors of the launch");
    if (region && write && !region->writable) fail(std::string("writes to ") + region->name);
    maybe_yield();
    for (int i = 0; i < count; ++i) {
      const uintptr_t at = address + bytes * i;
      const uintptr_t from = region ? region->begin : 0;
      check(global_.at(at), write, region ? region->name : "global memory, byte",
            static_cast<int64_t>((at - from) / (region ? bytes : 1)));
    }
  }

 private:
  uint64_t random(uint64_t below) {
    random_ ^= random_ << 13;
    random_ ^= random_ >> 7;
    random_ ^= random_ << 17;
    return random_ % below;
  }

  std::string who(int t) const {
    return "block " + std::to_string(block) + ", thread " + std::to_string(t);
  }
  [[noreturn]] void fail(const std::string& what) const { throw Fault(who(thread) + " " + what); }

  void check(Cell& cell, bool write, const char* name, int64_t at) {
    const uint32_t me = static_cast<uint32_t>(block * threads + thread) + 1;
    const uint32_t other = cell.conflict(me, write, epoch_, first_epoch_);
    if (other) {
      throw Fault("race: " + who(thread) + (write ? " writes " : " reads ") + name + " [" +
                  std::to_string(at) + "], which block " + std::to_string((other - 1) / threads) +
                  ", thread " + std::to_string((other - 1) % threads) +
                  " touches with no barrier between them");
    }
    cell.record(me, write, epoch_, first_epoch_);
  }

  // A switch at one access in a few hundred shakes the order of threads at little cost.
  void maybe_yield() {
    if (--until_yield_) return;
    until_yield_ = 64 + random(512);
    fibers_.pause();
  }

  bool is_dropped(const Site& site) {
    for (const auto& [known, drop] : known_) {
      if (known.line() == site.line() && known.file_name() == site.file_name()) return drop;
    }
    const std::string name = name_of(site);
    known_.emplace_back(site, name == dropped);
    bool listed = false;
    for (const std::string& s : sites) listed |= s == name;
    if (!listed) sites.push_back(name);
    return name == dropped;
  }

  void wait(State state, const Site& site) {
    Thread& me = team_[thread];
    me.state = state;
    me.site = site;
    fibers_.pause();
  }

  std::string waits(int t) const {
    const Thread& one = team_[t];
    const std::string where = one.state == State::kEnded     ? " has ended"
                              : one.state == State::kBarrier ? " waits at the barrier "
                                                             : " waits at the shuffle ";
    return who(t) + where + (one.state == State::kEnded ? "" : name_of(one.site));
  }
  [[noreturn]] void diverged(int a, int b) const {
    throw Fault("divergence: " + waits(a) + ", but " + waits(b));
  }
  bool together(int a, int b) const {
    return team_[a].state == team_[b].state && team_[a].site.line() == team_[b].site.line();
  }

  void run_block(int64_t b, int64_t shared) {
    block = b;
    first_epoch_ = ++epoch_;
    shared_.assign(static_cast<size_t>(shared), 0xff);  // NaN
    shadow_.assign(static_cast<size_t>(shared), Cell{});
    team_.assign(static_cast<size_t>(threads), Thread{});
    known_.clear();
    until_yield_ = 1 + random(512);
    ready_.clear();
    for (int t = 0; t < threads; ++t) ready_.push_back(t);
    int ended = 0, at_barrier = 0;
    std::vector<int> at_shuffle(static_cast<size_t>(threads / 32));
    while (!ready_.empty()) {
      const size_t pick = random(ready_.size());
      thread = ready_[pick];
      fibers_.resume(thread, *kernel_);
      if (fibers_.finished(thread)) team_[thread].state = State::kEnded;
      const State state = team_[thread].state;
      if (state == State::kReady) continue;
      ready_[pick] = ready_.back();
      ready_.pop_back();
      if (state == State::kEnded) ++ended;
      if (state == State::kBarrier && ++at_barrier == threads) {
        for (int t = 0; t < threads; ++t) {
          if (!together(0, t)) diverged(0, t);
        }
        for (int t = 0; t < threads; ++t) {
          team_[t].state = State::kReady;
          ready_.push_back(t);
        }
        at_barrier = 0;
        ++epoch_;
      }
      if (state == State::kShuffle && ++at_shuffle[thread / 32] == 32) {
        deliver(thread / 32 * 32);
        at_shuffle[thread / 32] = 0;
      }
    }
    if (ended == threads) return;
    // Nobody can go on: name a thread that waits and one that does not wait with it.
    int stuck = 0;
    while (team_[stuck].state == State::kEnded) ++stuck;
    for (int t = 0; t < threads; ++t) {
      if (!together(stuck, t)) diverged(stuck, t);
    }
    throw Fault("divergence: " + waits(stuck) + " for ever");
  }

  void deliver(int first) {
    uint64_t values[32];
    for (int i = 0; i < 32; ++i) {
      if (!together(first, first + i)) diverged(first, first + i);
      values[i] = team_[first + i].value;
    }
    for (int i = 0; i < 32; ++i) {
      Thread& one = team_[first + i];
      if (one.source >= 0 && one.source < 32) one.value = values[one.source];
      one.state = State::kReady;
      ready_.push_back(first + i);
    }
  }

  std::mutex mutex_;
  std::string error_;
  uint64_t random_ = 1, until_yield_ = 1;
  const std::function<void()>* kernel_ = nullptr;
  std::vector<Thread> team_;
  std::vector<int> ready_;
  std::vector<std::pair<Site, bool>> known_;
  std::vector<unsigned char> shared_;
  std::vector<Cell> shadow_;
  std::vector<Region> regions_;
  Shadow global_;
  Fibers fibers_;
  uint32_t epoch_ = 0, first_epoch_ = 0;
};

inline Machine machine;

inline int64_t block_index() { return machine.block; }
inline int thread_index() { return machine.thread; }
inline int block_size() { return machine.threads; }
inline void sync(const Site& site = Site::current()) { machine.barrier(site); }

template <class T>
T exchange(T value, int source, const Site& site) {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = machine.exchange(bits, source, site);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
// As in CUDA: a lane beyond the warp leaves one's own value, except that an index wraps around.
template <class T>
T shuffle(T value, int lane, const Site& site = Site::current()) {
  return exchange(value, lane & 31, site);
}
template <class T>
T shuffle_up(T value, int lanes, const Site& site = Site::current()) {
  return exchange(value, machine.thread % 32 - lanes, site);
}
template <class T>
T shuffle_down(T value, int lanes, const Site& site = Site::current()) {
  return exchange(value, machine.thread % 32 + lanes, site);
}
template <class T>
T shuffle_xor(T value, int mask, const Site& site = Site::current()) {
  return exchange(value, (machine.thread % 32) ^ mask, site);
}

template <class T>
class Shared {
 public:
  Shared(int64_t offset, int count) : offset_(offset), count_(count) {}
  T get(int i) const {
    T value;
    std::memcpy(&value, machine.shared(offset_, i, count_, sizeof(T), false), sizeof(T));
    return value;
  }
  void set(int i, T value) const {
    std::memcpy(machine.shared(offset_, i, count_, sizeof(T), true), &value, sizeof(T));
  }

 private:
  int64_t offset_;
  int count_;
};

namespace memory {

template <class T>
T load(const T* p) {
  machine.global(p, sizeof(T), 1, false);
  return *p;
}
template <class T>
void store(T* p, T value) {
  machine.global(p, sizeof(T), 1, true);
  *p = value;
}
template <int V, class S>
void read(const S* p, S (&values)[V]) {
  machine.global(p, sizeof(S), V, false);
  std::memcpy(values, p, sizeof values);
}
template <int V, class S>
void write(S* p, const S (&values)[V]) {
  machine.global(p, sizeof(S), V, true);
  std::memcpy(p, values, sizeof values);
}

}  // namespace memory

// Arguments that hold tensors overload this (regions.h); then nothing else may be touched.
template <class T>
void add_regions(const T&, std::vector<Region>&) {}

template <class... Arguments>
const char* run(int64_t blocks, int threads, int64_t shared, const std::function<void()>& kernel,
                const Arguments&... arguments) {
  std::vector<Region> regions;
  (add_regions(arguments, regions), ...);
  return machine.run(blocks, threads, shared, kernel, regions);
}

}  // namespace fastseq::simt

#include "regions.h"
