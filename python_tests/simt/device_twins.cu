// The words and the products of the machine's tests, for nvcc, and the widest kernels of a block
// that keeps its weights in registers: test_cuda_compile.py compiles this, and nothing runs it.
#include "../../csrc/kernels/cuda/cooperative.h"
#include "../../csrc/kernels/cuda/self_backward.cuh"
#include "../../csrc/kernels/cuda/self_forward.cuh"
#include "mailbox.cuh"
#include "tile.cuh"

namespace fastseq::cuda {

template __global__ void self_forward_kernel(const SelfForwardBlock<BFloat16, LstmCell, 128>);
template __global__ void self_backward_kernel(const SelfBackwardBlock<BFloat16, LstmCell, 128>);
template __global__ void self_backward_kernel(const SelfBackwardBlock<float, LstmCell, 96>);

}  // namespace fastseq::cuda

namespace fastseq::cases {

template __global__ void on_tile<BFloat16>(Tile);
template __global__ void on_tile<Half>(Tile);
template __global__ void on_tile<device::Tf32>(Tile);

// Two teams of warps, each with a barrier of its own.
FASTSEQ_KERNEL two_teams(int32_t* p) {
  const device::Shared<int32_t> s(0, 128);
  const int t = device::thread_index();
  s.set(t, t);
  device::sync(1 + t / 64, 64);
  device::store(p + device::thread(), s.get(t ^ 63));
}

const char* start(const Mailbox& a, device::Stream stream) {
  if (const char* error = device::allow_shared(mailbox, 64 * 1024)) return error;
  int64_t blocks = 0;
  if (const char* error = device::room(mailbox, Mailbox::kThreads, 64 * 1024, blocks)) return error;
  return device::launch_together(mailbox, {blocks, Mailbox::kThreads, 64 * 1024}, stream, a);
}

}  // namespace fastseq::cases
