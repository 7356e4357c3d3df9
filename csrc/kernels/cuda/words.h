// Words that blocks publish for each other while they run. Each holds 32 bits and is its own flag:
// it is filled with kEmpty before the launch, published once, and whoever needs it polls until it
// is no longer empty. Nothing else is handed over by it: no fence, no epoch, no order between
// words.
//
// The rules, which python_tests/simt holds every kernel to:
//   - a word is empty when the launch begins (a fill of bytes 0xFF)
//   - it is published at most once a launch, and never as an empty one
//   - no plain access touches it in that launch; launches before and after may read it as they like
//   - who waits for another block is launched together with it (cooperative.h)
#pragma once

#include "device.h"

namespace fastseq::device {

// A NaN of float, and two of bfloat16 or half, that no arithmetic makes: NaNs made are 0x7fff....
constexpr uint32_t kEmpty = 0xffffffffu;
constexpr uint32_t kNaN = 0x7fff7fffu;

#if defined(__CUDACC__)

// Strong enough to be seen by all blocks, and no more: no fence is emitted.
FASTSEQ_DEVICE uint32_t load_relaxed(const uint32_t* p) {
  uint32_t word;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];"
               : "=r"(word)
               : "l"(__cvta_generic_to_global(p)));
  return word;
}
// Four neighbours, aligned to 16 bytes: each is a word by itself, and may come before the others.
FASTSEQ_DEVICE void load_relaxed(const uint32_t* p, uint32_t (&words)[4]) {
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "l"(__cvta_generic_to_global(p)));
}
FASTSEQ_DEVICE void store_relaxed(uint32_t* p, uint32_t word) {
  asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(__cvta_generic_to_global(p)), "r"(word));
}

// Fills n words, in the order of the stream.
inline const char* empty(uint32_t* words, int64_t n, Stream stream) {
  const cudaError_t error =
      cudaMemsetAsync(words, 0xff, static_cast<size_t>(n) * sizeof *words, stream);
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

#else

using simt::load_relaxed;
using simt::store_relaxed;

inline void load_relaxed(const uint32_t* p, uint32_t (&words)[4],
                         const simt::Site& site = simt::Site::current()) {
  for (int i = 0; i < 4; ++i) words[i] = load_relaxed(p + i, site);
}
inline const char* empty(uint32_t* words, int64_t n, Stream) {
  std::memset(words, 0xff, static_cast<size_t>(n) * sizeof *words);
  return nullptr;
}

#endif

FASTSEQ_DEVICE void publish(uint32_t* p, uint32_t word) {
  store_relaxed(p, word == kEmpty ? kNaN : word);
}

FASTSEQ_DEVICE bool any_empty(const uint32_t (&words)[4]) {
  return words[0] == kEmpty || words[1] == kEmpty || words[2] == kEmpty || words[3] == kEmpty;
}

// Waits for N words, `stride` apart, and takes them. All lanes of the warp take part, and go on
// together. The loads of a round are all under way at once.
template <int N>
FASTSEQ_DEVICE void take(const uint32_t* p, int64_t stride, uint32_t (&words)[N]) {
  bool missing;
  do {
    FASTSEQ_UNROLL(N) for (int i = 0; i < N; ++i) words[i] = load_relaxed(p + i * stride);
    missing = false;
    FASTSEQ_UNROLL(N) for (int i = 0; i < N; ++i) missing |= words[i] == kEmpty;
  } while (any(missing));
}

}  // namespace fastseq::device
