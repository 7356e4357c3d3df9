// The mailbox's kernels at the sizes that matter, for nvcc: test_cuda_mailbox.py compiles this, and
// nothing runs it.
#include "../../csrc/kernels/cuda/mailbox_backward.cuh"
#include "../../csrc/kernels/cuda/mailbox_forward.cuh"

namespace fastseq::cuda {

#define BOTH_WAYS(S, C, H)                                                               \
  template __global__ void mailbox_forward_kernel<S, C, H, 8>(ForwardBlock<S, C, H, 8>); \
  template __global__ void mailbox_backward_kernel<S, C, H, 8>(BackwardBlock<S, C, H, 8>)

BOTH_WAYS(BFloat16, LstmCell, 256);
BOTH_WAYS(BFloat16, LstmCell, 512);
BOTH_WAYS(BFloat16, LstmCell, 1024);
BOTH_WAYS(Half, GruCell, 1024);
BOTH_WAYS(BFloat16, RnnReluCell, 1024);
BOTH_WAYS(float, LstmCell, 512);

// What the library will call.
const char* both(const MailboxForward& a, const MailboxBackward& b, MailboxPlan& plan,
                 device::Stream stream) {
  const char* error = mailbox_forward_plan<BFloat16, RnnReluCell>(a, plan);
  if (!error) error = mailbox_forward<BFloat16, RnnReluCell>(a, plan, stream);
  if (!error) error = mailbox_backward_plan<BFloat16, RnnReluCell>(b, plan);
  return error ? error : mailbox_backward<BFloat16, RnnReluCell>(b, plan, stream);
}

}  // namespace fastseq::cuda
