// A GPU for tests. Every CUDA thread is a fiber; a seeded scheduler switches between those of all
// blocks that are alive, at barriers, at what a warp does as one and, now and then, at memory
// accesses. It reports, as a sentence:
//   - a launch that a GPU would refuse (gpu.h)
//   - a barrier or a warp's operation that not all threads reach, or on different lines
//   - two threads that touch one address, one of them writing, with no barrier between them
//   - accesses outside shared memory or the tensors of the launch, misaligned ones, and reads of
//     shared memory that nothing wrote
//   - words between blocks that break their rules (words.h), and threads that wait for ever
// A cooperative launch has all blocks alive at once; any other one a few, as room comes by chance.
// It proves nothing about speed or registers.
#pragma once

#include <algorithm>
#include <mutex>

#include "scheduler.h"

namespace fastseq::simt {

class Machine : public Scheduler {
 public:
  // Settings: what tests choose.
  uint64_t seed = 1;
  std::string dropped;             // the barrier, "file:line", that does nothing
  std::vector<std::string> sites;  // barriers met since the test cleared it
  Gpu gpu;

  const char* run(const Launch& launch, const std::function<void()>& kernel,
                  const std::vector<Region>& regions) {
    const std::lock_guard<std::mutex> one_launch(mutex_);
    error_ = gpu.refusal(launch);
    if (!error_.empty()) return error_.c_str();
    reset(seed, launch.threads);
    traffic.sums.clear();
    tensors_.set(regions);
    global_.clear();
    known_.clear();
    try {
      play(launch, kernel);
    } catch (const Fault& fault) {
      abandon();
      error_ = fault.what();
      return error_.c_str();
    }
    return nullptr;
  }

  // ---- what threads call

  // All threads of the block, or `count` of them at one of the named barriers.
  void barrier(const Site& site) { barrier(0, threads_, site); }
  void barrier(int id, int count, const Site& site) {
    if (is_dropped(site)) return;
    if (id < 0 || id >= Block::kBarriers) fail("names barrier " + std::to_string(id) + " of 16");
    if (count < 32 || count > threads_ || count % 32) {
      fail("waits for " + std::to_string(count) + " threads of " + std::to_string(threads_));
    }
    Barrier& one = here_->barriers[static_cast<size_t>(id)];
    if (!one.waiting.empty() && one.expected != count) {
      fail("waits for " + std::to_string(count) + " threads at barrier " + std::to_string(id) +
           ", where others wait for " + std::to_string(one.expected));
    }
    one.expected = count;
    me().barrier = id;
    me().collective = nullptr;
    wait(State::kBarrier, site);
  }
  void warp_barrier(const Site& site) {
    if (is_dropped(site)) return;
    collective(&meet_, nullptr, site);
  }
  // What a warp does as one: `what` runs when all 32 lanes are there. Orders no memory.
  void collective(Collective what, void* operands, const Site& site) {
    me().barrier = 0;
    me().collective = what;
    me().operands = operands;
    wait(State::kWarp, site);
  }

  // Elements i to i + several of an array of `count` elements at a byte offset of shared memory.
  // Not inlined, like global(): who calls is the place in the kernel (traffic.h).
  __attribute__((noinline)) unsigned char* shared(int64_t offset, int i, int count, size_t bytes,
                                                  bool write, int several = 1) {
    Block& b = *here_;
    const auto size = static_cast<int64_t>(bytes);
    const int64_t at = offset + i * size;
    if (i < 0 || i + several > count ||
        at + several * size > static_cast<int64_t>(b.shared.size())) {
      fail("touches element " + std::to_string(i) + " of an array of " + std::to_string(count) +
           " in shared memory");
    }
    if (at % (size * several)) fail("makes a misaligned access to shared memory");
    if (traffic.on) {
      b.traffic.add(thread_, __builtin_return_address(0), nullptr, write, static_cast<uint64_t>(at),
                    static_cast<int>(size) * several);
    }
    maybe_yield();
    for (int64_t byte = at; byte < at + several * size; byte += size) {
      Cell& cell = b.shadow[static_cast<size_t>(byte)];
      check(cell, write, "shared memory, byte", byte);
      if (!write && cell.writer == 0) {
        fail("reads byte " + std::to_string(byte) + " of shared memory, which nothing wrote");
      }
    }
    return b.shared.data() + at;
  }

