// What is ordered before what among the warps of a block.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace fastseq::simt {

// Each barrier that completes, of all warps or of some, is a tick; an access carries the tick in
// which it was made. Of each other warp a warp knows a tick: what that warp did before it is
// ordered before all that this warp does from now on.
class Clock {
 public:
  explicit Clock(int warps = 0) : warps_(static_cast<size_t>(warps)), known_(warps_ * warps_, 0) {}

  uint32_t now() const { return now_; }
  bool knows(int me, int other, uint32_t time) const {
    return time < everyone_ || time < known_[static_cast<size_t>(me) * warps_ + other];
  }

  void all_meet() { everyone_ = ++now_; }
  // Who meets knows all that any of them knew.
  void meet(const std::vector<int>& team) {
    ++now_;
    std::vector<uint32_t> sum(warps_, 0);
    for (int w : team) {
      for (size_t x = 0; x < warps_; ++x) sum[x] = std::max(sum[x], known_[w * warps_ + x]);
    }
    for (int w : team) sum[static_cast<size_t>(w)] = now_;
    for (int w : team) std::copy(sum.begin(), sum.end(), known_.begin() + w * warps_);
  }

 private:
  size_t warps_;
  std::vector<uint32_t> known_;      // [warp, of warp]
  uint32_t now_ = 1, everyone_ = 0;  // everyone: the last tick in which all warps met
};

// The thread that makes an access. Threads are numbered through the launch, from 1 on.
struct Observer {
  uint32_t me, first, threads;  // first: of its block
  int warp;
  const Clock* clock;

  bool inside(uint32_t who) const { return who - first < threads; }
  // Whether what another thread did is ordered before this access. Blocks order nothing.
  bool knows(uint32_t who, uint32_t time) const {
    return inside(who) && clock->knows(warp, static_cast<int>(who - first) / 32, time);
  }
  bool knows_all(uint32_t warps, uint32_t time) const {
    for (int w = 0; warps; ++w, warps >>= 1) {
      if (warps & 1 && !clock->knows(warp, w, time)) return false;
    }
    return true;
  }
};

}  // namespace fastseq::simt
