// The trio ReLU -> LRN -> max-pool on CUDA; with FASTSEQ_SIMT, as lrn_cuda.cpp.
#include "../kernels/cuda/images.h"
#include "images_call.h"
#include "images_schema.h"
#include "on_device.h"

namespace fastseq::ops {
namespace {

PooledResult relu_lrn_max_pool2d(const Tensor& x, int64_t size, double alpha, double beta, double k,
                                 const Pair& kernel_size, const Pair& stride, const Pair& padding,
                                 const Pair& dilation, bool ceil_mode, bool save) {
  TrioCall call(x, size, alpha, beta, k, kernel_size, stride, padding, dilation, ceil_mode, save);
  const OnDevice on(call.x);
  check(cuda::trio_forward(dtype_of(call.x), call.args, on.stream));
  return call.result();
}

Tensor relu_lrn_max_pool2d_backward(const Tensor& grad_y, const Tensor& offsets, const Tensor& x,
                                    int64_t size, double alpha, double beta, double k,
                                    const Pair& kernel_size, const Pair& stride,
                                    const Pair& padding, const Pair& dilation) {
  TrioBackwardCall call(grad_y, offsets, x, size, alpha, beta, k, kernel_size, stride, padding,
                        dilation);
  const OnDevice on(call.x);
  check(cuda::trio_backward(dtype_of(call.x), call.args, on.stream));
  return call.grad_x;
}

}  // namespace
}  // namespace fastseq::ops

#if defined(FASTSEQ_SIMT)
STABLE_TORCH_LIBRARY_FRAGMENT(fastseq_simt, m) {
  m.def(fastseq::ops::kTrioSchema);
  m.def(fastseq::ops::kTrioBackwardSchema);
}
STABLE_TORCH_LIBRARY_IMPL(fastseq_simt, CPU, m) {
#else
STABLE_TORCH_LIBRARY_IMPL(fastseq, CUDA, m) {
#endif
  m.impl("relu_lrn_max_pool2d", TORCH_BOX(&fastseq::ops::relu_lrn_max_pool2d));
  m.impl("relu_lrn_max_pool2d_backward", TORCH_BOX(&fastseq::ops::relu_lrn_max_pool2d_backward));
}
