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

// O in memory: uint8_t or int32_t.
template <class A, class O>
FASTSEQ_INLINE void store_places(O* p, Places<A> v, int64_t n) {
  const auto narrow = __builtin_convertvector(v, vec_t<O, lanes_of<A>>);
  if (n >= lanes_of<A>) {
    __builtin_memcpy(p, &narrow, sizeof(narrow));
    return;
  }
#if defined(__AVX512F__)
  if constexpr (sizeof(O) == 1 && lanes_of<A> == 16) {
    const auto mask = static_cast<__mmask16>(first_lanes(n));
    return _mm_mask_storeu_epi8(p, mask, bits_as<__m128i>(narrow));
  }
#endif
  for (int64_t i = 0; i < n; ++i) p[i] = narrow[i];
}
// Lanes beyond n hold -1, which is no place.
template <class A, class O>
FASTSEQ_INLINE Places<A> load_places(const O* p, int64_t n) {
  vec_t<O, lanes_of<A>> narrow;
  if (n >= lanes_of<A>) {
    __builtin_memcpy(&narrow, p, sizeof(narrow));
    return __builtin_convertvector(narrow, Places<A>);
  }
  Places<A> wide = Places<A>{} - 1;
  for (int64_t i = 0; i < n; ++i) wide[i] = p[i];
  return wide;
}

template <class A>
struct Best {
  Vec<A> value;
  Places<A> place;

  template <bool kSave>
  FASTSEQ_INLINE void take(Vec<A> candidate, Places<A> at) {
    const auto better = (candidate > value) | (candidate != candidate);
    value = better ? candidate : value;
    if constexpr (kSave) place = better ? at : place;
  }
};

