// The recurrence on the CPU: pack the weights once, then run slices of the batch side by side.
#include "../kernels/cpu/recurrence.h"

#include "../kernels/cpu/plan.h"
#include "recurrence_call.h"

namespace fastseq::ops {
namespace {

constexpr int64_t kAlign = 64;
constexpr int64_t kLeastPackedBytes = 1 << 16;  // worth waking threads for

// Batch rows [bounds[i], bounds[i + 1]) for slice i, of about equal work. Rows are sorted by
// length, so for a packed batch the slices differ in rows and agree in steps.
std::vector<int64_t> slice_bounds(const Sequence& seq, int64_t slices) {
  std::vector<int64_t> bounds(slices + 1, seq.batch);
  bounds[0] = 0;
  if (!seq.batch_sizes) {
    for (int64_t i = 1; i < slices; ++i) bounds[i] = seq.batch * i / slices;
    return bounds;
  }
  int64_t done = 0, next = 1, length = seq.steps;
  for (int64_t row = 0; row < seq.batch && next < slices; ++row) {
    while (length > 0 && seq.batch_sizes[length - 1] <= row) --length;
    done += length;
    if (done * slices >= seq.rows() * next) bounds[next++] = row + 1;
  }
  return bounds;
}

Tensor workspace(int64_t bytes) { return torch::stable::empty({bytes + kAlign}, ScalarType::Byte); }

char* aligned(const Tensor& t) {
  const auto p = reinterpret_cast<uintptr_t>(t.mutable_data_ptr());
  return reinterpret_cast<char*>((p + kAlign - 1) / kAlign * kAlign);
}

int64_t rounded(int64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

// Packs, then runs. The two phases are parallel regions of their own; within a slice nothing waits.
template <class Args, class Pack, class Run, class ScratchBytes>
void run_sliced(const Args& args, const RecurrenceShape& shape, int64_t panels,
                int64_t packed_bytes, ScratchBytes scratch_bytes, Pack pack, Run run) {
  if (args.seq.batch == 0) return;
  const RecurrencePlan plan =
      plan_recurrence(args.cell, args.seq.rows(), args.seq.batch, args.hidden, args.state,
                      torch::stable::get_num_threads());
  const std::vector<int64_t> bounds = slice_bounds(args.seq, plan.slices);
  std::vector<int64_t> scratch_at(plan.slices + 1, rounded(packed_bytes));
  for (int64_t i = 0; i < plan.slices; ++i) {
    scratch_at[i + 1] = scratch_at[i] + rounded(scratch_bytes(shape, bounds[i + 1] - bounds[i]));
  }
  const Tensor memory = workspace(scratch_at.back());
  char* const base = aligned(memory);
  const auto pack_range = [&](int64_t first, int64_t last) { pack(args, first, last, base); };
  const auto run_range = [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      if (bounds[i] < bounds[i + 1]) {
        run(args, bounds[i], bounds[i + 1], base, base + scratch_at[i]);
      }
    }
  };
  if (packed_bytes < kLeastPackedBytes) {
    pack_range(0, panels);
  } else {
    torch::stable::parallel_for(0, panels, 1, pack_range);
  }
  if (plan.slices == 1) {
    run_range(0, 1);
  } else {
    torch::stable::parallel_for(0, plan.slices, 1, run_range);
  }
}

ForwardResult recurrence(const Tensor& pre, const Tensor& h0, const OptionalTensor& c0,
                         const Tensor& weight_hh, const OptionalTensor& bias_hn,
                         const OptionalTensor& weight_hr, const OptionalTensor& batch_sizes,
                         int64_t cell, bool reverse, bool save) {
  const ForwardCall call(pre, h0, c0, weight_hh, bias_hn, weight_hr, batch_sizes, cell, reverse,
                         save);
  const RecurrenceKernels& k = recurrence_kernels(dtype_of(pre));
  const RecurrenceShape shape{call.args.cell, call.args.hidden, call.args.state,
                              call.weight_hr.has_value()};
  run_sliced(call.args, shape, k.forward_panels(shape), k.forward_packed_bytes(shape),
             k.forward_scratch_bytes, k.forward_pack, k.forward_run);
  return call.result();
}

BackwardResult recurrence_backward(const OptionalTensor& grad_y, const OptionalTensor& grad_h_n,
                                   const OptionalTensor& grad_c_n, const OptionalTensor& grad_gates,
                                   const OptionalTensor& grad_cells, const Tensor& y,
                                   const Tensor& gates, const Tensor& cells, const Tensor& h0,
                                   const OptionalTensor& c0, const Tensor& weight_hh,
                                   const OptionalTensor& weight_hr,
                                   const OptionalTensor& batch_sizes, int64_t cell, bool reverse) {
  const BackwardCall call(grad_y, grad_h_n, grad_c_n, grad_gates, grad_cells, y, gates, cells, h0,
                          c0, weight_hh, weight_hr, batch_sizes, cell, reverse);
  const RecurrenceKernels& k = recurrence_kernels(dtype_of(y));
  const RecurrenceShape shape{call.args.cell, call.args.hidden, call.args.state,
                              call.weight_hr.has_value()};
  run_sliced(call.args, shape, k.backward_panels(shape), k.backward_packed_bytes(shape),
             k.backward_scratch_bytes, k.backward_pack, k.backward_run);
  return call.result();
}

}  // namespace
}  // namespace fastseq::ops

STABLE_TORCH_LIBRARY_IMPL(fastseq, CPU, m) {
  m.impl("recurrence", TORCH_BOX(&fastseq::ops::recurrence));
  m.impl("recurrence_backward", TORCH_BOX(&fastseq::ops::recurrence_backward));
}
