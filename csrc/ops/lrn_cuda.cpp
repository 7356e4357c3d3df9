// Local response normalization on CUDA.
//
// Built with FASTSEQ_SIMT it registers the same code as CPU ops of the library fastseq_simt, as
// recurrence_cuda.cpp does.
#include "../kernels/cuda/images.h"
#include "images_call.h"
#include "images_schema.h"
#include "on_device.h"

namespace fastseq::ops {
namespace {

Tensor local_response_norm(const Tensor& x, int64_t size, double alpha, double beta, double k,
                           bool within_channel) {
  LrnCall call(x, size, alpha, beta, k, within_channel);
  const OnDevice on(call.x);
  check(cuda::lrn_forward(dtype_of(call.x), call.args, on.stream));
  return call.y;
}

Tensor local_response_norm_backward(const Tensor& grad_y, const Tensor& x, int64_t size,
                                    double alpha, double beta, double k, bool within_channel) {
  LrnBackwardCall call(grad_y, x, size, alpha, beta, k, within_channel);
  const OnDevice on(call.x);
  check(cuda::lrn_backward(dtype_of(call.x), call.args, on.stream));
  return call.grad_x;
}

}  // namespace
}  // namespace fastseq::ops

#if defined(FASTSEQ_SIMT)
STABLE_TORCH_LIBRARY_FRAGMENT(fastseq_simt, m) {
  m.def(fastseq::ops::kLrnSchema);
  m.def(fastseq::ops::kLrnBackwardSchema);
}
STABLE_TORCH_LIBRARY_IMPL(fastseq_simt, CPU, m) {
#else
STABLE_TORCH_LIBRARY_IMPL(fastseq, CUDA, m) {
#endif
  m.impl("local_response_norm", TORCH_BOX(&fastseq::ops::local_response_norm));
  m.impl("local_response_norm_backward", TORCH_BOX(&fastseq::ops::local_response_norm_backward));
}
