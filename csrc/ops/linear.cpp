// x W^T on the CPU, row by row the same bits whatever the batch.
#include "../kernels/cpu/linear.h"

#include "recurrence_call.h"
#include "team_run.h"

namespace fastseq::ops {
namespace {

// weight [M, K] and x [.., K], or with `turned` x [.., M] and y = x W.
Tensor linear(const Tensor& x_, const Tensor& weight_, bool turned) {
  const Tensor x = dense(x_), weight = dense(weight_);
  FASTSEQ_CHECK(weight.dim() == 2 && x.dim() >= 1, "fastseq::linear: weight should be 2-D, got ",
                shape_string(weight));
  const int64_t M = weight.size(0), K = weight.size(1), last = x.dim() - 1;
  const int64_t inner = turned ? M : K, outputs = turned ? K : M;
  std::vector<int64_t> shape(x.dim());
  for (int64_t i = 0; i < last; ++i) shape[i] = x.size(i);
  shape[last] = inner;
  check_shape(x, shape, weight, "x");
  shape[last] = outputs;
  const Tensor y = new_tensor(x, shape);
  const int64_t rows = inner ? x.numel() / inner : y.numel() / (outputs ? outputs : 1);
  const LinearArguments args{rows,
                             inner,
                             outputs,
                             x.const_data_ptr(),
                             weight.const_data_ptr(),
                             turned ? 1 : K,
                             turned ? K : 1,
                             y.mutable_data_ptr()};
  const LinearKernel& kernel = linear_kernel(dtype_of(x));
  const int64_t work = rows * inner * outputs / kLeastThreadWork;
  const int64_t most = torch::stable::get_num_threads();
  run_team(TeamKernel<LinearArguments>{kernel.team_bytes, kernel.member_bytes, kernel.run}, args,
           work < 1      ? 1
           : work < most ? work
                         : most);
  return y;
}

}  // namespace
}  // namespace fastseq::ops

STABLE_TORCH_LIBRARY_IMPL(fastseq, CPU, m) { m.impl("linear", TORCH_BOX(&fastseq::ops::linear)); }
