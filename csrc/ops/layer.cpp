// A whole recurrent layer on the CPU: input product, time loop, and all gradients.
#include "layer_call.h"
#include "team_run.h"

namespace fastseq::ops {
namespace {

ForwardResult layer(const Tensor& x, const Tensor& h0, const OptionalTensor& c0,
                    const Tensor& weight_ih, const Tensor& weight_hh, const OptionalTensor& bias_ih,
                    const OptionalTensor& bias_hh, const OptionalTensor& weight_hr,
                    const OptionalTensor& batch_sizes, int64_t cell, bool reverse, bool save) {
  const LayerForwardCall call(x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr,
                              batch_sizes, cell, reverse, save);
  run_team(forward_kernel(dtype_of(h0)), call.args);
  return call.result();
}

LayerBackwardResult layer_backward(const OptionalTensor& grad_y, const OptionalTensor& grad_h_n,
                                   const OptionalTensor& grad_c_n, const OptionalTensor& grad_gates,
                                   const OptionalTensor& grad_cells, const Tensor& x,
                                   const Tensor& y, const Tensor& gates, const Tensor& cells,
                                   const Tensor& h0, const OptionalTensor& c0,
                                   const Tensor& weight_ih, const Tensor& weight_hh,
                                   const OptionalTensor& weight_hr,
                                   const OptionalTensor& batch_sizes, int64_t cell, bool reverse,
                                   int64_t wanted) {
  const LayerBackwardCall call(grad_y, grad_h_n, grad_c_n, grad_gates, grad_cells, x, y, gates,
                               cells, h0, c0, weight_ih, weight_hh, weight_hr, batch_sizes, cell,
                               reverse, wanted);
  run_team(backward_kernel(dtype_of(y)), call.args);
  return call.result();
}

}  // namespace
}  // namespace fastseq::ops

STABLE_TORCH_LIBRARY_IMPL(fastseq, CompositeExplicitAutograd, m) {
  m.impl("empty_cache", TORCH_BOX(&fastseq::ops::drop_kept));
}

STABLE_TORCH_LIBRARY_IMPL(fastseq, CPU, m) {
  m.impl("layer", TORCH_BOX(&fastseq::ops::layer));
  m.impl("layer_backward", TORCH_BOX(&fastseq::ops::layer_backward));
}
