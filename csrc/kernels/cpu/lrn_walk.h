// Local response normalization across channels, for a tile of pixels: the loops that LRN alone and
// its fusion with ReLU and pooling share.
//
//   s_c  = k + scale * sum of x_j^2, j in [c - before, c + after]
//   y_c  = x_c s_c^-beta
//   dx_c = g_c s_c^-beta - 2 scale beta x_c * sum of t_j, j in [c - after, c + before]
//   t_j  = g_j x_j s_j^(-beta-1)
//
// A "planes" walk takes [C, pixels] and goes from channel to channel with the last n rows of
// squares (and of t) in a ring. A "rows" walk takes [pixels, C], where a window lies within a row.
// Sums run in ascending order in both, so that they agree bit by bit.
#pragma once

#include "../images.h"
#include "lrn_power.h"
#include "rows.h"

namespace fastseq::FASTSEQ_CAPABILITY {

template <class S_, Beta kBeta_, bool kRelu_>
struct LrnKind {
  using S = S_;
  using A = accumulate_t<S>;
  using V = Vec<A>;
  static constexpr Beta kBeta = kBeta_;
  static constexpr bool kRelu = kRelu_;
  static constexpr int64_t L = lanes_of<A>;

  // x as the normalization sees it.
  static FASTSEQ_INLINE V input(const S* p, int64_t n) {
    const V x = load_n<A>(p, n);
    return kRelu ? VecMath::relu(x) : x;
  }
};

template <class A>
struct LrnNumbers {
  int64_t size, before, after;
  A scale, k, slope;  // slope: 2 scale beta
  double beta;

  explicit LrnNumbers(const LrnWindow& w)
      : size(w.size),
        before(w.before()),
        after(w.after()),
        scale(static_cast<A>(w.scale())),
        k(static_cast<A>(w.k)),
        slope(static_cast<A>(2 * w.scale() * w.beta)),
        beta(w.beta) {}
};

// The last `size` rows of something, by channel number. kSize: the size if it is known, else 0.
template <class A, int kSize>
struct Ring {
  A* base;
  int64_t slots, stride;

  FASTSEQ_INLINE A* row(int64_t channel) const {
    const int64_t n = kSize ? kSize : slots;
    const int64_t slot = channel % n;
    return base + (slot < 0 ? slot + n : slot) * stride;
  }
  void clear() const { fill_row(base, slots * stride); }
};

// Sum over rows first, ..., first + n - 2 of a ring at p, and then `newest`.
template <class A, int kSize>
struct RingSum {
  static constexpr int64_t kListed =
      kSize ? kSize : 16;  // rows looked up once, not for each vector

  const A* rows[kListed];
  Ring<A, kSize> ring;
  int64_t first, n;

