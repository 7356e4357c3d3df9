// What a kernel may ask of the device: the only file that spells CUDA's own words. Compiled for the
// host, threads, barriers, shuffles and memory are those of python_tests/simt/machine.h, which runs
// a launch on the CPU and finds races, so that kernels are tested on machines without a GPU.
#pragma once

#include <cmath>

#include "../types.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define FASTSEQ_KERNEL_OF(threads, blocks) __global__ void __launch_bounds__(threads, blocks)
#define FASTSEQ_KERNEL_FOR(...) \
  __global__ void __launch_bounds__(__VA_ARGS__::kThreads, __VA_ARGS__::kBlocks)
#define FASTSEQ_DEVICE __device__ __forceinline__
#define FASTSEQ_PRAGMA(words) _Pragma(#words)
#define FASTSEQ_UNROLL(times) FASTSEQ_PRAGMA(unroll times)
#else
#include <cstring>

#include "on_host.h"
#define FASTSEQ_KERNEL_OF(threads, blocks) std::enable_if_t<(threads) == fastseq::device::kBlock>
#define FASTSEQ_KERNEL_FOR(...) void
#define FASTSEQ_DEVICE inline __attribute__((always_inline))
#define FASTSEQ_UNROLL(times)
#endif
// Registers are for so many blocks of so many threads on a multiprocessor: 64 each for four of 256.
// Where blocks are of other sizes than kBlock, the argument block says of how many threads
// (kThreads, kBlocks): FASTSEQ_KERNEL_FOR(Block). A launch on the host holds them to it.
#define FASTSEQ_KERNEL FASTSEQ_KERNEL_OF(fastseq::device::kBlock, 4)

