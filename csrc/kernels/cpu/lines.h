// Cache lines that are asked for ahead of their use.
#pragma once

#include "vec.h"

namespace fastseq::FASTSEQ_CAPABILITY {

// Cache lines to ask for, one at a time, while a product runs: its epilogue's, and weights that
// come next. Asked for all at once they are more than a core can have on the way, and the rest is
// dropped.
class Lines {
 public:
  FASTSEQ_INLINE void clear() { count_ = 0; }
  // n elements from p on.
  template <class S>
  FASTSEQ_INLINE void add(const S* p, int64_t n) {
    const uintptr_t first = reinterpret_cast<uintptr_t>(p);
    const uintptr_t end = first + static_cast<uintptr_t>(n) * sizeof(S);
    for (uintptr_t line = first & ~uintptr_t{kLine - 1}; line < end && count_ < kMost;
         line += kLine) {
      at_[count_++] = reinterpret_cast<const char*>(line);
    }
  }
  // What will be read after so many tiles, each of which asks for its share: into the L2 cache,
  // since L1 is in use.
  FASTSEQ_INLINE void stream(const void* p, int64_t bytes, int64_t tiles) {
    next_ = static_cast<const char*>(p);
    left_ = bytes / kLine;
    share_ = (left_ + tiles - 1) / tiles;
  }
  // The epilogue's come first, and are asked for in any case.
  FASTSEQ_INLINE int64_t needed() const { return count_; }
  FASTSEQ_INLINE int64_t count() const { return count_ + share_; }
  FASTSEQ_INLINE void fetch(int64_t i) const {
    if (i < count_) {
      __builtin_prefetch(at_[i], 0, 3);
    } else {
      __builtin_prefetch(next_ + (i - count_) * kLine, 0, 2);
    }
  }
  FASTSEQ_INLINE void fetch_needed() const {
    for (int64_t i = 0; i < count_; ++i) fetch(i);
  }
  // After a tile: the next one's share.
  FASTSEQ_INLINE void pass() {
    next_ += share_ * kLine;
    left_ -= share_;
    if (share_ > left_) share_ = left_;
  }

 private:
  static constexpr int64_t kMost = 384, kLine = 64;
  const char* at_[kMost];
  const char* next_ = nullptr;
  int64_t count_ = 0, share_ = 0, left_ = 0;
};

}  // namespace fastseq::FASTSEQ_CAPABILITY
