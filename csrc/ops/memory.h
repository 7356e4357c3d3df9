// Memory of a call: huge pages for large results, and aligned scratch.
#pragma once

#include <sys/mman.h>

#include "checks.h"

namespace fastseq::ops {

// A large result is fresh memory, which the kernel would hand out in faults of 4 KB each: several
// times the cost of the pass that fills it. Huge pages, where the system grants them on request.
inline void advise_huge_pages(const Tensor& t) {
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t kPage = 4'096;
  constexpr int64_t kLeastBytes = 4 << 20;
  const int64_t bytes = t.numel() * static_cast<int64_t>(t.element_size());
  if (bytes < kLeastBytes) return;
  const auto begin = reinterpret_cast<uintptr_t>(t.const_data_ptr());
  const uintptr_t first = (begin + kPage - 1) / kPage * kPage;
  const uintptr_t last = (begin + static_cast<uintptr_t>(bytes)) / kPage * kPage;
  madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);  // advice: may be refused
#endif
}

constexpr int64_t kAlign = 64;

inline int64_t rounded(int64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

// Scratch for as long as it lives.
class Workspace {
 public:
  Workspace(const Tensor& like, int64_t bytes)
      : memory_(new_tensor(like, {bytes + kAlign}, ScalarType::Byte)) {
    advise_huge_pages(memory_);
  }
  char* aligned() const {
    const auto p = reinterpret_cast<uintptr_t>(memory_.mutable_data_ptr());
    return reinterpret_cast<char*>((p + kAlign - 1) / kAlign * kAlign);
  }

 private:
  Tensor memory_;
};

}  // namespace fastseq::ops
