// The recurrence on CUDA with all steps in one launch, on the current stream, without a word to
// the host, so that a graph can capture it.
//
// Built with FASTSEQ_SIMT it registers the same code as CPU ops of the library fastseq_simt.
#include "../kernels/cuda/persistent.h"
#include "on_device.h"
#include "recurrence_call.h"
#include "recurrence_schema.h"

namespace fastseq::ops {
namespace {

// What a launch has on the device beside its tensors, for as long as the stream's work takes.
struct Memory {
  Memory(const Tensor& like, const cuda::PersistentPlan& plan)
      : table(new_tensor(like, {plan.table}, ScalarType::Int)),
        mailbox(new_tensor(like, {plan.mailbox.bytes()}, ScalarType::Byte)) {}
  Tensor table;  // where a kernel reads what it cannot have from the host
  Tensor mailbox;
};

ForwardResult persistent(const Tensor& pre, const Tensor& h0, const OptionalTensor& c0,
                         const Tensor& weight_hh, const OptionalTensor& bias_hn,
                         const OptionalTensor& weight_hr, const OptionalTensor& batch_sizes,
                         int64_t cell, bool reverse, bool save) {
  const ForwardCall call(pre, h0, c0, weight_hh, bias_hn, weight_hr, batch_sizes, cell, reverse,
                         save);
  const OnDevice on(call.pre);
  const DType dtype = dtype_of(call.pre);
  cuda::PersistentPlan plan{};
  check(cuda::persistent_plan(dtype, call.args, plan));
  const Memory memory(call.pre, plan);
  check(cuda::persistent_forward(dtype, call.args, plan, memory.table.mutable_data_ptr<int32_t>(),
                                 memory.mailbox.mutable_data_ptr(), on.stream));
  return call.result();
}

BackwardResult persistent_backward(const OptionalTensor& grad_y, const OptionalTensor& grad_h_n,
                                   const OptionalTensor& grad_c_n, const OptionalTensor& grad_gates,
                                   const OptionalTensor& grad_cells, const Tensor& y,
                                   const Tensor& gates, const Tensor& cells, const Tensor& h0,
                                   const OptionalTensor& c0, const Tensor& weight_hh,
                                   const OptionalTensor& weight_hr,
                                   const OptionalTensor& batch_sizes, int64_t cell, bool reverse) {
  const BackwardCall call(grad_y, grad_h_n, grad_c_n, grad_gates, grad_cells, y, gates, cells, h0,
                          c0, weight_hh, weight_hr, batch_sizes, cell, reverse);
  const OnDevice on(call.y);
  const DType dtype = dtype_of(call.y);
  cuda::PersistentPlan plan{};
  check(cuda::persistent_plan(dtype, call.args, plan));
  const Memory memory(call.y, plan);
  check(cuda::persistent_backward(dtype, call.args, plan, memory.table.mutable_data_ptr<int32_t>(),
                                  memory.mailbox.mutable_data_ptr(), on.stream));
  return call.result();
}

}  // namespace
}  // namespace fastseq::ops

// Whether the current device has room for the kernel of such layers; a plain function, which
// neither a compiler nor a mode of dispatch follows. itemsize: bytes of a number, 2 or 4.
extern "C" __attribute__((visibility("default"))) int fastseq_persistent_room(int cell,
                                                                              int itemsize,
                                                                              int64_t hidden,
                                                                              int64_t batch) {
  const auto dtype = itemsize == 2 ? fastseq::DType::kHalf : fastseq::DType::kFloat;
  return !fastseq::cuda::persistent_room(dtype, static_cast<fastseq::Cell>(cell), hidden, batch);
}

#if defined(FASTSEQ_SIMT)
STABLE_TORCH_LIBRARY_FRAGMENT(fastseq_simt, m) {
  m.def(fastseq::ops::kPersistentSchema);
  m.def(fastseq::ops::kPersistentBackwardSchema);
}
STABLE_TORCH_LIBRARY_IMPL(fastseq_simt, CPU, m) {
#else
STABLE_TORCH_LIBRARY_IMPL(fastseq, CUDA, m) {
#endif
  m.impl("recurrence_persistent", TORCH_BOX(&fastseq::ops::persistent));
  m.impl("recurrence_persistent_backward", TORCH_BOX(&fastseq::ops::persistent_backward));
}
