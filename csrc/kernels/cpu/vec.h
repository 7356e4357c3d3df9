// Vectors of float or double by the compiler's vector extension, loads and stores that convert the
// 16-bit types, and exp, sigmoid and tanh to 1-2 ulp. Compiled once per instruction set: the width
// is the build's (FASTSEQ_VECTOR_BYTES) and everything lives in that build's namespace.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../types.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#define FASTSEQ_INLINE inline __attribute__((always_inline))

namespace fastseq::FASTSEQ_CAPABILITY {

constexpr int kVectorBytes = FASTSEQ_VECTOR_BYTES;
// Whether what is common (a window, a beta, a layer without extras) has copies of its own: not in a
// build that all but the oldest machines pass over for a faster one.
#if defined(FASTSEQ_FEW_COPIES)
constexpr bool kCopies = false;
#else
constexpr bool kCopies = true;
#endif
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRegisters = 32;
#else
constexpr int kRegisters = 16;
#endif

template <class E, int kLanes>
struct MakeVec {
  typedef E type __attribute__((vector_size(sizeof(E) * kLanes)));
};
template <class E, int kLanes>
using vec_t = typename MakeVec<E, kLanes>::type;

template <class A>
constexpr int lanes_of = kVectorBytes / static_cast<int>(sizeof(A));

template <class A>
using Vec = vec_t<A, lanes_of<A>>;

using VFloat = Vec<float>;
using VDouble = Vec<double>;
using IFloat = vec_t<int32_t, lanes_of<float>>;
using IDouble = vec_t<int64_t, lanes_of<double>>;

template <class To, class From>
FASTSEQ_INLINE To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof(To));
  return to;
}

// x - 0 is x for every x, so the compiler reduces this to one broadcast.
template <class A>
FASTSEQ_INLINE Vec<A> splat(A x) {
  return x - Vec<A>{};
}

// ---- loads and stores: S in memory, A in registers ------------------------------------------

template <class A, class S>
struct Memory;  // load, store of whole vectors

template <class A>
struct Memory<A, A> {
  static FASTSEQ_INLINE Vec<A> load(const A* p) {
    Vec<A> v;
    __builtin_memcpy(&v, p, sizeof(v));
    return v;
  }
  static FASTSEQ_INLINE void store(A* p, Vec<A> v) { __builtin_memcpy(p, &v, sizeof(v)); }
};

template <>
struct Memory<float, BFloat16> {
  using Short = vec_t<uint16_t, lanes_of<float>>;
  using Word = vec_t<uint32_t, lanes_of<float>>;
  static FASTSEQ_INLINE VFloat load(const BFloat16* p) {
    Short s;
    __builtin_memcpy(&s, p, sizeof(s));
    return bits_as<VFloat>(__builtin_convertvector(s, Word) << 16);
  }
  static FASTSEQ_INLINE void store(BFloat16* p, VFloat v) {
    const Word bits = bits_as<Word>(v);
    const Word rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;  // nearest, ties to even
    const Word nan = (bits >> 16) | 0x40u;
    const Short s = __builtin_convertvector((v == v) ? rounded : nan, Short);
    __builtin_memcpy(p, &s, sizeof(s));
  }
};

