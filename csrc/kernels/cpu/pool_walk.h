// Max-pooling, row by row: the loops that pooling alone and its fusion with LRN share.
//
// A "plane" walk takes the rows of one [H, W] plane: maxima along each row first, then the maxima
// of `kernel` such rows, which overlapping outputs share. A "pixels" walk takes rows of [W, C] and
// has the channels side by side. Candidates are met in row-major order and taken if they are larger
// or NaN, so of equal values the first counts and of several NaN the last, as in torch.
//
// Gradients are gathered: an input adds up the outputs that name it, in ascending order, and is
// written once.
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

template <class A>
FASTSEQ_INLINE Vec<A> evens(Vec<A> a, Vec<A> b) {
  Places<A> even;
  for (int i = 0; i < lanes_of<A>; ++i) even[i] = 2 * i;
  return __builtin_shuffle(a, b, even);
}
// Every second element of 2 L, from p on; of any stride in general.
template <class A, int kStride, class S>
FASTSEQ_INLINE Vec<A> strided(const S* p, int64_t stride) {
  constexpr int L = lanes_of<A>;
  if constexpr (kStride == 1) {
    return load<A>(p);
  } else if constexpr (kStride == 2) {
    return evens<A>(load<A>(p), load<A>(p + L));
  } else {
    Vec<A> v;
    for (int i = 0; i < L; ++i) v[i] = p[i * stride];
    return v;
  }
}

// A window whose sizes the compiler knows: 3 x 3 with stride 2, the overlapping one. kKernel = 0:
// any window, of which kStride is the stride along a row if that is 1 or 2.
template <int kKernel_, int kStride_>
struct Known {
  static constexpr int kKernel = kKernel_, kStride = kStride_;

  static FASTSEQ_INLINE PoolWindow of(const PoolWindow& p) {
    if constexpr (kKernel > 0) {
      return {{kKernel, kStride, p.h.padding, 1, p.h.out},
              {kKernel, kStride, p.w.padding, 1, p.w.out}};
    } else {
      return p;
    }
  }
};

// Calls f(Known<...>{}). O: type of the offsets; windows that need wide ones are too rare to
// compile copies for. kFew: so is every window but the overlapping one.
template <class O, bool kFew = false, class F>
FASTSEQ_INLINE void with_window(const PoolWindow& p, const F& f) {
  if constexpr (sizeof(O) > 1) return f(Known<0, 0>{});
  const auto overlapping = [](const PoolSide& side) {
    return side.kernel == 3 && side.stride == 2 && side.dilation == 1;
  };
  if (overlapping(p.h) && overlapping(p.w)) return f(Known<3, 2>{});
  if constexpr (!kFew) {
    if (p.w.stride == 1) return f(Known<0, 1>{});
    if (p.w.stride == 2) return f(Known<0, 2>{});
  }
  return f(Known<0, 0>{});
}

// ---- one plane ---------------------------------------------------------------------------------

template <class A, bool kSave, class Window>
struct PlanePool {
  using V = Vec<A>;
  using P = Places<A>;
  static constexpr int64_t L = lanes_of<A>;

  const PoolWindow pool;
  const int64_t height, width;
  const int64_t outs;  // pool.w.out in whole vectors
  A* line;             // one row with its padding: line[i] is pixel i - padding
  A* values;           // [slots, outs] maxima along a row
  A* places;           // [slots, outs] and where they are (place_t in A's bytes)
  A* firsts;           // [outs] the first place inside the image, of each output's row
  int64_t size;

  PlanePool(const PoolWindow& window, int64_t height, int64_t width, A* base)
      : pool(Window::of(window)), height(height), width(width), outs((pool.w.out + L - 1) / L * L) {
    Scratch<A> scratch{base};
    line = scratch.take(line_size());
    values = scratch.take(slots() * outs);
    places = scratch.take(kSave ? slots() * outs : 0);
    firsts = scratch.take(kSave ? outs : 0);
    size = scratch.used;
  }

  // Rows whose maxima are kept.
  FASTSEQ_INLINE int64_t slots() const {
    const PoolSide h = Window::of(pool).h;
    return (h.kernel - 1) * h.dilation + 1;
  }
  int64_t line_size() const {
    const int64_t reach = outs * pool.w.stride + (pool.w.kernel - 1) * pool.w.dilation;
    const int64_t held = pool.w.padding + width;
    return (reach > held ? reach : held) + 2 * L;
  }