namespace fastseq::device {

constexpr int kBlock = 256;
constexpr int kWarp = 32;
constexpr int64_t kSharedLimit = 48 * 1024;  // what a block may have without asking for more
// What a kernel is compiled for, 800 for sm_80; 0 on the host.
#if defined(__CUDA_ARCH__)
constexpr int kArchitecture = __CUDA_ARCH__;
#else
constexpr int kArchitecture = 0;
#endif

// A launch of blocks, each with so many threads and bytes of shared memory.
struct Grid {
  int64_t blocks;
  int threads;
  int64_t shared;
};

// What S becomes in registers.
template <class S>
struct Register {
  using type = accumulate_t<S>;
};
template <>
struct Register<uint8_t> {
  using type = int;
};
template <>
struct Register<int32_t> {
  using type = int;
};
template <class S>
using register_t = typename Register<S>::type;

// The functions that cells.h asks for, and those of images. tanhf and expf, not their
// approximations: an error of 2e-4 in a forget gate drifts by tens of per cent over a thousand
// steps.
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
  // a b + c rounded once, wherever it is written: two kernels then agree to the last bit.
  static FASTSEQ_HD float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
  static FASTSEQ_HD double fma(double a, double b, double c) { return ::fma(a, b, c); }
  static FASTSEQ_HD float power(float x, float y) { return ::powf(x, y); }
  static FASTSEQ_HD double power(double x, double y) { return ::pow(x, y); }
#if defined(__CUDACC__)
  static FASTSEQ_DEVICE float rsqrt(float x) { return ::rsqrtf(x); }
  static FASTSEQ_DEVICE double rsqrt(double x) { return ::rsqrt(x); }
  // One unit in the last place at most, in one instruction instead of a dozen.
  static FASTSEQ_DEVICE float root(float x) {
    float y;
    asm("sqrt.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }
  static FASTSEQ_DEVICE double root(double x) { return ::sqrt(x); }
#else
  static float rsqrt(float x) { return 1 / std::sqrt(x); }
  static double rsqrt(double x) { return 1 / std::sqrt(x); }
  static float root(float x) { return std::sqrt(x); }
  static double root(double x) { return std::sqrt(x); }
#endif

 private:
  static FASTSEQ_HD float exponential(float x) { return ::expf(x); }
  static FASTSEQ_HD double exponential(double x) { return ::exp(x); }
};

#if defined(__CUDACC__)

using Stream = cudaStream_t;

FASTSEQ_DEVICE int64_t block_index() { return blockIdx.x; }
FASTSEQ_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }  // in its block
FASTSEQ_DEVICE int block_size() { return static_cast<int>(blockDim.x); }
// This thread's number in the launch.
FASTSEQ_DEVICE int64_t thread() { return block_index() * block_size() + thread_index(); }

// What the compiler no longer knows: whatever a loop makes of it is made again in each turn, and
// takes no registers from one to the next.
FASTSEQ_DEVICE void forget(int& x) { asm volatile("" : "+r"(x)); }

// Waits for all threads of the block, and makes what they wrote visible to each other.
FASTSEQ_DEVICE void sync() { __syncthreads(); }
// The same for the warps that name a barrier, 1 to 15, and how many threads they are together.
FASTSEQ_DEVICE void sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
// The same for the threads of a warp.
FASTSEQ_DEVICE void sync_warp() { __syncwarp(); }

// Another lane's value; all lanes of the warp take part. Orders no memory.
template <class T>
FASTSEQ_DEVICE T shuffle(T value, int lane) {
  return __shfl_sync(0xffffffffu, value, lane);
}
template <class T>
FASTSEQ_DEVICE T shuffle_up(T value, int lanes) {
  return __shfl_up_sync(0xffffffffu, value, lanes);
}
template <class T>
FASTSEQ_DEVICE T shuffle_down(T value, int lanes) {
  return __shfl_down_sync(0xffffffffu, value, lanes);
}
template <class T>
FASTSEQ_DEVICE T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
// Whether any lane says yes; all lanes of the warp take part.
FASTSEQ_DEVICE bool any(bool mine) { return __any_sync(0xffffffffu, mine); }

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

namespace memory {

template <class T>
FASTSEQ_DEVICE T load(const T* p) {
  return *p;
}
template <class T>
FASTSEQ_DEVICE void store(T* p, T value) {
  *p = value;
}

template <int bytes>
struct Word;
template <>
struct Word<1> {
  using type = unsigned char;
};
template <>
struct Word<2> {
  using type = unsigned short;
};
template <>
struct Word<4> {
  using type = unsigned;
};
template <>
struct Word<8> {
  using type = uint2;
};
template <>
struct Word<16> {
  using type = uint4;
};

template <int V, class S>
FASTSEQ_DEVICE void read(const S* p, S (&values)[V]) {
  using W = typename Word<V * sizeof(S)>::type;
  const W word = __ldg(reinterpret_cast<const W*>(p));
  __builtin_memcpy(values, &word, sizeof word);
}
template <int V, class S>
FASTSEQ_DEVICE void write(S* p, const S (&values)[V]) {
  using W = typename Word<V * sizeof(S)>::type;
  W word;
  __builtin_memcpy(&word, values, sizeof word);
  *reinterpret_cast<W*>(p) = word;
}

// Whole words. An assignment would be compiled as a copy in pieces from where the word was.
FASTSEQ_DEVICE void store_word(uint4* p, uint4 w) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(p)),
               "r"(w.x), "r"(w.y), "r"(w.z), "r"(w.w)
               : "memory");
}
FASTSEQ_DEVICE void store_word(uint2* p, uint2 w) {
  asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(__cvta_generic_to_global(p)), "r"(w.x),
               "r"(w.y)
               : "memory");
}
template <class W>
FASTSEQ_DEVICE void store_word(W* p, W w) {
  *p = w;
}

}  // namespace memory

// V elements on their way from memory to memory, aligned to their size, in one word.
template <class S, int V>
struct Pack {
  using Word = typename memory::Word<V* static_cast<int>(sizeof(S))>::type;
  Word word{};  // zeros

  FASTSEQ_DEVICE static Pack read(const S* p) { return {__ldg(reinterpret_cast<const Word*>(p))}; }
  FASTSEQ_DEVICE void write(S* p) const { memory::store_word(reinterpret_cast<Word*>(p), word); }
  FASTSEQ_DEVICE void set(int i, S x) {  // i: a constant
    __builtin_memcpy(reinterpret_cast<char*>(&word) + i * sizeof(S), &x, sizeof x);
  }
  FASTSEQ_DEVICE S get(int i) const {
    S x;
    __builtin_memcpy(&x, reinterpret_cast<const char*>(&word) + i * sizeof(S), sizeof x);
    return x;
  }
};

// An array in the block's shared memory, from a byte offset on.
template <class T>
class Shared {
 public:
  FASTSEQ_DEVICE Shared(int64_t offset, int) {
    extern __shared__ __align__(16) unsigned char memory[];
    data_ = reinterpret_cast<T*>(memory + offset);
  }
  FASTSEQ_DEVICE T get(int i) const { return data_[i]; }
  FASTSEQ_DEVICE void set(int i, T value) const { data_[i] = value; }
  template <int V>
  FASTSEQ_DEVICE Pack<T, V> pack(int i) const {
    return {*reinterpret_cast<const typename Pack<T, V>::Word*>(data_ + i)};
  }
  template <int V>
  FASTSEQ_DEVICE void set(int i, Pack<T, V> pack) const {
    *reinterpret_cast<typename Pack<T, V>::Word*>(data_ + i) = pack.word;
  }
  FASTSEQ_DEVICE uint32_t address(int i) const {
    return static_cast<uint32_t>(__cvta_generic_to_shared(data_ + i));
  }

