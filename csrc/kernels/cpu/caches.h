// What the planner asks of the machine.
#pragma once

#include <cstdint>

namespace fastseq {

// Bytes of the data caches that a core reads through; the last may be shared with others.
struct Caches {
  int64_t l1, l2, l3;
};

// Those of this machine's first core, or common ones where nobody tells.
const Caches& caches();

}  // namespace fastseq