  __attribute__((noinline)) void global(const void* p, size_t bytes, int count, bool write) {
    const auto address = reinterpret_cast<uintptr_t>(p);
    if (address % (bytes * static_cast<size_t>(count))) fail("makes a misaligned access");
    const Region* const region = region_of(address, bytes * static_cast<size_t>(count), write);
    if (traffic.on) {
      here_->traffic.add(thread_, __builtin_return_address(0), region ? region->name : "global",
                         write, address, static_cast<int>(bytes) * count);
    }
    maybe_yield();
    const uintptr_t from = region ? region->begin : 0;
    const size_t step = bytes < 4 ? bytes : 4;  // words are looked for in larger elements
    for (size_t i = 0; i < bytes * static_cast<size_t>(count); i += step) {
      Cell& cell = global_.at(address + i);
      if (cell.relaxed) mixed(address + i);
      check(cell, write, region ? region->name : "global memory, byte",
            static_cast<int64_t>((address + i - from) / (region ? bytes : 1)));
    }
  }

  uint32_t load_relaxed(const uint32_t* p, const Site& site) {
    touch_word(p, false);
    maybe_yield();
    const Word& word = words_.at(p);
    if (word.pending && word.author == observer().me) wake(words_.deliver(p));
    std::vector<uint32_t*>& empty = me().empty;
    if (!still_empty(empty)) empty.clear();
    if (std::count(empty.begin(), empty.end(), p)) {
      // Once more, and nothing has come: the thread sleeps until something does.
      for (const uint32_t* q : empty) words_.at(q).waiters.push_back(fiber());
      std::swap(*std::find(empty.begin(), empty.end(), p), empty.back());
      wait(State::kPoll, site);
      empty.clear();
    }
    const uint32_t value = Words::value(p);
    if (value == kEmptyWord) {
      empty.push_back(const_cast<uint32_t*>(p));
    } else if (!word.author) {
      fail("finds " + tensors_.word(p) + " full, which nothing published in this launch");
    }
    return value;
  }

  void store_relaxed(uint32_t* p, uint32_t value) {
    touch_word(p, true);
    maybe_yield();
    const uint32_t author = words_.at(p).author;
    if (author) {
      fail("publishes " + tensors_.word(p) + ", as block " +
           std::to_string((author - 1) / static_cast<uint32_t>(threads_)) + " did before");
    }
    const std::string place = tensors_.word(p);
    if (Words::value(p) != kEmptyWord) fail("publishes " + place + ", which was not empty");
    if (value == kEmptyWord) fail("publishes " + place + " as an empty one");
    words_.store(p, value, observer().me);
  }

 private:
  const Region* region_of(uintptr_t address, size_t bytes, bool write) const {
    const Region* const region = tensors_.of(address, bytes);
    if (!region && tensors_.known()) fail("touches memory outside the tensors of the launch");
    if (region && write && !region->writable) fail(std::string("writes to ") + region->name);
    return region;
  }
  [[noreturn]] void mixed(uintptr_t address) const {
    fail("mixes plain and relaxed accesses to " +
         tensors_.word(reinterpret_cast<const uint32_t*>(address & ~uintptr_t{3})));
  }
  void touch_word(const uint32_t* p, bool write) {
    const auto address = reinterpret_cast<uintptr_t>(p);
    if (address % 4) fail("makes a misaligned access");
    region_of(address, 4, write);
    for (uintptr_t i = 0; i < 4; ++i) {
      Cell& cell = global_.at(address + i);
      if (cell.writer || cell.reader) mixed(address);
      cell.relaxed = true;
    }
  }
  static bool still_empty(const std::vector<uint32_t*>& words) {
    return std::all_of(words.begin(), words.end(),
                       [](const uint32_t* p) { return Words::value(p) == kEmptyWord; });
  }

  void check(Cell& cell, bool write, const char* name, int64_t at) {
    const Observer o = observer();
    if (const uint32_t other = cell.conflict(o, write)) {
      throw Fault("race: " + here_->who(thread_) + (write ? " writes " : " reads ") + name + " [" +
                  std::to_string(at) + "], which block " + std::to_string((other - 1) / o.threads) +
                  ", thread " + std::to_string((other - 1) % o.threads) +
                  " touches with no barrier between them");
    }
    cell.record(o, write);
  }

  bool is_dropped(const Site& site) {
    for (const auto& [known, drop] : known_) {
      if (known.line() == site.line() && known.file_name() == site.file_name()) return drop;
    }
    const std::string name = name_of(site);
    known_.emplace_back(site, name == dropped);
    if (!std::count(sites.begin(), sites.end(), name)) sites.push_back(name);
    return name == dropped;
  }

  std::mutex mutex_;
  std::string error_;
  std::vector<std::pair<Site, bool>> known_;
  Shadow global_;
};

inline Machine machine;

}  // namespace fastseq::simt
