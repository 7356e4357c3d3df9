// Memory that never leaves this library: scratch, and what forward keeps for backward.
//
// A large block is fresh memory at every call: the system hands it out in faults of 4 KB, each of
// which clears a page, and takes it back at the end. That costs as much as the pass that fills it.
// So freed blocks are kept for the next call, up to a limit; and huge pages are asked for.
#pragma once

#include <cstdint>

#include "checks.h"

namespace fastseq::ops {

// Memory of a large tensor of torch's, before its first use.
void advise_huge_pages(const Tensor& t);

// A block of at least `bytes`, aligned to a cache line, from those kept or new. Throws if there is
// no memory. `release` takes it back. Both may be called from any thread.
void* acquire(int64_t bytes);
void release(void* block);

// Gives the kept blocks back to the system; returns their bytes. At most FASTSEQ_KEEP_MB are kept.
int64_t drop_kept();

// Like new_tensor, on the CPU in such a block.
Tensor new_internal(const Tensor& like, const std::vector<int64_t>& shape,
                    std::optional<ScalarType> dtype = std::nullopt);

// Scratch for as long as it lives.
class Workspace {
 public:
  explicit Workspace(int64_t bytes) : block_(acquire(bytes)) {}
  ~Workspace() { release(block_); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  char* data() const { return static_cast<char*>(block_); }

 private:
  void* block_;
};

constexpr int64_t kAlign = 64;

inline int64_t rounded(int64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

}  // namespace fastseq::ops