  void prepare() {
    for (int64_t i = 0; i < line_size(); ++i) line[i] = kLowest<A>;
    if constexpr (kSave) {
      for (int64_t o = 0; o < outs; ++o) {
        reinterpret_cast<place_t<A>*>(firsts)[o] = static_cast<place_t<A>>(pool.w.first(o));
      }
    }
  }

  // Whether no window leaves its row: it is then read where it is, and not copied into `line`.
  bool inside() const {
    const PoolSide& w = pool.w;
    return kMaskedLoads && (Window::kStride == 1 || Window::kStride == 2) && w.padding == 0 &&
           w.start(w.out - 1) + (w.kernel - 1) * w.dilation < width;
  }

  // The maxima along a row of `width` pixels. kInside: as inside() says.
  template <bool kInside, class T>
  FASTSEQ_INLINE void add_row(int64_t h, const T* pixels) const {
    const PoolSide w = Window::of(pool).w;
    if constexpr (!kInside) {
      A* const to = line + w.padding;
      for (int64_t i = 0; i < width; i += L) store<A>(to + i, load_n<A>(pixels + i, width - i));
      for (int64_t i = 0; i < L; ++i) to[width + i] = kLowest<A>;
    }
    const int64_t at = h % slots() * outs;
    for (int64_t o = 0; o < outs; o += L) {
      Best<A, kSave> start{V{} + kLowest<A>, P{}};
      if constexpr (kSave) __builtin_memcpy(&start.place, firsts + o, sizeof(P));
      const auto best =
          best_of<A, kSave>(start, [&](const auto& take) __attribute__((always_inline)) {
            for (int64_t i = 0; i < w.kernel; ++i) {
              const int64_t from = o * w.stride + i * w.dilation;
              V v;
              if constexpr (!kInside) {
                v = strided<A, Window::kStride>(line + from, w.stride);
              } else if constexpr (Window::kStride == 1) {
                v = load_up_to<A>(pixels + from, width - from);
              } else {
                v = evens<A>(load_up_to<A>(pixels + from, width - from),
                             load_up_to<A>(pixels + from + L, width - from - L));
              }
              take(v, P{} + static_cast<place_t<A>>(i));
            }
          });
      store<A>(values + at + o, best.value);
      if constexpr (kSave) __builtin_memcpy(places + at + o, &best.place, sizeof(P));
    }
  }

  // Outputs [first, last) along the height. row(h): the pixels of an input row;
  // emit(o_h, o_w, n, value, place).
  template <class Row, class Emit>
  FASTSEQ_INLINE void run(int64_t first, int64_t last, const Row& row, const Emit& emit) const {
    if (inside()) return run_as<true>(first, last, row, emit);
    run_as<false>(first, last, row, emit);
  }

 private:
  template <bool kInside, class Row, class Emit>
  FASTSEQ_INLINE void run_as(int64_t first, int64_t last, const Row& row, const Emit& emit) const {
    const PoolWindow pool = Window::of(this->pool);
    int64_t next = 0;  // the first row that has not been added
    for (int64_t o_h = first; o_h < last; ++o_h) {
      const int64_t i0 = pool.h.first(o_h), i1 = pool.h.last(o_h, height);
      const int64_t start = pool.h.start(o_h);
      if (next < start) next = start;
      for (; next <= start + (i1 - 1) * pool.h.dilation; ++next) add_row<kInside>(next, row(next));
      for (int64_t o = 0; o < pool.w.out; o += L) {
        Best<A, kSave> best{V{} + kLowest<A>, P{}};
        if constexpr (kSave) {
          __builtin_memcpy(&best.place, firsts + o, sizeof(P));
          best.place += static_cast<place_t<A>>(i0 * pool.w.kernel);
        }
        for (int64_t i = i0; i < i1; ++i) {
          const int64_t at = (start + i * pool.h.dilation) % slots() * outs + o;
          P along{};
          if constexpr (kSave) {
            __builtin_memcpy(&along, places + at, sizeof(P));
            along += static_cast<place_t<A>>(i * pool.w.kernel);
          }
          best.take(load<A>(values + at), along);
        }
        emit(o_h, o, pool.w.out - o, best.value, best.place);
      }
    }
  }
};

