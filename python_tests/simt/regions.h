// The tensors of a launch, as its argument blocks describe them.
#pragma once

#include "../../csrc/kernels/images.h"
#include "shadow.h"

namespace fastseq {

inline void add_region(std::vector<simt::Region>& regions, const char* name, const void* p,
                       int64_t elements, int64_t bytes, bool writable) {
  const auto begin = reinterpret_cast<uintptr_t>(p);
  if (p) {
    regions.push_back({name, begin, begin + static_cast<uintptr_t>(elements * bytes), writable});
  }
}

inline int64_t pooled(const Images& images, const PoolWindow& pool) {
  return images.batch * images.channels * pool.h.out * pool.w.out;
}

// An argument block with its element type, cuda::Of<S, Block>.
template <template <class, class> class Of, class S, class Block>
void add_regions(const Of<S, Block>& a, std::vector<simt::Region>& regions) {
  const int64_t inputs = a.images.numel();
  constexpr bool kForward = requires { a.y; };
  if constexpr (requires { a.x; }) add_region(regions, "x", a.x, inputs, sizeof(S), false);
  if constexpr (requires { a.grad_x; }) {
    add_region(regions, "grad_x", a.grad_x, inputs, sizeof(S), true);
  }
  int64_t outputs = inputs;
  if constexpr (requires { a.pool; }) {
    outputs = pooled(a.images, a.pool);
    add_region(regions, "offsets", a.offsets, outputs, a.pool.wide() ? 4 : 1, kForward);
  }
  if constexpr (kForward) {
    add_region(regions, "y", a.y, outputs, sizeof(S), true);
  } else {
    add_region(regions, "grad_y", a.grad_y, outputs, sizeof(S), false);
  }
}

}  // namespace fastseq
