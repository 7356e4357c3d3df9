// Max-pooling backward, row by row: the loops that pooling alone and its fusion with LRN share.
//
// Gradients are gathered: an input adds up the outputs that name it, in ascending order, and is
// written once.
#pragma once

#include "pool_vectors.h"

namespace fastseq::FASTSEQ_CAPABILITY {

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
  // grad and offsets (O: where places lie) are those of the plane.
  template <class S, class O>
  FASTSEQ_INLINE void row(int64_t h, const S* grad, O offsets, A* to) const {
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
  FASTSEQ_INLINE void fetch(int64_t o_h, int64_t slot, const S* grad, O offsets) const {
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

// The outputs that an input pixel may have gone to: where they are in grad and offsets, and which
// place in their window this pixel is.
struct Takers {
  static constexpr int64_t kMost = 64;  // at a time; more only in windows of over 64 strides
  int64_t at[kMost], place[kMost], count = 0;
};

// Adds the gradients of kCount outputs (0: of takers.count) to what `before(c, n)` returns.
template <class A, int kCount, class S, class O, class Before, class Emit>
FASTSEQ_INLINE void sum_takers(const Takers& takers, int64_t channels, const S* grad, O offsets,
                               const Before& before, const Emit& emit) {
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
                                         int64_t channels, const S* grad, O offsets, A* line) {
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