// ---- the gradient of one plane -----------------------------------------------------------------

// Rows of gradients and places with a margin, so that an input can look at the outputs to its left.
template <class A, class Window>
struct PlaneGradient {
  using V = Vec<A>;
  using P = Places<A>;
  using Place = place_t<A>;
  static constexpr int64_t L = lanes_of<A>;

  // An output row that the input row looks at, by its slot and its first place in the window.
  struct Source {
    int64_t slot, place;
  };

  const PoolWindow pool;
  const int64_t width;
  const int64_t margin;  // outputs to the left that an input may belong to, in whole vectors
  const int64_t stride;  // elements of a row in the buffers
  A* values;             // [slots, stride]
  A* places;             // [slots, stride] (Place in A's bytes)
  int64_t* held;         // [slots] the output row in a slot
  Source* sources;       // [slots]
  int64_t size;

  PlaneGradient(const PoolWindow& window, int64_t width, A* base)
      : pool(Window::of(window)),
        width(width),
        margin(((pool.w.kernel - 1) * pool.w.dilation / pool.w.stride + L) / L * L),
        stride(margin + reach(pool, width)) {
    Scratch<A> scratch{base};
    values = scratch.take(slots() * stride);
    places = scratch.take(slots() * stride);
    held = reinterpret_cast<int64_t*>(scratch.take(whole_vectors<A>(slots() * 2)));
    sources = reinterpret_cast<Source*>(scratch.take(slots() * 4));
    size = scratch.used;
  }

  // Outputs, and the pixels over the stride, in whole vectors and one more.
  static int64_t reach(const PoolWindow& pool, int64_t width) {
    const int64_t steps = (width + pool.w.padding) / pool.w.stride + 1;
    return ((steps > pool.w.out ? steps : pool.w.out) + 2 * L) / L * L;
  }

  // Output rows that an input row may belong to.
  FASTSEQ_INLINE int64_t slots() const {
    const PoolSide h = Window::of(pool).h;
    return (h.kernel - 1) * h.dilation / h.stride + 1;
  }
  FASTSEQ_INLINE Place* place_row(int64_t slot) const {
    return reinterpret_cast<Place*>(places) + slot * stride;
  }

  // Once: the margins hold zeros and no places.
  void prepare() const {
    fill_row(values, slots() * stride);
    for (int64_t i = 0; i < slots() * stride; ++i) place_row(0)[i] = -1;
    forget();
  }
  // Before the first row of another plane.
  FASTSEQ_INLINE void forget() const {
    for (int64_t i = 0; i < slots(); ++i) held[i] = -1;
  }

  // The gradient of input row h into `to`, which may be written a few vectors beyond its end.
  // grad and offsets are those of the plane.
  template <class S, class O>
  FASTSEQ_INLINE void row(int64_t h, const S* grad, const O* offsets, A* to) const {
    const PoolWindow pool = Window::of(this->pool);
    int64_t count = 0;
    for (int64_t o_h = pool.h.lowest(h); o_h <= pool.h.highest(h); ++o_h) {
      const int64_t down = h - pool.h.start(o_h);
      if (down % pool.h.dilation) continue;
      const int64_t slot = o_h % slots();
      if (held[slot] != o_h) fetch(o_h, slot, grad, offsets);
      sources[count++] = {slot, down / pool.h.dilation * pool.w.kernel};
    }
    // Pixel w is number w + padding = m * stride + phase of the padded row.
    const int64_t steps = (width + pool.w.padding + pool.w.stride - 1) / pool.w.stride;
    for (int64_t m = 0; m < steps; m += L) {
      if constexpr (Window::kStride == 2) {
        const V even = phase(count, 0, m), odd = phase(count, 1, m);
        P low, high;
        for (int i = 0; i < L; ++i) {
          low[i] = static_cast<Place>(i / 2 + i % 2 * L);
          high[i] = static_cast<Place>(i / 2 + i % 2 * L + L / 2);
        }
        put(to, 2 * m, __builtin_shuffle(even, odd, low));
        put(to, 2 * m + L, __builtin_shuffle(even, odd, high));
      } else if constexpr (Window::kStride == 1) {
        put(to, m, phase(count, 0, m));
      } else {
        for (int64_t k = 0; k < pool.w.stride; ++k) {
          const V sum = phase(count, k, m);
          for (int64_t i = 0; i < L; ++i) {
            const int64_t w = (m + i) * pool.w.stride + k - pool.w.padding;
            if (w >= 0 && w < width) to[w] = sum[i];
          }
        }
      }
    }
  }

