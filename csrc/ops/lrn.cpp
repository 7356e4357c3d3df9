// Local response normalization on the CPU.
#include "images_run.h"

namespace fastseq::ops {
namespace {

Tensor local_response_norm(const Tensor& x, int64_t size, double alpha, double beta, double k,
                           bool within_channel) {
  const LrnCall call(x, size, alpha, beta, k, within_channel);
  advise_huge_pages(call.y);
  const ImagesKernels& kernels = images_kernels(dtype_of(x));
  run_items(within_channel ? kernels.lrn_within_forward : kernels.lrn_forward, call.args);
  return call.y;
}

Tensor local_response_norm_backward(const Tensor& grad_y, const Tensor& x, int64_t size,
                                    double alpha, double beta, double k, bool within_channel) {
  const LrnBackwardCall call(grad_y, x, size, alpha, beta, k, within_channel);
  advise_huge_pages(call.grad_x);
  const ImagesKernels& kernels = images_kernels(dtype_of(x));
  run_items(within_channel ? kernels.lrn_within_backward : kernels.lrn_backward, call.args);
  return call.grad_x;
}

}  // namespace
}  // namespace fastseq::ops

STABLE_TORCH_LIBRARY_IMPL(fastseq, CPU, m) {
  m.impl("local_response_norm", TORCH_BOX(&fastseq::ops::local_response_norm));
  m.impl("local_response_norm_backward", TORCH_BOX(&fastseq::ops::local_response_norm_backward));
}