template <>
struct Memory<float, Half> {
#if defined(__AVX512F__)
  static FASTSEQ_INLINE VFloat load(const Half* p) {
    return bits_as<VFloat>(
        _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
  }
  static FASTSEQ_INLINE void store(Half* p, VFloat v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtps_ph(bits_as<__m512>(v), _MM_FROUND_TO_NEAREST_INT));
  }
#elif defined(__F16C__)
  static FASTSEQ_INLINE VFloat load(const Half* p) {
    return bits_as<VFloat>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  static FASTSEQ_INLINE void store(Half* p, VFloat v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm256_cvtps_ph(bits_as<__m256>(v), _MM_FROUND_TO_NEAREST_INT));
  }
#else
  using Short = vec_t<uint16_t, lanes_of<float>>;
  using Word = vec_t<uint32_t, lanes_of<float>>;
  // Scaling by 2^112 moves a half's exponent bias to a float's; subnormals come out exact.
  static FASTSEQ_INLINE VFloat load(const Half* p) {
    Short s;
    __builtin_memcpy(&s, p, sizeof(s));
    const Word w = __builtin_convertvector(s, Word);
    const Word sign = (w & 0x8000u) << 16;
    const Word magnitude = (w & 0x7fffu) << 13;
    const VFloat finite = bits_as<VFloat>(magnitude) * 0x1p112f;
    const Word special = magnitude | 0x7f800000u;  // inf and nan keep their payload
    return bits_as<VFloat>(((magnitude >= 0x0f800000u) ? special : bits_as<Word>(finite)) | sign);
  }
  static FASTSEQ_INLINE void store(Half* p, VFloat v) {
    const Word bits = bits_as<Word>(v);
    const Word sign = (bits >> 16) & 0x8000u;
    const Word a = bits & 0x7fffffffu;
    const Word normal = (a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13;
    // Adding 0.5 aligns a subnormal's last place with a float's last place and rounds it there.
    const Word subnormal = bits_as<Word>(bits_as<VFloat>(a) + 0.5f) - 0x3f000000u;
    const Word nan_or_inf = (a > 0x7f800000u) ? Word{} + 0x7e00u : Word{} + 0x7c00u;
    Word out = (a < 0x38800000u) ? subnormal : normal;
    out = (a >= 0x477ff000u) ? nan_or_inf : out;
    const Short s = __builtin_convertvector(out | sign, Short);
    __builtin_memcpy(p, &s, sizeof(s));
  }
#endif
};

template <class A, class S>
FASTSEQ_INLINE Vec<A> load(const S* p) {
  return Memory<A, S>::load(p);
}
template <class A, class S>
FASTSEQ_INLINE void store(S* p, Vec<A> v) {
  Memory<A, S>::store(p, v);
}

// The first n lanes; the others load as zero and are not stored. n may exceed the lanes.
#if defined(__AVX512F__)
FASTSEQ_INLINE uint32_t first_lanes(int64_t n) { return (1u << n) - 1u; }

template <class A, class S>
FASTSEQ_INLINE Vec<A> load_n(const S* p, int64_t n) {
  if (n >= lanes_of<A>) return load<A>(p);
  const uint32_t mask = first_lanes(n);
  if constexpr (sizeof(S) == 8) {
    return bits_as<Vec<A>>(_mm512_maskz_loadu_epi64(static_cast<__mmask8>(mask), p));
  } else if constexpr (sizeof(S) == 4) {
    return bits_as<Vec<A>>(_mm512_maskz_loadu_epi32(static_cast<__mmask16>(mask), p));
  } else {
    const __m256i s = _mm256_maskz_loadu_epi16(static_cast<__mmask16>(mask), p);
    S buffer[lanes_of<A>];
    __builtin_memcpy(buffer, &s, sizeof(s));  // stays in a register
    return load<A>(buffer);
  }
}
template <class A, class S>
FASTSEQ_INLINE void store_n(S* p, Vec<A> v, int64_t n) {
  if (n >= lanes_of<A>) return store<A>(p, v);
  const uint32_t mask = first_lanes(n);
  if constexpr (sizeof(S) == 8) {
    _mm512_mask_storeu_epi64(p, static_cast<__mmask8>(mask), bits_as<__m512i>(v));
  } else if constexpr (sizeof(S) == 4) {
    _mm512_mask_storeu_epi32(p, static_cast<__mmask16>(mask), bits_as<__m512i>(v));
  } else {
    S buffer[lanes_of<A>];
    store<A>(buffer, v);
    __m256i s;
    __builtin_memcpy(&s, buffer, sizeof(s));
    _mm256_mask_storeu_epi16(p, static_cast<__mmask16>(mask), s);
  }
}
#else
// From 8 - n on: n words of ones, and then zeros.
alignas(64) constexpr int32_t kOnes[16] = {-1, -1, -1, -1, -1, -1, -1, -1};

// The end of a row is out of line: a row has one, and a function has dozens of places that may meet
// it. n is less than the lanes; what is copied halves from piece to piece.
template <class A, class S>
__attribute__((noinline)) Vec<A> load_end(const S* p, int64_t n) {
  S buffer[lanes_of<A>] = {};
  S* to = buffer;
#pragma GCC unroll 4
  for (int64_t piece = lanes_of<A> / 2; piece > 0; piece /= 2) {
    if (!(n & piece)) continue;
    __builtin_memcpy(to, p, static_cast<size_t>(piece) * sizeof(S));
    to += piece;
    p += piece;
  }
  return load<A>(buffer);
}
template <class A, class S>
__attribute__((noinline)) void store_end(S* p, Vec<A> v, int64_t n) {
  S buffer[lanes_of<A>];
  store<A>(buffer, v);
  const S* from = buffer;
#pragma GCC unroll 4
  for (int64_t piece = lanes_of<A> / 2; piece > 0; piece /= 2) {
    if (!(n & piece)) continue;
    __builtin_memcpy(p, from, static_cast<size_t>(piece) * sizeof(S));
    from += piece;
    p += piece;
  }
}

template <class A, class S>
FASTSEQ_INLINE Vec<A> load_n(const S* p, int64_t n) {
  if (n >= lanes_of<A>) return load<A>(p);
#if defined(__AVX2__)
  constexpr bool kMasked = kVectorBytes == 32;
  // One instruction, which touches no byte beyond; to store so takes dozens of cycles on AMD.
  if constexpr (kMasked && sizeof(S) == 4) {
    __m256i mask;
    __builtin_memcpy(&mask, kOnes + (8 - n), sizeof(mask));
    return bits_as<Vec<A>>(_mm256_maskload_epi32(reinterpret_cast<const int*>(p), mask));
  } else if constexpr (kMasked && sizeof(S) == 8) {
    __m256i mask;
    __builtin_memcpy(&mask, kOnes + 2 * (4 - n), sizeof(mask));
    return bits_as<Vec<A>>(_mm256_maskload_epi64(reinterpret_cast<const long long*>(p), mask));
  }
#endif
  return load_end<A>(p, n);
}
template <class A, class S>
FASTSEQ_INLINE void store_n(S* p, Vec<A> v, int64_t n) {
  if (n >= lanes_of<A>) return store<A>(p, v);
  store_end<A>(p, v, n);
}
#endif

#if defined(__AVX512F__)
constexpr bool kMaskedLoads = true;
#else
constexpr bool kMaskedLoads = false;
#endif

// load_n for an n that may be 0 or less.
template <class A, class S>
FASTSEQ_INLINE Vec<A> load_up_to(const S* p, int64_t n) {
  return load_n<A>(p, n < 0 ? 0 : n);
}

// v as it reads back after a store: the state that the next step uses is the state that was saved.
template <class A, class S>
FASTSEQ_INLINE Vec<A> rounded_to(Vec<A> v) {
  if constexpr (sizeof(S) == sizeof(A)) {
    return v;
  } else {
    S buffer[lanes_of<A>];
    store<A>(buffer, v);
    return load<A>(buffer);
  }
}

// ---- exp, sigmoid, tanh ----------------------------------------------------------------------

// x, or the bound that it exceeds. NaN stays NaN: where one operand is NaN, the instructions return
// their second.
FASTSEQ_INLINE VFloat at_most(VFloat x, float high) {
#if defined(__AVX512F__)
  return bits_as<VFloat>(_mm512_min_ps(_mm512_set1_ps(high), bits_as<__m512>(x)));
#else
  return (x > high) ? VFloat{} + high : x;
#endif
}
FASTSEQ_INLINE VFloat at_least(VFloat x, float low) {
#if defined(__AVX512F__)
  return bits_as<VFloat>(_mm512_max_ps(_mm512_set1_ps(low), bits_as<__m512>(x)));
#else
  return (x < low) ? VFloat{} + low : x;
#endif
}

// x = n ln 2 + r with |r| <= ln(2)/2. Adding and subtracting `magic` rounds to the nearest integer
// and leaves it in the low bits of the mantissa; `power` is n in the place of the exponent.
struct Reduced {
  VFloat r;
  IFloat power;
};
FASTSEQ_INLINE Reduced reduced(VFloat x) {
  const float magic = 12582912.0f;  // 1.5 * 2^23
  const VFloat shifted = x * 1.44269504088896341f + magic;
  const VFloat n = shifted - magic;
  return {(x - n * 0.693359375f) - n * -2.12194440e-4f, bits_as<IFloat>(shifted) << 23};
}

// The polynomials are fitted for the least relative error (of exp 2.0e-9, of exp - 1 1.3e-8);
// sigmoid and tanh are within 2.5 ulp. A division costs no more than an estimate and its Newton
// step here.
FASTSEQ_INLINE VFloat sigmoid_of(VFloat x) {
  const Reduced y = reduced(at_least(at_most(-x, 87.0f), -87.0f));
  VFloat p = 1.3843559427e-3f * y.r + 8.3742355928e-3f;
  p = p * y.r + 4.1668009013e-2f;
  p = p * y.r + 1.6666430235e-1f;
  p = p * y.r + 4.9999994040e-1f;
  p = p * y.r + 1.0f;
  p = p * y.r + 1.0f;
  const VFloat e = bits_as<VFloat>(bits_as<IFloat>(p) + y.power);  // exp(-x)
  return (x < -87.5f) ? VFloat{} : 1.0f / (1.0f + e);
}

// By e = exp(2|x|) - 1, which keeps its relative accuracy near zero, as e / (e + 2), which keeps it
// near one; of a negative x, e would lose what 1 - tanh^2 needs.
FASTSEQ_INLINE VFloat tanh_of(VFloat x) {
  const IFloat sign = bits_as<IFloat>(x) & static_cast<int32_t>(0x80000000);
  const VFloat a = bits_as<VFloat>(bits_as<IFloat>(x) ^ sign);
  const Reduced y = reduced(at_most(a + a, 18.1f));  // beyond, it rounds to 1
  VFloat p = 1.3882509666e-3f * y.r + 8.3665801212e-3f;
  p = p * y.r + 4.1667200625e-2f;
  p = p * y.r + 1.6666543484e-1f;
  p = p * y.r + 4.9999997020e-1f;
  p = p * y.r * y.r + y.r;  // exp(r) - 1
  const VFloat scale = bits_as<VFloat>(y.power + 0x3f800000);
  const VFloat e = scale * p + (scale - 1.0f);
  return bits_as<VFloat>(bits_as<IFloat>(e / (e + 2.0f)) | sign);
}

// exp the same way for double, with a longer polynomial.
FASTSEQ_INLINE VDouble exp_of(VDouble x) {
  const auto overflow = x > 709.0;
  x = overflow ? VDouble{} + 709.0 : x;
  x = (x < -708.0) ? VDouble{} - 708.0 : x;
  const double magic = 6755399441055744.0;  // 1.5 * 2^52
  const VDouble shifted = x * 1.4426950408889634074 + magic;
  const VDouble n = shifted - magic;
  const VDouble r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
  VDouble p = VDouble{} + 1.0 / 6227020800.0;  // 1/13!; the tail is below 5e-18
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * (r * r) + r + 1.0;
  p = p * bits_as<VDouble>((bits_as<IDouble>(shifted) << 52) + 0x3ff0000000000000LL);
  return overflow ? VDouble{} + __builtin_inf() : p;
}

FASTSEQ_INLINE VDouble sigmoid_of(VDouble x) { return 1 / (1 + exp_of(-x)); }

FASTSEQ_INLINE VDouble tanh_of(VDouble x) {
  const IDouble sign = bits_as<IDouble>(x) & static_cast<int64_t>(0x8000000000000000ULL);
  const VDouble a = bits_as<VDouble>(bits_as<IDouble>(x) & 0x7fffffffffffffffLL);
  const VDouble large = 1.0 - 2.0 / (exp_of(2.0 * a) + 1.0);
  // Near zero that difference cancels: a rational function instead (Cephes, tanh).
  const VDouble z = a * a;
  VDouble p = -9.64399179425052238628e-1 * z - 9.92877231001918586564e1;
  p = p * z - 1.61468768441708447952e3;
  VDouble q = z + 1.12811678491632931402e2;
  q = q * z + 2.23548839060100448583e3;
  q = q * z + 4.84406305325125486048e3;
  const VDouble small = a + a * z * (p / q);
  return bits_as<VDouble>(bits_as<IDouble>((a < 0.625) ? small : large) | sign);
}

// The functions that cells.h asks for.
struct VecMath {
  template <class V>
  static FASTSEQ_INLINE V sigmoid(V x) {
    return sigmoid_of(x);
  }
  template <class V>
  static FASTSEQ_INLINE V tanh(V x) {
    return tanh_of(x);
  }
  // NaN passes: a maximum instruction returns its second operand where one of them is NaN.
  template <class V>
  static FASTSEQ_INLINE V relu(V x) {
#if defined(__AVX512F__)
    if constexpr (sizeof(x[0]) == 4) {
      return bits_as<V>(_mm512_max_ps(_mm512_setzero_ps(), bits_as<__m512>(x)));
    } else {
      return bits_as<V>(_mm512_max_pd(_mm512_setzero_pd(), bits_as<__m512d>(x)));
    }
#else
    return (x < 0) ? V{} : x;
#endif
  }
  template <class V>
  static FASTSEQ_INLINE V relu_gradient(V h, V dh) {
    return (h <= 0) ? V{} : dh;  // NaN passes
  }
};

}  // namespace fastseq::FASTSEQ_CAPABILITY
