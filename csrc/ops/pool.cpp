// Max-pooling on the CPU.
#include "images_run.h"

namespace fastseq::ops {
namespace {

PooledResult max_pool2d(const Tensor& x, Pair kernel_size, Pair stride, Pair padding, Pair dilation,
                        bool ceil_mode, bool save) {
  const PoolCall call(x, kernel_size, stride, padding, dilation, ceil_mode, save);
  advise_huge_pages(call.out->y);
  run_items(images_kernels(dtype_of(x)).pool_forward, call.args);
  return call.result();
}

Tensor max_pool2d_backward(const Tensor& grad_y, const Tensor& offsets, int64_t height,
                           int64_t width, bool channels_last, Pair kernel_size, Pair stride,
                           Pair padding, Pair dilation) {
  const PoolBackwardCall call(grad_y, offsets, height, width, channels_last, kernel_size, stride,
                              padding, dilation);
  advise_huge_pages(call.grad_x);
  run_items(images_kernels(dtype_of(grad_y)).pool_backward, call.args);
  return call.grad_x;
}

}  // namespace
}  // namespace fastseq::ops

STABLE_TORCH_LIBRARY_IMPL(fastseq, CPU, m) {
  m.impl("max_pool2d", TORCH_BOX(&fastseq::ops::max_pool2d));
  m.impl("max_pool2d_backward", TORCH_BOX(&fastseq::ops::max_pool2d_backward));
}
