// What max-pooling does with vectors: maxima with their places, strided loads, and windows whose
// sizes the compiler knows.
#pragma once

#include <type_traits>

#include "../images.h"
#include "rows.h"

namespace fastseq::FASTSEQ_CAPABILITY {

template <class A>
using place_t = std::conditional_t<sizeof(A) == 8, int64_t, int32_t>;
// Places in the window, beside the values of a Vec<A>.
template <class A>
using Places = vec_t<place_t<A>, lanes_of<A>>;

template <class A>
constexpr A kLowest = static_cast<A>(-__builtin_inff());

// O in memory: uint8_t or int32_t. The compiler takes a byte's way to a word in many steps, so the
// one instruction is spelled where there is one.
template <class A, class O>
FASTSEQ_INLINE void store_places(O* p, Places<A> v, int64_t n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(O) == 1) {
    const auto bits = bits_as<__m512i>(v);
    const uint32_t mask = n >= lanes_of<A> ? ~0u : first_lanes(n);
    if constexpr (sizeof(A) == 4) {
      _mm512_mask_cvtepi32_storeu_epi8(p, static_cast<__mmask16>(mask), bits);
    } else {
      _mm512_mask_cvtepi64_storeu_epi8(p, static_cast<__mmask8>(mask), bits);
    }
    return;
  }
#endif
  const auto narrow = __builtin_convertvector(v, vec_t<O, lanes_of<A>>);
  if (n >= lanes_of<A>) {
    __builtin_memcpy(p, &narrow, sizeof(narrow));
  } else {
    for (int64_t i = 0; i < n; ++i) p[i] = narrow[i];
  }
}
// Lanes beyond n hold -1, which is no place.
template <class A, class O>
FASTSEQ_INLINE Places<A> load_places(const O* p, int64_t n) {
  constexpr int L = lanes_of<A>;
  if (n < L) {
    Places<A> wide = Places<A>{} - 1;
#if defined(__AVX512F__)
    if constexpr (sizeof(O) == 1) {
      const auto mask = static_cast<__mmask16>(first_lanes(n));
      const __m128i bytes = _mm_maskz_loadu_epi8(mask, p);
      const auto rest = bits_as<__m512i>(wide);
      if constexpr (sizeof(A) == 4) {
        return bits_as<Places<A>>(_mm512_mask_cvtepu8_epi32(rest, mask, bytes));
      } else {
        return bits_as<Places<A>>(
            _mm512_mask_cvtepu8_epi64(rest, static_cast<__mmask8>(mask), bytes));
      }
    }
#endif
    for (int64_t i = 0; i < n; ++i) wide[i] = p[i];
    return wide;
  }
#if defined(__AVX512F__) || defined(__AVX2__)
  if constexpr (sizeof(O) == 1) {
    __m128i bytes{};
    __builtin_memcpy(&bytes, p, L);
#if defined(__AVX512F__)
    if constexpr (sizeof(A) == 4) return bits_as<Places<A>>(_mm512_cvtepu8_epi32(bytes));
    if constexpr (sizeof(A) == 8) return bits_as<Places<A>>(_mm512_cvtepu8_epi64(bytes));
#else
    if constexpr (sizeof(A) == 4) return bits_as<Places<A>>(_mm256_cvtepu8_epi32(bytes));
    if constexpr (sizeof(A) == 8) return bits_as<Places<A>>(_mm256_cvtepu8_epi64(bytes));
#endif
  }
#endif
  vec_t<O, L> narrow;
  __builtin_memcpy(&narrow, p, sizeof(narrow));
  return __builtin_convertvector(narrow, Places<A>);
}

// Places in memory of which only the call says how wide they are: one copy of a loop for both.
template <class Byte>
struct AnyPlaces {
  Byte* at;
  bool wide;

  FASTSEQ_INLINE AnyPlaces operator+(int64_t n) const { return {at + (wide ? 4 * n : n), wide}; }
};
template <class A>
FASTSEQ_INLINE void store_places(AnyPlaces<char> p, Places<A> v, int64_t n) {
  if (!p.wide) return store_places<A>(reinterpret_cast<uint8_t*>(p.at), v, n);
  store_places<A>(reinterpret_cast<int32_t*>(p.at), v, n);
}
template <class A>
FASTSEQ_INLINE Places<A> load_places(AnyPlaces<const char> p, int64_t n) {
  if (!p.wide) return load_places<A>(reinterpret_cast<const uint8_t*>(p.at), n);
  return load_places<A>(reinterpret_cast<const int32_t*>(p.at), n);
}
// Places `at` and the following of a call that may have none: bytes for a window that has copies of
// its own, of any width for others.
template <class Window>
FASTSEQ_INLINE auto places_at(void* offsets, const PoolWindow& pool, int64_t at) {
  if (!offsets) at = 0;
  if constexpr (Window::kBytes) {
    return static_cast<uint8_t*>(offsets) + at;
  } else {
    return AnyPlaces<char>{static_cast<char*>(offsets), pool.wide()} + at;
  }
}
template <class Window>
FASTSEQ_INLINE auto places_at(const void* offsets, const PoolWindow& pool, int64_t at) {
  if constexpr (Window::kBytes) {
    return static_cast<const uint8_t*>(offsets) + at;
  } else {
    return AnyPlaces<const char>{static_cast<const char*>(offsets), pool.wide()} + at;
  }
}

