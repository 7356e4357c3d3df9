// Max-pooling on CUDA; with FASTSEQ_SIMT, as lrn_cuda.cpp.
#include "../kernels/cuda/images.h"
#include "images_call.h"
#include "images_schema.h"
#include "on_device.h"

namespace fastseq::ops {
namespace {

PooledResult max_pool2d(const Tensor& x, const Pair& kernel_size, const Pair& stride,
                        const Pair& padding, const Pair& dilation, bool ceil_mode, bool save) {
  PoolCall call(x, kernel_size, stride, padding, dilation, ceil_mode, save);
  const OnDevice on(call.x);
  check(cuda::pool_forward(dtype_of(call.x), call.args, on.stream));
  return call.result();
}

Tensor max_pool2d_backward(const Tensor& grad_y, const Tensor& offsets, int64_t height,
                           int64_t width, bool channels_last, const Pair& kernel_size,
                           const Pair& stride, const Pair& padding, const Pair& dilation) {
  PoolBackwardCall call(grad_y, offsets, height, width, channels_last, kernel_size, stride, padding,
                        dilation);
  const OnDevice on(call.grad_y);
  check(cuda::pool_backward(dtype_of(call.grad_y), call.args, on.stream));
  return call.grad_x;
}

}  // namespace
}  // namespace fastseq::ops

#if defined(FASTSEQ_SIMT)
STABLE_TORCH_LIBRARY_FRAGMENT(fastseq_simt, m) {
  m.def(fastseq::ops::kPoolSchema);
  m.def(fastseq::ops::kPoolBackwardSchema);
}
STABLE_TORCH_LIBRARY_IMPL(fastseq_simt, CPU, m) {
#else
STABLE_TORCH_LIBRARY_IMPL(fastseq, CUDA, m) {
#endif
  m.impl("max_pool2d", TORCH_BOX(&fastseq::ops::max_pool2d));
  m.impl("max_pool2d_backward", TORCH_BOX(&fastseq::ops::max_pool2d_backward));
}
