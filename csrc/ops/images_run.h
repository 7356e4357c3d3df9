// Runs a CPU kernel on images: its items over threads, each thread with a scratch block.
#pragma once

#include <sys/mman.h>

#include <cstdlib>
#include <memory>

#include "../kernels/cpu/images.h"
#include "images_call.h"

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

struct Free {
  void operator()(void* p) const { std::free(p); }
};

template <class Args>
void run_items(const ImagesKernel<Args>& kernel, const Args& args) {
  if (args.images.numel() == 0) return;
  const ImagesPlan plan = kernel.plan(args, torch::stable::get_num_threads());
  const auto run = [&](int64_t first, int64_t last) {
    constexpr size_t kAlign = 64;
    const size_t bytes = (static_cast<size_t>(plan.scratch_bytes) / kAlign + 1) * kAlign;
    const std::unique_ptr<void, Free> scratch(std::aligned_alloc(kAlign, bytes));
    STD_TORCH_CHECK(scratch != nullptr, "fastseq: no memory for ", bytes, " bytes of scratch");
    kernel.run(args, plan, first, last, scratch.get());
  };
  if (plan.items <= plan.grain) return run(0, plan.items);
  torch::stable::parallel_for(0, plan.items, plan.grain, run);
}

}  // namespace fastseq::ops
