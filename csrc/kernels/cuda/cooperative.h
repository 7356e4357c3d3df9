// Launches whose blocks wait for each other: all of them are on the device at once, or none is.
#pragma once

#include "device.h"

namespace fastseq::device {

#if defined(__CUDACC__)

inline const char* words_of(cudaError_t error) {
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

// Lets a kernel have more than kSharedLimit bytes of shared memory, from now on.
template <class... Parameters>
const char* allow_shared(void (*kernel)(Parameters...), int64_t bytes) {
  return words_of(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                       static_cast<int>(bytes)));
}

// How many blocks the current device holds at once when nothing else runs on it. Other streams and
// processes may hold some of that: leave room.
template <class... Parameters>
const char* room(void (*kernel)(Parameters...), int threads, int64_t shared, int64_t& blocks) {
  int device = 0, multiprocessors = 0, each = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  }
  if (error == cudaSuccess) {
    error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, threads,
                                                          static_cast<size_t>(shared));
  }
  blocks = int64_t{multiprocessors} * each;
  return words_of(error);
}

// As `launch`; refused where the device has no room for all blocks.
template <class... Parameters, class... Arguments>
const char* launch_together(void (*kernel)(Parameters...), const Grid& grid, Stream stream,
                            const Arguments&... arguments) {
  if (grid.blocks == 0) return nullptr;
  if (grid.blocks > 0x7fffffff) return "more blocks than a launch can have";
  cudaLaunchAttribute together;
  together.id = cudaLaunchAttributeCooperative;
  together.val.cooperative = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(grid.blocks));
  config.blockDim = dim3(static_cast<unsigned>(grid.threads));
  config.dynamicSmemBytes = static_cast<size_t>(grid.shared);
  config.stream = stream;
  config.attrs = &together;
  config.numAttrs = 1;
  return words_of(cudaLaunchKernelEx(&config, kernel, arguments...));
}

#else

template <class... Parameters>
const char* allow_shared(void (*kernel)(Parameters...), int64_t bytes) {
  return simt::machine.gpu.allow_shared(reinterpret_cast<const void*>(kernel), bytes);
}

template <class... Parameters>
const char* room(void (*kernel)(Parameters...), int threads, int64_t shared, int64_t& blocks) {
  const Grid grid{1, threads, shared};
  blocks = simt::machine.gpu.room(simt::launch_of(kernel, grid, true));
  return nullptr;
}

template <class... Parameters, class... Arguments>
const char* launch_together(void (*kernel)(Parameters...), const Grid& grid, Stream,
                            const Arguments&... arguments) {
  if (grid.blocks == 0) return nullptr;
  return simt::run(
      simt::launch_of(kernel, grid, true), [&] { kernel(arguments...); }, arguments...);
}

#endif

}  // namespace fastseq::device