// Whether any lane is NaN.
template <class V>
FASTSEQ_INLINE bool any_nan(V v) {
#if defined(__AVX512F__)
  if constexpr (sizeof(v[0]) == 4) {
    return _mm512_cmp_ps_mask(bits_as<__m512>(v), bits_as<__m512>(v), _CMP_UNORD_Q) != 0;
  } else {
    return _mm512_cmp_pd_mask(bits_as<__m512d>(v), bits_as<__m512d>(v), _CMP_UNORD_Q) != 0;
  }
#else
  const auto nan = v != v;
  auto any = nan[0];
  for (size_t i = 1; i < sizeof(v) / sizeof(v[0]); ++i) any |= nan[i];
  return any != 0;
#endif
}

template <class A, bool kSave>
struct Best {
  Vec<A> value;
  Places<A> place;

  FASTSEQ_INLINE void take(Vec<A> candidate, Places<A> at) {
    const auto better = (candidate > value) | (candidate != candidate);
    value = better ? candidate : value;
    if constexpr (kSave) place = better ? at : place;
  }
};

// The best of the candidates that each(f) passes to f(value, place), beginning with `best`. NaN is
// looked for once, in the sum of all: only where there may be one is every comparison made twice.
template <class A, bool kSave, class Each>
FASTSEQ_INLINE Best<A, kSave> best_of(const Best<A, kSave>& start, const Each& each) {
  Best<A, kSave> best = start;
  Vec<A> sum{};
  each([&](Vec<A> candidate, Places<A> at) __attribute__((always_inline)) {
    const auto better = candidate > best.value;
    best.value = better ? candidate : best.value;
    if constexpr (kSave) best.place = better ? at : best.place;
    sum += candidate;
  });
  if (__builtin_expect(any_nan(sum), 0)) {  // or infinities of both signs
    best = start;
    each([&](Vec<A> candidate, Places<A> at)
             __attribute__((always_inline)) { best.take(candidate, at); });
  }
  return best;
}

// Every second element of both, from the first or the second one on.
template <class A, int kFirst = 0>
FASTSEQ_INLINE Vec<A> evens(Vec<A> a, Vec<A> b) {
  Places<A> which;
  for (int i = 0; i < lanes_of<A>; ++i) which[i] = 2 * i + kFirst;
  return __builtin_shuffle(a, b, which);
}
// L elements, `stride` apart.
template <class A, class S>
FASTSEQ_INLINE Vec<A> strided(const S* p, int64_t stride) {
  Vec<A> v;
  for (int i = 0; i < lanes_of<A>; ++i) v[i] = p[i * stride];
  return v;
}

// A window whose sizes the compiler knows: 3 x 3 with stride 2, the overlapping one. kKernel = 0:
// any window, of which kStride is the stride along a row if that is 1 or 2.
// kBytes: whether its places are bytes; one whose kernel nobody knows may be too large for that.
template <int kKernel_, int kStride_, bool kBytes_ = (kKernel_ > 0)>
struct Known {
  static constexpr int kKernel = kKernel_, kStride = kStride_;
  static constexpr bool kBytes = kBytes_;

  static FASTSEQ_INLINE PoolWindow of(const PoolWindow& p) {
    if constexpr (kKernel > 0) {
      return {{kKernel, kStride, p.h.padding, 1, p.h.out},
              {kKernel, kStride, p.w.padding, 1, p.w.out}};
    } else {
      return p;
    }
  }
};

// Calls f(Window{}) with the window as a walk over pixels sees it, where no stride lies between
// neighbouring lanes. kSave: whether there are places.
template <class Window, bool kSave, class F>
FASTSEQ_INLINE void across_channels(const PoolWindow& p, const F& f) {
  if constexpr (Window::kKernel > 0) return f(Window{});
  if constexpr (kCopies && kSave) {
    if (!p.wide()) return f(Known<0, 0, true>{});
  }
  f(Known<0, 0>{});
}

// AlexNet's and GoogLeNet's window.
FASTSEQ_INLINE bool overlapping(const PoolWindow& p) {
  const auto side = [](const PoolSide& s) {
    return s.kernel == 3 && s.stride == 2 && s.dilation == 1;
  };
  return side(p.h) && side(p.w);
}

// Calls f(Known<...>{}). kFew: every window but the overlapping one is too rare to compile copies
// for.
template <bool kFew = false, class F>
FASTSEQ_INLINE void with_window(const PoolWindow& p, const F& f) {
  if constexpr (kCopies) {
    if (overlapping(p)) return f(Known<3, 2>{});
    if constexpr (!kFew) {
      if (p.w.stride == 1) return f(Known<0, 1>{});
      if (p.w.stride == 2) return f(Known<0, 2>{});
    }
  }
  f(Known<0, 0>{});
}

}  // namespace fastseq::FASTSEQ_CAPABILITY