 private:
  T* data_;
};

// Returns null, or what CUDA says went wrong.
template <class... Parameters, class... Arguments>
const char* launch(void (*kernel)(Parameters...), const Grid& grid, Stream stream,
                   const Arguments&... arguments) {
  if (grid.blocks == 0) return nullptr;
  if (grid.blocks > 0x7fffffff) return "more blocks than a launch can have";
  kernel<<<static_cast<unsigned>(grid.blocks), grid.threads, grid.shared, stream>>>(arguments...);
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

#else

using Stream = void*;
using simt::any;
using simt::block_index;
using simt::block_size;
using simt::shuffle;
using simt::shuffle_down;
using simt::shuffle_up;
using simt::shuffle_xor;
using simt::sync;
using simt::sync_warp;
using simt::thread_index;
template <class T>
using Shared = simt::Shared<T>;
template <class S, int V>
using Pack = simt::Pack<S, V>;
namespace memory = simt::memory;

inline int64_t thread() { return block_index() * block_size() + thread_index(); }
inline void forget(int&) {}

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

template <class... Parameters, class... Arguments>
const char* launch(void (*kernel)(Parameters...), const Grid& grid, Stream,
                   const Arguments&... arguments) {
  if (grid.blocks == 0) return nullptr;
  return simt::run(
      simt::launch_of(kernel, grid, false), [&] { kernel(arguments...); }, arguments...);
}

#endif

// Starts one thread for each of n items, in whole blocks: a kernel must guard its own end.
template <class... Parameters, class... Arguments>
const char* launch(void (*kernel)(Parameters...), int64_t n, Stream stream,
                   const Arguments&... arguments) {
  return launch(kernel, Grid{(n + kBlock - 1) / kBlock, kBlock, 0}, stream, arguments...);
}

FASTSEQ_DEVICE float widen(float x) { return x; }
FASTSEQ_DEVICE double widen(double x) { return x; }
FASTSEQ_DEVICE float widen(BFloat16 x) { return to_float(x); }
FASTSEQ_DEVICE float widen(Half x) { return to_float(x); }
FASTSEQ_DEVICE int widen(uint8_t x) { return x; }
FASTSEQ_DEVICE int widen(int32_t x) { return x; }

template <class S>
FASTSEQ_DEVICE S narrow(register_t<S> x) {
  if constexpr (sizeof(S) == 2) {
    return from_float<S>(x);
  } else {
    return static_cast<S>(x);
  }
}

// S in memory, register_t<S> in registers.
template <class S>
FASTSEQ_DEVICE register_t<S> load(const S* p) {
  return widen(memory::load(p));
}
template <class S>
FASTSEQ_DEVICE void store(S* p, register_t<S> x) {
  memory::store(p, narrow<S>(x));
}

// V neighbours in one access, aligned to its size. `read` is for memory that no thread of the
// launch writes.
template <int V, class S>
FASTSEQ_DEVICE void read(const S* p, register_t<S> (&out)[V]) {
  S values[V];
  memory::read<V>(p, values);
  FASTSEQ_UNROLL(V) for (int i = 0; i < V; ++i) out[i] = widen(values[i]);
}
template <int V, class S>
FASTSEQ_DEVICE void write(S* p, const register_t<S> (&x)[V]) {
  S values[V];
  FASTSEQ_UNROLL(V) for (int i = 0; i < V; ++i) values[i] = narrow<S>(x[i]);
  memory::write<V>(p, values);
}
template <class S>
FASTSEQ_DEVICE register_t<S> read(const S* p) {
  register_t<S> x[1];
  read<1>(p, x);
  return x[0];
}

// x as S would hold it.
template <class S>
FASTSEQ_DEVICE accumulate_t<S> round_to(accumulate_t<S> x) {
  return widen(narrow<S>(x));
}

// i / d, in 32 bits where that is enough: 64-bit division is a long subroutine.
FASTSEQ_DEVICE int64_t divide(int64_t i, int64_t d) {
  if (((i | d) >> 32) == 0) return static_cast<uint32_t>(i) / static_cast<uint32_t>(d);
  return i / d;
}

}  // namespace fastseq::device