 private:
  template <class S, class O>
  FASTSEQ_INLINE void fetch(int64_t o_h, int64_t slot, const S* grad, const O* offsets) const {
    held[slot] = o_h;
    for (int64_t o = 0; o < pool.w.out; o += L) {
      const int64_t n = pool.w.out - o, at = o_h * pool.w.out + o;
      store<A>(values + slot * stride + margin + o, load_n<A>(grad + at, n));
      const P place = load_places<A>(offsets + at, n);
      __builtin_memcpy(place_row(slot) + margin + o, &place, sizeof(P));
    }
  }

  // Writes numbers i, i + 1, ... of the padded row; those of the left padding are left out.
  FASTSEQ_INLINE void put(A* to, int64_t i, V v) const {
    const int64_t w = i - pool.w.padding;
    if (w >= width || w <= -L) return;
    if (w >= 0) return store<A>(to + w, v);
    A shifted[2 * L] = {};
    store<A>(shifted, v);
    store<A>(to, load<A>(shifted - w));
  }

  // The gradients of numbers m * stride + phase, m and the following, of the padded row.
  FASTSEQ_INLINE V phase(int64_t count, int64_t phase, int64_t m) const {
    const PoolSide w = Window::of(pool).w;
    V sum{};
    for (int64_t i = 0; i < count; ++i) {
      const Source source = sources[i];
      const A* const value = values + source.slot * stride + margin + m;
      const Place* const place = place_row(source.slot) + margin + m;
      for (int64_t k = w.kernel - 1; k >= 0; --k) {  // from the leftmost output on
        const int64_t along = k * w.dilation, left = along / w.stride;
        if (along - left * w.stride != phase) continue;
        P at;
        __builtin_memcpy(&at, place - left, sizeof(P));
        const V v = load<A>(value - left);
        sum += (at == static_cast<Place>(source.place + k)) ? v : V{};
      }
    }
    return sum;
  }
};

// ---- rows of [W, C] ----------------------------------------------------------------------------

// Output row o_h. row(h) points to the pixels of an input row, of type T; emit(o_w, c, n, value,
// place).
template <class A, bool kSave, class T, class Window, class Row, class Emit>
FASTSEQ_INLINE void pool_pixels(const PoolWindow& window, int64_t o_h, int64_t height,
                                int64_t width, int64_t channels, const Row& row, const Emit& emit) {
  using P = Places<A>;
  constexpr int64_t L = lanes_of<A>;
  const PoolWindow pool = Window::of(window);
  const int64_t i0 = pool.h.first(o_h), i1 = pool.h.last(o_h, height), top = pool.h.start(o_h);
  for (int64_t o_w = 0; o_w < pool.w.out; ++o_w) {
    const int64_t k0 = pool.w.first(o_w), k1 = pool.w.last(o_w, width), left = pool.w.start(o_w);
    const Best<A, kSave> start{Vec<A>{} + kLowest<A>,
                               P{} + static_cast<place_t<A>>(i0 * pool.w.kernel + k0)};
    // kWhole: the window lies inside the image, so that its size is known where the kernel's is.
    const auto over_channels = [&](auto whole) __attribute__((always_inline)) {
      const int64_t ib = whole ? 0 : i0, ie = whole ? pool.h.kernel : i1;
      const int64_t kb = whole ? 0 : k0, ke = whole ? pool.w.kernel : k1;
      const T* lines[Window::kKernel ? Window::kKernel : 1];
      if constexpr (Window::kKernel > 0) {
        for (int64_t i = ib; i < ie; ++i)
          lines[i] = row(top + i * pool.h.dilation) + left * channels;
      }
      const auto pool_vector = [&](int64_t c, auto full) __attribute__((always_inline)) {
        const auto best =
            best_of<A, kSave>(start, [&](const auto& take) __attribute__((always_inline)) {
              for (int64_t i = ib; i < ie; ++i) {
                const T* const line = Window::kKernel > 0
                                          ? lines[Window::kKernel > 0 ? i : 0]
                                          : row(top + i * pool.h.dilation) + left * channels;
                for (int64_t k = kb; k < ke; ++k) {
                  const T* const from = line + k * pool.w.dilation * channels + c;
                  take(full ? load<A>(from) : load_n<A>(from, channels - c),
                       P{} + static_cast<place_t<A>>(i * pool.w.kernel + k));
                }
              }
            });
        emit(o_w, c, channels - c, best.value, best.place);
      };
      int64_t c = 0;
      for (; c + L <= channels; c += L) pool_vector(c, std::true_type{});
      if (c < channels) pool_vector(c, std::false_type{});
    };
    if (i1 - i0 == pool.h.kernel && k1 - k0 == pool.w.kernel) {
      over_channels(std::true_type{});
    } else {
      over_channels(std::false_type{});
    }
  }
}

