// Runs a CPU kernel on images: its items over threads, each thread with a scratch block.
#pragma once

#include <cstdlib>
#include <memory>

#include "../kernels/cpu/images.h"
#include "images_call.h"
#include "memory.h"

namespace fastseq::ops {

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
    FASTSEQ_CHECK(scratch != nullptr, "fastseq: can't allocate memory: you tried to allocate ",
                  bytes, " bytes");
    kernel.run(args, plan, first, last, scratch.get());
  };
  if (plan.items <= plan.grain) return run(0, plan.items);
  torch::stable::parallel_for(0, plan.items, plan.grain, run);
}

}  // namespace fastseq::ops
