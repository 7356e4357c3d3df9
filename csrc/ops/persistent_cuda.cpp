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

// Where a kernel reads what it cannot have from the host: that of a dense batch is empty.
Tensor table_of(const Tensor& like, const Sequence& seq) {
  return new_tensor(like, {cuda::persistent_table(seq)}, ScalarType::Int);
}

ForwardResult persistent(const Tensor& pre, const Tensor& h0, const OptionalTensor& c0,
                         const Tensor& weight_hh, const OptionalTensor& bias_hn,
                         const OptionalTensor& weight_hr, const OptionalTensor& batch_sizes,
                         int64_t cell, bool reverse, bool save) {
  const ForwardCall call(pre, h0, c0, weight_hh, bias_hn, weight_hr, batch_sizes, cell, reverse,
                         save);
  const OnDevice on(call.pre);
  const Tensor table = table_of(call.pre, call.args.seq);
  check(cuda::persistent_forward(dtype_of(call.pre), call.args, table.mutable_data_ptr<int32_t>(),
                                 on.stream));
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
  const Tensor table = table_of(call.y, call.args.seq);
  check(cuda::persistent_backward(dtype_of(call.y), call.args, table.mutable_data_ptr<int32_t>(),
                                  on.stream));
  return call.result();
}

}  // namespace
}  // namespace fastseq::ops

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