// The outputs that an input pixel may have gone to: where they are in grad and offsets, and which
// place in their window this pixel is.
struct Takers {
  static constexpr int64_t kMost = 64;  // at a time; more only in windows of over 64 strides
  int64_t at[kMost], place[kMost], count = 0;
};

// Adds the gradients of kCount outputs (0: of takers.count) to what `before(c, n)` returns.
template <class A, int kCount, class S, class O, class Before, class Emit>
FASTSEQ_INLINE void sum_takers(const Takers& takers, int64_t channels, const S* grad,
                               const O* offsets, const Before& before, const Emit& emit) {
  constexpr int64_t L = lanes_of<A>;
  for (int64_t c = 0; c < channels; c += L) {
    const int64_t n = channels - c;
    Vec<A> sum = before(c, n);
    for (int64_t i = 0; i < (kCount ? kCount : takers.count); ++i) {
      const Vec<A> value = load_n<A>(grad + takers.at[i] + c, n);
      const Places<A> place = load_places<A>(offsets + takers.at[i] + c, n);
      sum += (place == static_cast<place_t<A>>(takers.place[i])) ? value : Vec<A>{};
    }
    emit(c, n, sum);
  }
}

// The gradient of the pixels of input row h into `line` [W, C]; grad and offsets are those of the
// image.
template <class A, class Window, class S, class O>
FASTSEQ_INLINE void pool_gradient_pixels(const PoolWindow& window, int64_t h, int64_t width,
                                         int64_t channels, const S* grad, const O* offsets,
                                         A* line) {
  const PoolWindow pool = Window::of(window);
  const int64_t h0 = pool.h.lowest(h), h1 = pool.h.highest(h);
  for (int64_t w = 0; w < width; ++w) {
    A* const to = line + w * channels;
    const auto none = [](int64_t, int64_t) { return Vec<A>{}; };
    const auto put = [&](int64_t c, int64_t n, Vec<A> sum) { store_n<A>(to + c, sum, n); };
    Takers takers;
    bool begun = false;
    const auto flush = [&] {
      if (begun) {
        const auto sum = [&](int64_t c, int64_t n) { return load_n<A>(to + c, n); };
        return sum_takers<A, 0>(takers, channels, grad, offsets, sum, put);
      }
      if (takers.count == 1) return sum_takers<A, 1>(takers, channels, grad, offsets, none, put);
      if (takers.count == 2) return sum_takers<A, 2>(takers, channels, grad, offsets, none, put);
      if (takers.count == 4) return sum_takers<A, 4>(takers, channels, grad, offsets, none, put);
      sum_takers<A, 0>(takers, channels, grad, offsets, none, put);
    };
    for (int64_t o_h = h0; o_h <= h1; ++o_h) {
      const int64_t down = h - pool.h.start(o_h);
      if (down % pool.h.dilation) continue;
      for (int64_t o_w = pool.w.lowest(w); o_w <= pool.w.highest(w); ++o_w) {
        const int64_t right = w - pool.w.start(o_w);
        if (right % pool.w.dilation) continue;
        if (takers.count == Takers::kMost) {
          flush();
          begun = true;
          takers.count = 0;
        }
        takers.at[takers.count] = (o_h * pool.w.out + o_w) * channels;
        takers.place[takers.count++] =
            down / pool.h.dilation * pool.w.kernel + right / pool.w.dilation;
      }
    }
    flush();
  }
}

}  // namespace fastseq::FASTSEQ_CAPABILITY
