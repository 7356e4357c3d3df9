// Max-pooling forward, row by row: the loops that pooling alone and its fusion with LRN share.
//
// A "plane" walk takes the rows of one [H, W] plane: maxima along each row first, then the maxima
// of `kernel` such rows, which overlapping outputs share. A "pixels" walk takes rows of [W, C] and
// has the channels side by side. Candidates are met in row-major order and taken if they are larger
// or NaN, so of equal values the first counts and of several NaN the last, as in torch.
#pragma once

#include "pool_vectors.h"

namespace fastseq::FASTSEQ_CAPABILITY {

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
      const auto vector = [&](int64_t from) __attribute__((always_inline)) {
        if constexpr (!kInside) return load<A>(line + from);
        return load_up_to<A>(pixels + from, width - from);
      };
      const auto tap = [&](int64_t i) __attribute__((always_inline)) {
        const int64_t from = o * w.stride + i * w.dilation;
        if constexpr (Window::kStride == 1) return vector(from);
        if constexpr (Window::kStride == 2) return evens<A>(vector(from), vector(from + L));
        return strided<A>(line + from, w.stride);
      };
      const auto best =
          best_of<A, kSave>(start, [&](const auto& take) __attribute__((always_inline)) {
            int64_t i = 0;
            if constexpr (Window::kStride == 2) {  // two taps see the same pixels, but for the last
              for (; w.dilation == 1 && i + 1 < w.kernel; i += 2) {
                const V a = vector(o * 2 + i), b = vector(o * 2 + i + L);
                take(evens<A>(a, b), P{} + static_cast<place_t<A>>(i));
                take(evens<A, 1>(a, b), P{} + static_cast<place_t<A>>(i + 1));
              }
            }
            for (; i < w.kernel; ++i) take(tap(i), P{} + static_cast<place_t<A>>(i));
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
      if constexpr (decltype(whole)::value) {
        for (; c + L <= channels; c += L) pool_vector(c, std::true_type{});
        if (c == channels) return;
      }
      for (; c < channels; c += L) pool_vector(c, std::false_type{});  // at borders: all of them
    };
    if (i1 - i0 == pool.h.kernel && k1 - k0 == pool.w.kernel) {
      over_channels(std::true_type{});
    } else {
      over_channels(std::false_type{});
    }
  }
}

}  // namespace fastseq::FASTSEQ_CAPABILITY