// Every second element of 2 L, from p on; of any stride in general.
template <class A, int kStride>
FASTSEQ_INLINE Vec<A> strided(const A* p, int64_t stride) {
  constexpr int L = lanes_of<A>;
  if constexpr (kStride == 1) {
    return load<A>(p);
  } else if constexpr (kStride == 2) {
    Places<A> even;
    for (int i = 0; i < L; ++i) even[i] = 2 * i;
    return __builtin_shuffle(load<A>(p), load<A>(p + L), even);
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
// compile copies for.
template <class O, class F>
FASTSEQ_INLINE void with_window(const PoolWindow& p, const F& f) {
  if constexpr (sizeof(O) > 1) return f(Known<0, 0>{});
  const auto overlapping = [](const PoolSide& side) {
    return side.kernel == 3 && side.stride == 2 && side.dilation == 1;
  };
  if (overlapping(p.h) && overlapping(p.w)) return f(Known<3, 2>{});
  if (p.w.stride == 1) return f(Known<0, 1>{});
  if (p.w.stride == 2) return f(Known<0, 2>{});
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

  // The maxima along row h; fetch(h, to) writes its pixels, and may write a vector beyond.
  template <class Fetch>
  FASTSEQ_INLINE void add_row(int64_t h, const Fetch& fetch) const {
    const PoolWindow pool = Window::of(this->pool);
    A* const pixels = line + pool.w.padding;
    fetch(h, pixels);
    for (int64_t i = 0; i < L; ++i) pixels[width + i] = kLowest<A>;
    const int64_t at = h % slots() * outs;
    const auto* const first = reinterpret_cast<const place_t<A>*>(firsts);
    for (int64_t o = 0; o < outs; o += L) {
      Best<A> best{V{} + kLowest<A>, P{}};
      if constexpr (kSave) __builtin_memcpy(&best.place, first + o, sizeof(P));
      for (int64_t i = 0; i < pool.w.kernel; ++i) {
        const A* const p = line + o * pool.w.stride + i * pool.w.dilation;
        best.template take<kSave>(strided<A, Window::kStride>(p, pool.w.stride),
                                  P{} + static_cast<place_t<A>>(i));
      }
      store<A>(values + at + o, best.value);
      if constexpr (kSave) __builtin_memcpy(places + at + o, &best.place, sizeof(P));
    }
  }

  // Outputs [first, last) along the height. emit(o_h, o_w, n, value, place).
  template <class Fetch, class Emit>
  FASTSEQ_INLINE void run(int64_t first, int64_t last, const Fetch& fetch, const Emit& emit) const {
    const PoolWindow pool = Window::of(this->pool);
    int64_t next = 0;  // the first row that has not been added
    for (int64_t o_h = first; o_h < last; ++o_h) {
      const int64_t i0 = pool.h.first(o_h), i1 = pool.h.last(o_h, height);
      const int64_t start = pool.h.start(o_h);
      if (next < start) next = start;
      for (; next <= start + (i1 - 1) * pool.h.dilation; ++next) add_row(next, fetch);
      for (int64_t o = 0; o < pool.w.out; o += L) {
        Best<A> best{V{} + kLowest<A>, P{}};
        if constexpr (kSave) {
          P along;
          __builtin_memcpy(&along, firsts + o, sizeof(P));
          best.place = along + static_cast<place_t<A>>(i0 * pool.w.kernel);
        }
        for (int64_t i = i0; i < i1; ++i) {
          const int64_t at = (start + i * pool.h.dilation) % slots() * outs + o;
          P along{};
          if constexpr (kSave) {
            __builtin_memcpy(&along, places + at, sizeof(P));
            along += static_cast<place_t<A>>(i * pool.w.kernel);
          }
          best.template take<kSave>(load<A>(values + at), along);
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
    const auto start = static_cast<place_t<A>>(i0 * pool.w.kernel + k0);
    for (int64_t c = 0; c < channels; c += L) {
      Best<A> best{Vec<A>{} + kLowest<A>, P{} + start};
      for (int64_t i = i0; i < i1; ++i) {
        const T* const from = row(top + i * pool.h.dilation) + left * channels + c;
        for (int64_t k = k0; k < k1; ++k) {
          best.template take<kSave>(load_n<A>(from + k * pool.w.dilation * channels, channels - c),
                                    P{} + static_cast<place_t<A>>(i * pool.w.kernel + k));
        }
      }
      emit(o_w, c, channels - c, best.value, best.place);
    }
  }
}

// The gradient of the pixels of input row h; grad and offsets are those of the image.
// emit(w, c, n, sum).
template <class A, class Window, class S, class O, class Emit>
FASTSEQ_INLINE void pool_gradient_pixels(const PoolWindow& window, int64_t h, int64_t width,
                                         int64_t channels, const S* grad, const O* offsets,
                                         const Emit& emit) {
  constexpr int64_t L = lanes_of<A>;
  const PoolWindow pool = Window::of(window);
  const int64_t h0 = pool.h.lowest(h), h1 = pool.h.highest(h);
  for (int64_t w = 0; w < width; ++w) {
    const int64_t w0 = pool.w.lowest(w), w1 = pool.w.highest(w);
    for (int64_t c = 0; c < channels; c += L) {
      const int64_t n = channels - c;
      Vec<A> sum{};
      for (int64_t o_h = h0; o_h <= h1; ++o_h) {
        const int64_t down = h - pool.h.start(o_h);
        if (down % pool.h.dilation) continue;
        for (int64_t o_w = w0; o_w <= w1; ++o_w) {
          const int64_t right = w - pool.w.start(o_w);
          if (right % pool.w.dilation) continue;
          const auto place = static_cast<place_t<A>>(down / pool.h.dilation * pool.w.kernel +
                                                     right / pool.w.dilation);
          const int64_t at = (o_h * pool.w.out + o_w) * channels + c;
          const Vec<A> value = load_n<A>(grad + at, n);
          sum += (load_places<A>(offsets + at, n) == place) ? value : Vec<A>{};
        }
      }
      emit(w, c, n, sum);
    }
  }
}

}  // namespace fastseq::FASTSEQ_CAPABILITY
