// A mailbox in miniature: some steps in which every block needs what all blocks made of the step
// before. Written once; the machine runs it, and nvcc compiles it (test_cuda_compile.py).
#pragma once

#include "../../csrc/kernels/cuda/words.h"

namespace fastseq::cases {

// 16 units a block; two warps share the words of a step, a multiple of 128. One barrier a step: the
// sums of a step lie where those of the step before do not.
struct Mailbox {
  enum Mistake {
    kNone,
    kDroppedPublish,
    kReusedSlot,
    kOneSetOfSums,
    kNoBarrier,
    kPlainLoad,
    kOneStepAhead,
  };

  static constexpr int kThreads = 64, kBlocks = 1, kUnits = 16;
  const int32_t* start;  // [units]
  uint32_t* words;       // [steps, units]   empty
  int64_t steps, units;
  int mistake;
};

FASTSEQ_KERNEL_FOR(Mailbox) mailbox(Mailbox a) {
  const int t = device::thread_index(), warp = t / 32, lane = t % 32;
  const int64_t block = device::block_index();
  const device::Shared<uint32_t> sums(0, 4);
  const auto slot = [&](int64_t step) {
    return a.words + (a.mistake == Mailbox::kReusedSlot ? step % 2 : step) * a.units;
  };
  for (int64_t step = 0; step < a.steps; ++step) {
    uint32_t sum = 0;
    for (int64_t i = warp * 64 + lane; i < a.units; i += 128) {
      uint32_t words[2];
      if (step == 0) {
        for (int j = 0; j < 2; ++j) words[j] = device::load(a.start + i + 32 * j);
      } else if (a.mistake == Mailbox::kPlainLoad) {
        const auto* const plain = reinterpret_cast<const int32_t*>(slot(step - 1)) + i;
        for (int j = 0; j < 2; ++j) words[j] = device::load(plain + 32 * j);
      } else {
        device::take(slot(step - (a.mistake != Mailbox::kOneStepAhead)) + i, 32, words);
      }
      sum += words[0] * static_cast<uint32_t>(i + 1) + words[1] * static_cast<uint32_t>(i + 33);
    }
    for (int mask = 16; mask; mask /= 2) sum += device::shuffle_xor(sum, mask);
    const int set = a.mistake == Mailbox::kOneSetOfSums ? 0 : static_cast<int>(step % 2) * 2;
    if (lane == 0) sums.set(set + warp, sum);
    if (a.mistake != Mailbox::kNoBarrier) device::sync();
    if (t >= Mailbox::kUnits) continue;
    if (a.mistake == Mailbox::kDroppedPublish && step == 2 && block == 1 && t == 3) continue;
    const auto unit = static_cast<uint32_t>(block * Mailbox::kUnits + t);
    const uint32_t h = (sums.get(set) + 5 * sums.get(set + 1)) * (2 * unit + 1) + unit;
    device::publish(slot(step) + unit, h >> 1);
  }
}

}  // namespace fastseq::cases