  FASTSEQ_INLINE RingSum(const Ring<A, kSize>& ring, int64_t first, int64_t size)
      : ring(ring), first(first), n(kSize ? kSize : size) {
    for (int64_t i = 0; i < n && i < kListed; ++i) rows[i] = ring.row(first + i);
  }
  FASTSEQ_INLINE Vec<A> operator()(int64_t p, Vec<A> newest) const {
    const int64_t n = kSize ? kSize : this->n;
    if (n == 1) return newest;
    Vec<A> sum = load<A>(rows[0] + p);
    for (int64_t i = 1; i < n - 1; ++i) {
      sum += load<A>((kSize || i < kListed ? rows[i] : ring.row(first + i)) + p);
    }
    return sum + newest;
  }
};

// Elements from row to row of a ring. The added cache line keeps rows from meeting in the low bits
// of their addresses, where a load would wait for a store to another row.
template <class A>
FASTSEQ_INLINE int64_t ring_stride(int64_t pixels) {
  return whole_vectors<A>(pixels) + 64 / static_cast<int64_t>(sizeof(A));
}

template <class A>
FASTSEQ_INLINE int64_t forward_planes_scratch(const LrnWindow& w, int64_t pixels) {
  return w.size * ring_stride<A>(pixels);
}

// emit(c, p, y): y of channel c at the tile's pixels p, p + 1, ...; done(c): the channel is over.
template <class Kind, int kSize, class Emit, class Done>
FASTSEQ_INLINE void lrn_forward_planes(const LrnNumbers<typename Kind::A>& lrn,
                                       const typename Kind::S* x, int64_t channel_stride,
                                       int64_t channels, int64_t pixels, typename Kind::A* scratch,
                                       const Emit& emit, const Done& done) {
  using A = typename Kind::A;
  using V = typename Kind::V;
  const int64_t L = Kind::L;
  const Power<A, Kind::kBeta> power(lrn.beta);
  const Ring<A, kSize> squares{scratch, lrn.size, ring_stride<A>(pixels)};
  squares.clear();
  for (int64_t j = 0; j < lrn.after && j < channels; ++j) {
    A* const to = squares.row(j);
    for (int64_t p = 0; p < pixels; p += L) {
      const V v = Kind::input(x + j * channel_stride + p, pixels - p);
      store<A>(to + p, v * v);
    }
  }
  for (int64_t c = 0; c < channels; ++c) {
    const int64_t front = c + lrn.after;
    const RingSum<A, kSize> sum(squares, c - lrn.before, lrn.size);
    A* const newest = squares.row(front);
    const typename Kind::S* const here = x + c * channel_stride;
    const typename Kind::S* const ahead = front < channels ? x + front * channel_stride : nullptr;
    for (int64_t p = 0; p < pixels; p += L) {
      V square{};
      if (ahead) {
        prefetch_to_read(ahead + channel_stride + p);
        square = Kind::input(ahead + p, pixels - p);
        square = square * square;
      }
      store<A>(newest + p, square);
      const V s = lrn.k + lrn.scale * sum(p, square);
      emit(c, p, Kind::input(here + p, pixels - p) * power(s));
    }
    done(c);
  }
}

template <class A>
FASTSEQ_INLINE int64_t backward_planes_scratch(const LrnWindow& w, int64_t pixels) {
  return (2 * w.size + w.before() + 1) * ring_stride<A>(pixels);
}

// begin(c): the gradient of channel c is about to be asked for; grad(c, p): that gradient;
// emit(c, p, dx).
template <class Kind, int kSize, class Begin, class Grad, class Emit>
FASTSEQ_INLINE void lrn_backward_planes(const LrnNumbers<typename Kind::A>& lrn,
                                        const typename Kind::S* x, int64_t channel_stride,
                                        int64_t channels, int64_t pixels, typename Kind::A* scratch,
                                        const Begin& begin, const Grad& grad, const Emit& emit) {
  using A = typename Kind::A;
  using V = typename Kind::V;
  const int64_t L = Kind::L, stride = ring_stride<A>(pixels);
  const Power<A, Kind::kBeta> power(lrn.beta);
  const Ring<A, kSize> squares{scratch, lrn.size, stride};
  const Ring<A, kSize> terms{squares.base + lrn.size * stride, lrn.size, stride};
  const Ring<A, kSize ? kSize / 2 + 1 : 0> direct{terms.base + lrn.size * stride, lrn.before + 1,
                                                  stride};
  squares.clear();
  terms.clear();
  for (int64_t j = 0; j < lrn.after && j < channels; ++j) {
    A* const to = squares.row(j);
    for (int64_t p = 0; p < pixels; p += L) {
      const V v = Kind::input(x + j * channel_stride + p, pixels - p);
      store<A>(to + p, v * v);
    }
  }
  // Channel j's term, and with it the gradient of channel j - before.
  for (int64_t j = 0; j < channels + lrn.before; ++j) {
    const int64_t front = j + lrn.after, c = j - lrn.before;
    const RingSum<A, kSize> square_sum(squares, j - lrn.before, lrn.size);
    const RingSum<A, kSize> term_sum(terms, c - lrn.after, lrn.size);
    A* const newest_square = squares.row(front);
    A* const newest_term = terms.row(j);
    A* const newest_direct = direct.row(j);
    const A* const oldest_direct = direct.row(c);
    const typename Kind::S* const ahead = front < channels ? x + front * channel_stride : nullptr;
    if (j < channels) begin(j);
    for (int64_t p = 0; p < pixels; p += L) {
      const int64_t n = pixels - p;
      V square{}, term{};
      if (ahead) {
        prefetch_to_read(ahead + channel_stride + p);
        square = Kind::input(ahead + p, n);
        square = square * square;
      }
      if (j < channels) {
        const V s = lrn.k + lrn.scale * square_sum(p, square);
        const V g = grad(j, p);
        V f, q;
        power.both(s, f, q);
        term = g * Kind::input(x + j * channel_stride + p, n) * q;
        store<A>(newest_direct + p, g * f);
      }
      if (c >= 0) {
        const V own = Kind::input(x + c * channel_stride + p, n);
        const V dx = load<A>(oldest_direct + p) - lrn.slope * own * term_sum(p, term);
        emit(c, p, Kind::kRelu ? VecMath::relu_gradient(own, dx) : dx);
      }
      store<A>(newest_square + p, square);
      store<A>(newest_term + p, term);
    }
  }
}

// One row of [pixels, C] with zeros on both sides.
template <class A>
FASTSEQ_INLINE int64_t row_stride(int64_t size, int64_t channels) {
  return whole_vectors<A>(size + whole_vectors<A>(channels) + lanes_of<A>);
}

// Rows of a tile, each buffer of which then takes about 4 KB.
template <class A>
FASTSEQ_INLINE int64_t rows_of_tile(const LrnWindow& w, int64_t channels) {
  const int64_t bytes = row_stride<A>(w.size, channels) * static_cast<int64_t>(sizeof(A));
  return clamped(4'096 / bytes, 1, 64);
}

template <class A, int kSize>
FASTSEQ_INLINE Vec<A> window_sum(const A* p, int64_t size) {
  Vec<A> sum = load<A>(p);
  const int64_t n = kSize ? kSize : size;
  for (int64_t i = 1; i < n; ++i) sum += load<A>(p + i);
  return sum;
}

template <class A>
FASTSEQ_INLINE int64_t forward_rows_scratch(const LrnWindow& w, int64_t channels, int64_t rows) {
  return rows * row_stride<A>(w.size, channels);
}

// emit(row, c, y): y of a row's channels c, c + 1, ...
template <class Kind, int kSize, class Emit>
FASTSEQ_INLINE void lrn_forward_rows(const LrnNumbers<typename Kind::A>& lrn,
                                     const typename Kind::S* x, int64_t channels, int64_t rows,
                                     typename Kind::A* scratch, const Emit& emit) {
  using A = typename Kind::A;
  using V = typename Kind::V;
  const int64_t L = Kind::L, stride = row_stride<A>(lrn.size, channels);
  const Power<A, Kind::kBeta> power(lrn.beta);
  fill_row(scratch, rows * stride);
  for (int64_t r = 0; r < rows; ++r) {
    A* const squares = scratch + r * stride + lrn.before;
    for (int64_t c = 0; c < channels; c += L) {
      const V v = Kind::input(x + r * channels + c, channels - c);
      store<A>(squares + c, v * v);
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    const A* const squares = scratch + r * stride;  // the window of channel c starts at c
    for (int64_t c = 0; c < channels; c += L) {
      const V s = lrn.k + lrn.scale * window_sum<A, kSize>(squares + c, lrn.size);
      emit(r, c, Kind::input(x + r * channels + c, channels - c) * power(s));
    }
  }
}

template <class A>
FASTSEQ_INLINE int64_t backward_rows_scratch(const LrnWindow& w, int64_t channels, int64_t rows) {
  return 3 * forward_rows_scratch<A>(w, channels, rows);
}

// grad(row, c): the gradient of a row's channels c, c + 1, ...; emit(row, c, dx).
template <class Kind, int kSize, class Grad, class Emit>
FASTSEQ_INLINE void lrn_backward_rows(const LrnNumbers<typename Kind::A>& lrn,
                                      const typename Kind::S* x, int64_t channels, int64_t rows,
                                      typename Kind::A* scratch, const Grad& grad,
                                      const Emit& emit) {
  using A = typename Kind::A;
  using V = typename Kind::V;
  const int64_t L = Kind::L, stride = row_stride<A>(lrn.size, channels);
  const Power<A, Kind::kBeta> power(lrn.beta);
  A* const all_squares = scratch;
  A* const all_terms = all_squares + rows * stride;
  A* const all_direct = all_terms + rows * stride;
  fill_row(scratch, 2 * rows * stride);
  for (int64_t r = 0; r < rows; ++r) {
    A* const squares = all_squares + r * stride + lrn.before;
    for (int64_t c = 0; c < channels; c += L) {
      const V v = Kind::input(x + r * channels + c, channels - c);
      prefetch_to_read(x + (rows + r) * channels + c);
      store<A>(squares + c, v * v);
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    const A* const squares = all_squares + r * stride;
    A* const terms = all_terms + r * stride + lrn.after;
    A* const direct = all_direct + r * stride;
    for (int64_t c = 0; c < channels; c += L) {
      const V s = lrn.k + lrn.scale * window_sum<A, kSize>(squares + c, lrn.size);
      const V g = grad(r, c);
      V f, q;
      power.both(s, f, q);
      // Beyond the last channel x is 0, and 0 * q is NaN where k is 0.
      V term = g * Kind::input(x + r * channels + c, channels - c) * q;
      if (channels - c < L) {
        for (int64_t i = channels - c; i < L; ++i) term[i] = 0;
      }
      store<A>(terms + c, term);
      store<A>(direct + c, g * f);
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    const A* const terms = all_terms + r * stride;
    const A* const direct = all_direct + r * stride;
    for (int64_t c = 0; c < channels; c += L) {
      const V own = Kind::input(x + r * channels + c, channels - c);
      const V dx =
          load<A>(direct + c) - lrn.slope * own * window_sum<A, kSize>(terms + c, lrn.size);
      emit(r, c, Kind::kRelu ? VecMath::relu_gradient(own, dx) : dx);
    }
  }
}

// Calls f(LrnKind, size): a copy compiled for the published numbers, beta 0.75 over 5 channels, one
// for any beta over 5, and one for anything. More copies would take minutes to compile.
template <class S, bool kRelu, class F>
FASTSEQ_INLINE void with_kind(const LrnWindow& lrn, const F& f) {
  if constexpr (kCopies && sizeof(S) < 8) {
    if (lrn.size == 5 && lrn.beta == 0.75) {
      return f(LrnKind<S, Beta::kThreeQuarters, kRelu>{}, std::integral_constant<int, 5>{});
    }
  }
  if constexpr (kCopies) {
    if (lrn.size == 5) {
      return f(LrnKind<S, Beta::kDynamic, kRelu>{}, std::integral_constant<int, 5>{});
    }
  }
  f(LrnKind<S, Beta::kDynamic, kRelu>{}, std::integral_constant<int, 0>{});
}

}  // namespace fastseq::FASTSEQ_CAPABILITY
