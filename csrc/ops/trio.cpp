// ReLU -> LRN -> max-pool in one pass on the CPU.
#include "images_run.h"

namespace fastseq::ops {
namespace {

PooledResult relu_lrn_max_pool2d(const Tensor& x, int64_t size, double alpha, double beta, double k,
                                 Pair kernel_size, Pair stride, Pair padding, Pair dilation,
                                 bool ceil_mode, bool save) {
  const TrioCall call(x, size, alpha, beta, k, kernel_size, stride, padding, dilation, ceil_mode,
                      save);
  advise_huge_pages(call.out->y);
  run_items(images_kernels(dtype_of(x)).trio_forward, call.args);
  return call.result();
}

Tensor relu_lrn_max_pool2d_backward(const Tensor& grad_y, const Tensor& offsets, const Tensor& x,
                                    int64_t size, double alpha, double beta, double k,
                                    Pair kernel_size, Pair stride, Pair padding, Pair dilation) {
  const TrioBackwardCall call(grad_y, offsets, x, size, alpha, beta, k, kernel_size, stride,
                              padding, dilation);
  advise_huge_pages(call.grad_x);
  run_items(images_kernels(dtype_of(x)).trio_backward, call.args);
  return call.grad_x;
}

}  // namespace
}  // namespace fastseq::ops

STABLE_TORCH_LIBRARY_IMPL(fastseq, CPU, m) {
  m.impl("relu_lrn_max_pool2d", TORCH_BOX(&fastseq::ops::relu_lrn_max_pool2d));
  m.impl("relu_lrn_max_pool2d_backward", TORCH_BOX(&fastseq::ops::relu_lrn_max_pool2d_backward));
}
