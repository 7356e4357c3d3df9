// The device and the stream that a CUDA op launches on, and how its errors reach Python.
#pragma once

#include "checks.h"

namespace fastseq::ops {

#if defined(FASTSEQ_SIMT)
struct OnDevice {
  explicit OnDevice(const Tensor&) {}
  void* stream = nullptr;
};
#else
// Makes the tensor's device the current one and finds its stream.
struct OnDevice {
  explicit OnDevice(const Tensor& t) : guard(t.get_device_index()) {
    if (aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream) != TORCH_SUCCESS) {
      fail_as_torch("fastseq: torch has no current stream for this device");
    }
  }
  torch::stable::accelerator::DeviceGuard guard;
  void* stream = nullptr;
};
#endif

inline void check(const char* error) {
  FASTSEQ_CHECK(error == nullptr, "fastseq: a CUDA kernel failed: ", error);
}

}  // namespace fastseq::ops
