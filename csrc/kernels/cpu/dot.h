// How a product multiplies and adds: one element at a time in the type of the sums, or, where the
// machine has an instruction for it, two bfloat16 at a time into a float32 sum, or tiles of them.
#pragma once

#include "vec.h"

// Tiles where the build asks for them (capability amx), or stands in for them.
#if defined(__AMX_BF16__) || defined(FASTSEQ_TILES_ON_HOST)
#define FASTSEQ_TILES
#include "amx.h"
#endif

namespace fastseq::FASTSEQ_CAPABILITY {

// What a sweep holds while vectors multiply: nothing.
struct Registers {};

// Item: what states and packed weights are kept as. kPair: neighbouring items of the inner
// dimension that one vector lane holds. kTiled: products are made by a unit of their own (amx.h).
// kChain: groups of which a product over many rows makes a sum of their own before it joins the
// total: a single chain over thousands of rows would lose digits that a BLAS library keeps.
template <class A>
struct Scalars {
  using Sum = A;
  using Item = A;
  using Unit = Registers;
  static constexpr int64_t kPair = 1, kChain = 64;
  static constexpr bool kTiled = false;

  static FASTSEQ_INLINE Vec<A> state(const Item* p) { return splat<A>(*p); }
  static FASTSEQ_INLINE Vec<A> weights(const Item* p) { return load<A>(p); }
  static FASTSEQ_INLINE void add(Vec<A>& sum, Vec<A> s, Vec<A> w) { sum += s * w; }
};

#if defined(__AVX512BF16__) && !defined(FASTSEQ_TILES)
// vdpbf16ps: subnormal numbers count as zero, everything else is exact but for the float32 sum.
struct Pairs {
  using Sum = float;
  using Item = BFloat16;
  using Unit = Registers;
  static constexpr int64_t kPair = 2, kChain = 64;
  static constexpr bool kTiled = false;

  static FASTSEQ_INLINE VFloat state(const Item* p) {
    int two;
    __builtin_memcpy(&two, p, sizeof(two));
    return bits_as<VFloat>(_mm512_set1_epi32(two));
  }
  static FASTSEQ_INLINE VFloat weights(const Item* p) {
    VFloat w;
    __builtin_memcpy(&w, p, sizeof(w));
    return w;
  }
  static FASTSEQ_INLINE void add(VFloat& sum, VFloat s, VFloat w) {
    sum = bits_as<VFloat>(
        _mm512_dpbf16_ps(bits_as<__m512>(sum), bits_as<__m512bh>(s), bits_as<__m512bh>(w)));
  }
};
#endif

template <class S>
struct DotOf {
  using type = Scalars<accumulate_t<S>>;
};
#if defined(FASTSEQ_TILES)
template <>
struct DotOf<BFloat16> {
  using type = Tiles;
};
#elif defined(__AVX512BF16__)
template <>
struct DotOf<BFloat16> {
  using type = Pairs;
};
#endif
template <class S>
using dot_t = typename DotOf<S>::type;

// Two rows of the inner dimension as one vector of items (kPair == 2), or the one row as it is.
template <class D>
FASTSEQ_INLINE Vec<typename D::Sum> joined(Vec<typename D::Sum> first,
                                           Vec<typename D::Sum> second) {
  if constexpr (D::kPair == 1) {
    return first;
  } else {  // both are exact in bfloat16: the low halves are zero
    using Word = vec_t<uint32_t, lanes_of<float>>;
    return bits_as<VFloat>((bits_as<Word>(first) >> 16) | bits_as<Word>(second));
  }
}

}  // namespace fastseq::FASTSEQ_CAPABILITY
