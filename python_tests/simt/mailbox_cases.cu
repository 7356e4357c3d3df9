// The recurrence over many blocks, for test_mailbox.py.
#include "../../csrc/kernels/cuda/mailbox_forward.cuh"
#include "cases.h"

namespace fastseq {

template <class Call>
void add_mailbox(const Call& a, const cuda::MailboxChunk& c, int64_t slot,
                 std::vector<simt::Region>& regions) {
  add_region(regions, "mailbox", c.words, slot * (c.count + 1), sizeof(uint32_t), true);
  add_region(regions, "kept", c.kept, 2 * a.batch * a.hidden, sizeof(float), true);
  add_region(regions, "offsets", a.offsets, a.steps + 1, sizeof(int32_t), false);
}

namespace cases {
namespace {

int64_t rows_of(const int32_t* offsets, int64_t steps, int64_t batch) {
  return offsets ? offsets[steps] : steps * batch;
}

}  // namespace
}  // namespace cases

template <class S, class C, int kHidden, int kWarps>
void add_regions(const cuda::ForwardBlock<S, C, kHidden, kWarps>& a,
                 std::vector<simt::Region>& regions) {
  const int64_t state = a.batch * a.hidden;
  const int64_t all = cases::rows_of(a.offsets, a.steps, a.batch) * a.hidden;
  const auto add = [&](const char* name, const void* p, int64_t elements, bool writable,
                       int64_t bytes = sizeof(S)) {
    add_region(regions, name, p, elements, bytes, writable);
  };
  add("pre", a.pre, all * C::kGates, false);
  add("h0", a.h0, state, false);
  add("c0", a.c0, state, false);
  add("weight_hh", a.weight_hh, C::kGates * a.hidden * a.hidden, false);
  add("bias_hn", a.bias_hn, a.hidden, false);
  add("y", a.y, all, true);
  add("h_n", a.h_n, state, true);
  add("c_n", a.c_n, state, true);
  add("gates", a.gates, all * C::kCached, true);
  add("cells", a.cells, all, true, sizeof(float));
  using Shape = typename cuda::ForwardBlock<S, C, kHidden, kWarps>::Shape;
  const int64_t tiles = cuda::divide_up(a.batch, cuda::kMailboxRows);
  add_mailbox(a, a.chunk, tiles * Shape::pairs(a.hidden) * Shape::kPairWords, regions);
}

namespace cases {
namespace {

// What a test chooses beside the tensors.
struct Room {
  int64_t multiprocessors, chunk;
};

// All launches use the same memory, and find in it what the last one left.
alignas(16) unsigned char mailbox_memory[1 << 22];

template <class Call, class Plan, class Run>
const char* with_plan(Call a, const Room& room, const Plan& plan_of, const Run& run) {
  cuda::MailboxPlan plan{};
  const int before = simt::machine.gpu.multiprocessors;
  simt::machine.gpu.multiprocessors = static_cast<int>(room.multiprocessors);
  const char* error = plan_of(a, plan);
  if (!error) {
    if (room.chunk) plan.chunk = room.chunk;
    if (plan.bytes() > static_cast<int64_t>(sizeof mailbox_memory)) return "too large a test";
    a.mailbox = mailbox_memory;
    error = run(a, plan);
  }
  simt::machine.gpu.multiprocessors = before;
  return error;
}

template <class S, class C, int kHidden, int kWarps>
const char* forward(const cuda::MailboxForward& a, const Room& room) {
  return with_plan(
      a, room, cuda::mailbox_forward_plan<S, C, kHidden, kWarps>,
      [](const auto& call, const cuda::MailboxPlan& plan) {
        return cuda::mailbox_forward<S, C, kHidden, kWarps>(call, plan, nullptr);
      });
}

template <class S>
const char* forward_of(Cell cell, const cuda::MailboxForward& a, const Room& room) {
  return with_cell(cell, [&](auto c) { return forward<S, decltype(c), 128, 4>(a, room); });
}

}  // namespace
}  // namespace cases
}  // namespace fastseq

EXPORT const char* run_mailbox_forward(int dtype, int cell, void** t, int64_t steps, int64_t batch,
                                       int64_t hidden, bool reverse, int64_t multiprocessors,
                                       int64_t chunk) {
  using namespace fastseq;
  cuda::MailboxForward a{};
  a.pre = t[0];
  a.h0 = t[1];
  a.c0 = t[2];
  a.weight_hh = t[3];
  a.bias_hn = t[4];
  a.offsets = static_cast<const int32_t*>(t[5]);
  a.y = t[6];
  a.h_n = t[7];
  a.c_n = t[8];
  a.gates = t[9];
  a.cells = t[10];
  a.steps = steps;
  a.batch = batch;
  a.hidden = hidden;
  a.reverse = reverse;
  const auto kind = static_cast<Cell>(cell);
  const cases::Room room{multiprocessors, chunk};
  if (dtype == 0) return cases::forward_of<float>(kind, a, room);
  if (dtype == 2) return cases::forward_of<Half>(kind, a, room);
  if (hidden <= 128) return cases::forward_of<BFloat16>(kind, a, room);
  return cases::forward<BFloat16, LstmCell, 256, 8>(a, room);
}
