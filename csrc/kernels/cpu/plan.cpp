// The plan that was asked for, in one word: a call takes it whole, whoever changes it meanwhile.
#include "plan.h"

#include <atomic>

namespace fastseq {
namespace {

std::atomic<uint64_t> asked{0};
constexpr int kBits = 21;  // of each number
constexpr int64_t kMost = (int64_t{1} << kBits) - 1;

}  // namespace

AskedPlan asked_plan() {
  const auto word = static_cast<int64_t>(asked.load(std::memory_order_relaxed));
  return {word & kMost, word >> kBits & kMost, word >> 2 * kBits & kMost};
}

void ask_for_plan(const AskedPlan& plan) {
  const auto kept = [](int64_t n) {
    return static_cast<uint64_t>(n < 0 ? 0 : n < kMost ? n : kMost);
  };
  asked.store(kept(plan.batches) | kept(plan.units) << kBits | kept(plan.chunk) << 2 * kBits,
              std::memory_order_relaxed);
}

}  // namespace fastseq
