// What a kernel may ask of the device. On a GPU this is CUDA; compiled for the host
// (python_tests/simt) a launch runs its threads one after another, so that indexing, masks and
// algebra are tested on machines without a GPU.
#pragma once

#include <cmath>

#include "../types.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define FASTSEQ_KERNEL __global__ void __launch_bounds__(256)
#define FASTSEQ_DEVICE __device__ __forceinline__
#else
#include <cstring>
#define FASTSEQ_KERNEL void
#define FASTSEQ_DEVICE inline
#endif

namespace fastseq::device {

constexpr int kBlock = 256;

#if defined(__CUDACC__)

using Stream = cudaStream_t;

// This thread's number in the launch.
FASTSEQ_DEVICE int64_t thread() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

FASTSEQ_DEVICE float to_float(BFloat16 x) { return __uint_as_float(uint32_t{x.bits} << 16); }
FASTSEQ_DEVICE float to_float(Half x) { return __half2float(__ushort_as_half(x.bits)); }
template <class S>
FASTSEQ_DEVICE S from_float(float x);
template <>
FASTSEQ_DEVICE BFloat16 from_float<BFloat16>(float x) {
  return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
}
template <>
FASTSEQ_DEVICE Half from_float<Half>(float x) {
  return {__half_as_ushort(__float2half_rn(x))};
}

// Starts one thread for each of n items. Returns null, or what CUDA says went wrong.
template <class... Parameters, class... Arguments>
const char* launch(void (*kernel)(Parameters...), int64_t n, Stream stream,
                   const Arguments&... arguments) {
  if (n == 0) return nullptr;
  const auto blocks = static_cast<unsigned>((n + kBlock - 1) / kBlock);
  kernel<<<blocks, kBlock, 0, stream>>>(arguments...);
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

#else

using Stream = void*;

inline int64_t& thread() {
  static thread_local int64_t number = 0;
  return number;
}

inline float to_float(BFloat16 x) {
  const uint32_t bits = uint32_t{x.bits} << 16;
  float f;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}
inline float to_float(Half x) {
  _Float16 h;
  std::memcpy(&h, &x, sizeof h);
  return static_cast<float>(h);
}
template <class S>
S from_float(float x);
template <>
inline BFloat16 from_float<BFloat16>(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if (x != x) return {static_cast<uint16_t>(bits >> 16 | 0x40)};
  return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
template <>
inline Half from_float<Half>(float x) {
  const auto h = static_cast<_Float16>(x);
  Half out;
  std::memcpy(&out, &h, sizeof out);
  return out;
}

// As on the GPU: whole blocks, so that a kernel must guard its own end. Threads run last to first,
// because nothing may depend on their order.
template <class... Parameters, class... Arguments>
const char* launch(void (*kernel)(Parameters...), int64_t n, Stream,
                   const Arguments&... arguments) {
  const int64_t threads = (n + kBlock - 1) / kBlock * kBlock;
  for (int64_t i = threads; i-- > 0;) {
    thread() = i;
    kernel(arguments...);
  }
  return nullptr;
}

#endif

// S in memory, accumulate_t<S> in registers.
FASTSEQ_DEVICE float load(const float* p) { return *p; }
FASTSEQ_DEVICE double load(const double* p) { return *p; }
FASTSEQ_DEVICE float load(const BFloat16* p) { return to_float(*p); }
FASTSEQ_DEVICE float load(const Half* p) { return to_float(*p); }
FASTSEQ_DEVICE void store(float* p, float x) { *p = x; }
FASTSEQ_DEVICE void store(double* p, double x) { *p = x; }
FASTSEQ_DEVICE void store(BFloat16* p, float x) { *p = from_float<BFloat16>(x); }
FASTSEQ_DEVICE void store(Half* p, float x) { *p = from_float<Half>(x); }

// The functions that cells.h asks for. tanhf and expf, not their approximations: an error of 2e-4
// in a forget gate drifts by tens of per cent over a thousand steps.
struct Math {
  template <class V>
  static FASTSEQ_HD V sigmoid(V x) {
    return V(1) / (V(1) + exponential(-x));
  }
  static FASTSEQ_HD float tanh(float x) { return ::tanhf(x); }
  static FASTSEQ_HD double tanh(double x) { return ::tanh(x); }
  template <class V>
  static FASTSEQ_HD V relu(V x) {
    return x < V(0) ? V(0) : x;  // NaN passes
  }
  template <class V>
  static FASTSEQ_HD V relu_gradient(V h, V dh) {
    return h <= V(0) ? V(0) : dh;  // NaN passes
  }

 private:
  static FASTSEQ_HD float exponential(float x) { return ::expf(x); }
  static FASTSEQ_HD double exponential(double x) { return ::exp(x); }
};

}  // namespace fastseq::device
