// Instances of the kernels that run all steps in one launch, and the choice among them.
#include "cooperative.h"
#include "persistent.h"
#include "self_backward.cuh"
#include "self_forward.cuh"

namespace fastseq::cuda {
namespace {

constexpr int kFewUnits = 64, kManyUnits = 128;
constexpr int64_t kManySteps = 256;

const char* refusal(Cell cell, DType dtype, const Sequence& seq, int64_t hidden, bool projected) {
  if (projected) return "there is no such kernel with a projection";
  const Persistent kernel = persistent_kernel(cell, dtype, hidden);
  if (kernel == Persistent::kNone) return "there is no such kernel for this dtype and hidden_size";
  // Rows, and places within a step, are ints.
  if (seq.directions * seq.rows() > 0x7fffffff ||
      seq.directions * seq.batch * hidden * 4 > 0x7fffffff)
    return "the input is larger than the kernel's indices";
  return device::refusal_of_products();
}

template <class Call>
bool by_mailbox(DType dtype, const Call& a) {
  return persistent_kernel(a.cell, dtype, a.hidden) == Persistent::kMailbox;
}

template <class Call>
const char* plan_of(DType dtype, const Call& a, PersistentPlan& plan) {
  plan = {.table = table_size(a.seq), .stepless = false, .mailbox = {}};
  if (const char* error = refusal(a.cell, dtype, a.seq, a.hidden, a.weight_hr)) return error;
  if (!by_mailbox(dtype, a)) return nullptr;
  plan.stepless = a.seq.lengths || (a.seq.steps && a.seq.active(0) < a.seq.batch);
  return plan_mailbox(dtype, a, plan.mailbox);
}

// f(the number type, the cell's, the units that the kernel has room for)
template <class F>
const char* with_kernel(DType dtype, Cell cell, int64_t hidden, const F& f) {
  return with_types(dtype, cell, [&](auto type, auto kind) {
    using C = decltype(kind);
    constexpr DType kCode = sizeof(type) == 4 ? DType::kFloat : DType::kHalf;
    constexpr Cell kCell = C::kHasCellState  ? Cell::kLstm
                           : C::kSplitsGates ? Cell::kGru
                                             : Cell::kRnnTanh;
    constexpr int kMost = static_cast<int>(self_units(kCell, kCode));
    constexpr int kWide = kMost < kManyUnits ? kMost : kManyUnits;
    if (hidden <= kFewUnits) return f(type, kind, Constant<kFewUnits>{});
    if constexpr (kMost > kManyUnits) {
      if (hidden > kManyUnits) return f(type, kind, Constant<kMost>{});
    }
    return f(type, kind, Constant<kWide>{});
  });
}

template <class Block, class Arguments>
const char* launch_self(void (*kernel)(Block), const Arguments& args, void* stream) {
  if constexpr (Block::kShared > device::kSharedLimit) {
    if (const char* error = device::allow_shared(kernel, Block::kShared)) return error;
  }
  const int64_t blocks = args.seq.directions * divide_up(args.seq.batch, kSelfRows);
  const device::Grid grid{blocks, Block::kThreads, Block::kShared};
  return device::launch(kernel, grid, as_stream(stream), Block(args));
}

}  // namespace

const char* persistent_room(DType dtype, Cell cell, int64_t hidden, int64_t batch,
                            int64_t directions) {
  RecurrenceForward forward{};
  RecurrenceBackward backward{};
  forward.cell = backward.cell = cell;
  forward.hidden = backward.hidden = hidden;
  // More steps are more launches, and want no more room.
  forward.seq = backward.seq = {.steps = kManySteps,
                                .batch = batch,
                                .batch_sizes = nullptr,
                                .offsets = nullptr,
                                .reverse = false,
                                .order = nullptr,
                                .directions = directions};
  PersistentPlan plan;
  const char* const error = persistent_plan(dtype, forward, plan);
  return error ? error : persistent_plan(dtype, backward, plan);
}

const char* persistent_plan(DType dtype, const RecurrenceForward& a, PersistentPlan& plan) {
  return plan_of(dtype, a, plan);
}

const char* persistent_plan(DType dtype, const RecurrenceBackward& a, PersistentPlan& plan) {
  if (a.grad_gates || a.grad_cells) return "has no gradients of what forward saved";
  return plan_of(dtype, a, plan);
}

const char* persistent_forward(DType dtype, const RecurrenceForward& a, const PersistentPlan& plan,
                               int32_t* table, void* mailbox, void* stream) {
  if (const char* error = is_ragged(a.seq) ? write_table(a.seq, table, stream) : nullptr) {
    return error;
  }
  if (by_mailbox(dtype, a)) return run_mailbox(dtype, a, plan.mailbox, table, mailbox, stream);
  const SelfForward args{.seq = steps_of(a.seq, table),
                         .resets = resets_of(a.extra),
                         .hidden = a.hidden,
                         .pre = a.pre,
                         .h0 = a.h0,
                         .c0 = a.c0,
                         .weight_hh = a.weight_hh,
                         .bias_hn = a.bias_hn,
                         .y = a.y,
                         .h_n = a.h_n,
                         .c_n = a.c_n,
                         .gates = a.gates,
                         .cells = a.cells};
  return with_kernel(dtype, a.cell, a.hidden, [&](auto type, auto cell, auto units) {
    using S = decltype(type);
    using C = decltype(cell);
    return launch_self(self_forward_kernel<S, C, units.kValue>, args, stream);
  });
}

const char* persistent_backward(DType dtype, const RecurrenceBackward& a,
                                const PersistentPlan& plan, int32_t* table, void* mailbox,
                                void* stream) {
  if (const char* error = is_ragged(a.seq) ? write_table(a.seq, table, stream) : nullptr) {
    return error;
  }
  if (by_mailbox(dtype, a)) return run_mailbox(dtype, a, plan.mailbox, table, mailbox, stream);
  const SelfBackward args{.seq = steps_of(a.seq, table),
                          .resets = resets_of(a.extra),
                          .hidden = a.hidden,
                          .grad_y = a.grad_y,
                          .grad_h_n = a.grad_h_n,
                          .grad_c_n = a.grad_c_n,
                          .y = a.y,
                          .gates = a.gates,
                          .cells = a.cells,
                          .h0 = a.h0,
                          .c0 = a.c0,
                          .weight_hh = a.weight_hh,
                          .grad_pre = a.grad_pre,
                          .grad_aux = a.grad_aux,
                          .grad_h0 = a.grad_h0,
                          .grad_c0 = a.grad_c0,
                          .grad_reset_h = a.grad_reset_h,
                          .grad_reset_c = a.grad_reset_c};
  return with_kernel(dtype, a.cell, a.hidden, [&](auto type, auto cell, auto units) {
    using S = decltype(type);
    using C = decltype(cell);
    return launch_self(self_backward_kernel<S, C, units.kValue>, args, stream);
  });
}

}  // namespace fastseq::cuda
