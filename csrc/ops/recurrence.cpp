// The recurrence on the CPU, its input product made elsewhere.
#include "recurrence_call.h"
#include "team_run.h"

namespace fastseq::ops {
namespace {

ForwardResult recurrence(const Tensor& pre, const Tensor& h0, const OptionalTensor& c0,
                         const Tensor& weight_hh, const OptionalTensor& bias_hn,
                         const OptionalTensor& weight_hr, const OptionalTensor& batch_sizes,
                         int64_t cell, bool reverse, bool save) {
  const ForwardCall call(pre, h0, c0, weight_hh, bias_hn, weight_hr, batch_sizes, cell, reverse,
                         save);
  run_team(forward_kernel(dtype_of(pre)), call.args);
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
  run_team(backward_kernel(dtype_of(y)), call.args);
  return call.result();
}

}  // namespace
}  // namespace fastseq::ops

STABLE_TORCH_LIBRARY_IMPL(fastseq, CPU, m) {
  m.impl("recurrence", TORCH_BOX(&fastseq::ops::recurrence));
  m.impl("recurrence_backward", TORCH_BOX(&fastseq::ops::recurrence_backward));
}
