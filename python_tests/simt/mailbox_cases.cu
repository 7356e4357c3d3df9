// The recurrence over many blocks, for test_mailbox.py.
#include "cases.h"
#include "mailbox_regions.h"

namespace fastseq {

namespace cases {
namespace {

// All launches use the same memory, and find in it what the last one left.
alignas(16) unsigned char mailbox_memory[1 << 23];

// What a test chooses beside the tensors.
struct Room {
  int64_t multiprocessors, chunk;

  template <class Call, class Plan, class Run>
  const char* operator()(Call a, const Plan& plan_of, const Run& run) const {
    cuda::MailboxPlan plan{};
    const int before =
        std::exchange(simt::machine.gpu.multiprocessors, static_cast<int>(multiprocessors));
    const char* error = plan_of(a, plan);
    if (!error) {
      if (chunk) plan.chunk = chunk;
      a.mailbox = mailbox_memory;
      const bool fits = plan.bytes() <= static_cast<int64_t>(sizeof mailbox_memory);
      error = fits ? run(a, plan, nullptr) : "a larger mailbox than the test has";
    }
    simt::machine.gpu.multiprocessors = before;
    return error;
  }
};

template <class S, class C, int kHidden, int kWarps>
const char* run(const cuda::MailboxForward& a, const Room& room) {
  return room(a, cuda::mailbox_forward_plan_of<S, C, kHidden, kWarps>,
              cuda::mailbox_forward_of<S, C, kHidden, kWarps>);
}
template <class S, class C, int kHidden, int kWarps>
const char* run(const cuda::MailboxBackward& a, const Room& room) {
  return room(a, cuda::mailbox_backward_plan_of<S, C, kHidden, kWarps>,
              cuda::mailbox_backward_of<S, C, kHidden, kWarps>);
}

// Blocks of four warps; of eight, as on a GPU, where a sequence is wider.
template <class S, class Call>
const char* of_cell(Cell cell, const Call& a, const Room& room) {
  return with_cell(cell, [&](auto c) { return run<S, decltype(c), 128, 4>(a, room); });
}
template <class Call>
const char* of_dtype(int dtype, int cell, Call& a, void* const* t, const int64_t* sizes) {
  const auto* const table = static_cast<const int32_t*>(t[0]);
  a.seq = {.steps = sizes[0],
           .batch = sizes[1],
           .rows = table ? table[sizes[0]] : sizes[0] * sizes[1],
           .table = table,
           .reverse = sizes[3] != 0,
           .directions = sizes[6]};
  a.resets = {.marks = static_cast<const bool*>(t[1]), .h = t[2], .c = t[3]};
  a.hidden = sizes[2];
  const Room room{sizes[4], sizes[5]};
  const auto kind = static_cast<Cell>(cell);
  if (dtype == 0) return of_cell<float>(kind, a, room);
  if (dtype == 2) return of_cell<Half>(kind, a, room);
  if (a.hidden > 128 && kind == Cell::kLstm) return run<BFloat16, LstmCell, 256, 8>(a, room);
  return of_cell<BFloat16>(kind, a, room);
}

}  // namespace
}  // namespace cases
}  // namespace fastseq

EXPORT const char* run_mailbox_forward(int dtype, int cell, void** t, const int64_t* sizes) {
  fastseq::cuda::MailboxForward a{};
  a.pre = t[4];
  a.h0 = t[5];
  a.c0 = t[6];
  a.weight_hh = t[7];
  a.bias_hn = t[8];
  a.y = t[9];
  a.h_n = t[10];
  a.c_n = t[11];
  a.gates = t[12];
  a.cells = t[13];
  return fastseq::cases::of_dtype(dtype, cell, a, t, sizes);
}

EXPORT const char* run_mailbox_backward(int dtype, int cell, void** t, const int64_t* sizes) {
  fastseq::cuda::MailboxBackward a{};
  a.grad_y = t[4];
  a.grad_h_n = t[5];
  a.grad_c_n = t[6];
  a.y = t[7];
  a.gates = t[8];
  a.cells = t[9];
  a.h0 = t[10];
  a.c0 = t[11];
  a.weight_hh = t[12];
  a.grad_pre = t[13];
  a.grad_aux = t[14];
  a.grad_h0 = t[15];
  a.grad_c0 = t[16];
  a.grad_reset_h = t[17];
  a.grad_reset_c = t[18];
  return fastseq::cases::of_dtype(dtype, cell, a, t, sizes);
}

// Of the kernel for H to 1,024: blocks, groups, tiles, steps of a launch, bytes.
EXPORT const char* mailbox_numbers(int64_t steps, int64_t batch, int64_t hidden, int64_t room,
                                   int64_t directions, int64_t* numbers) {
  using namespace fastseq;
  cuda::MailboxPlan plan{};
  const cuda::TableOfSteps seq{.steps = steps,
                               .batch = batch,
                               .rows = steps * batch,
                               .table = nullptr,
                               .reverse = false,
                               .directions = directions};
  const char* const error =
      cuda::mailbox_plan<cuda::MailboxShape<BFloat16, 4, false, 1024, 8>>(seq, hidden, room, plan);
  const int64_t found[] = {plan.blocks, plan.groups, plan.tiles, plan.chunk, plan.bytes()};
  std::copy(std::begin(found), std::end(found), numbers);
  return error;
}
