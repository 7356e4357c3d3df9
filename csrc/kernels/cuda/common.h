// What the launchers share: types, alignment, the machine's size.
#pragma once

#include "device.h"
#include "images.h"

namespace fastseq::cuda {

// An argument block whose tensors hold S.
template <class S, class Block>
struct Of : Block {
  explicit Of(const Block& block) : Block(block) {}
};

template <class F>
const char* with_dtype(DType dtype, const F& f) {
  switch (dtype) {
    case DType::kFloat:
      return f(float{});
    case DType::kDouble:
      return f(double{});
    case DType::kBFloat16:
      return f(BFloat16{});
    case DType::kHalf:
      return f(Half{});
  }
  return "unknown dtype";
}

template <int value>
struct Constant {
  static constexpr int kValue = value;
};

inline device::Stream as_stream(void* stream) { return static_cast<device::Stream>(stream); }

inline int64_t divide_up(int64_t n, int64_t d) { return (n + d - 1) / d; }
FASTSEQ_HD int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
FASTSEQ_HD int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Elements of S in 16 bytes.
template <class S>
constexpr int kPack = static_cast<int>(16 / sizeof(S));

inline bool aligned(const void* p, size_t bytes) {
  return reinterpret_cast<uintptr_t>(p) % bytes == 0;
}

// Threads that fill the largest machine (an H200 holds 132 x 2048) about twice.
constexpr int64_t kFull = int64_t{1} << 19;

}  // namespace fastseq::cuda
