// ReLU -> LRN -> max-pool of channels_last images by the usual window: a block walks down the rows
// of some columns (rows.cuh), with all channels of a pixel at once, so that no window of LRN is
// cut.
#pragma once

#include "lrn.h"
#include "pool_rows.cuh"

namespace fastseq::cuda {

// Blocks on a multiprocessor that registers are for: three go without spills on Hopper, and forward
// on Ampere.
constexpr bool kHopper = device::kArchitecture / 100 == 9;
constexpr int kTrioRowForwardBlocks = kHopper || device::kArchitecture / 100 == 8 ? 3 : 2;
constexpr int kTrioRowBackwardBlocks = kHopper ? 3 : 2;

// Channels [c - N / 2, c + V + (N - 1) / 2) of a pixel in shared memory, zeros beyond the first and
// the last of its C channels, as Input reads them. Element i is channel c.
template <int V, int N, class Input, class T, class A>
FASTSEQ_DEVICE void channels_around(const device::Shared<T>& memory, int i, int c, int channels,
                                    A (&values)[V + N - 1]) {
  constexpr int kBefore = N / 2;
  if constexpr (V == 1) {
    FASTSEQ_UNROLL(N) for (int j = 0; j < N; ++j) {
      const int channel = c + j - kBefore;
      const bool inside = channel >= 0 && channel < channels;
      values[j] = inside ? Input::of(A(device::widen(memory.get(i + j - kBefore)))) : A(0);
    }
  } else {
    static_assert(N == 5 && V % 2 == 0);  // pairs on either side
    const auto own = memory.template pack<V>(i);
    device::Pack<T, 2> left{}, right{};
    if (c > 0) left = memory.template pack<2>(i - 2);
    if (c + V < channels) right = memory.template pack<2>(i + V);
    FASTSEQ_UNROLL(V)
    for (int v = 0; v < V; ++v) values[2 + v] = Input::of(A(device::widen(own.get(v))));
    FASTSEQ_UNROLL(2) for (int v = 0; v < 2; ++v) {
      values[v] = Input::of(A(device::widen(left.get(v))));
      values[V + 2 + v] = Input::of(A(device::widen(right.get(v))));
    }
  }
}
template <int V, int N, class A, class Add>
FASTSEQ_DEVICE A sum_of(const A (&values)[V + N - 1], int v, const Add& add) {
  A sum = 0;
  FASTSEQ_UNROLL(N) for (int j = 0; j < N; ++j) sum = add(sum, values[v + j]);
  return sum;
}

template <class S, bool kFlat>
TileNeeds trio_rows_needs(int columns, int channels) {
  TileNeeds needs = pool_rows_needs<S, kFlat>(columns, channels);
  needs.bytes += row_bytes<S, kPack<S>, kFlat>(2 * columns + 1, channels);
  return needs;
}

template <class S, int N>
struct TrioRowsForward {
  Images images;
  const S* x;
  S* y;
  uint8_t* offsets;  // may be null
  Norm<S, N> norm;
  Window3 window;
  RowCuts cuts;
};

template <class S, int N, bool kFlat>
FASTSEQ_KERNEL_OF(device::kBlock, kTrioRowForwardBlocks)
trio_rows_forward(TrioRowsForward<S, N> a) {
  using A = accumulate_t<S>;
  constexpr int V = kRun<kFlat>;
  const Window3& window = a.window;
  const RowWalk walk(a.images, a.cuts, window.w.out, window.h.out);
  const RowColumns columns(window, walk);
  const RowBand band(window, walk);
  const int first = window.h.start(walk.from), width = columns.last - columns.first;
  const int C = walk.channels, row = width * C;
  const int64_t bytes = row_bytes<S, kPack<S>, kFlat>(width, C);
  RowMover<const S, kPack<S>, kRowMoves<S>, 2, kFlat, false> in(
      {a.x, a.images, walk, window.height, window.width, columns.first, columns.last}, first, 0);
  const device::Shared<S> ys(bytes, 2 * row);
  RowPool<S, kFlat> out(a.images, window, walk, columns.first, a.y, a.offsets, 2 * bytes);
  const int channel = device::thread_index() * V % C, step = device::block_size() * V % C;
  in.fetch(first, band.first, band.last);
  for (int o = walk.from; o <= walk.to; ++o) {
    const int h = window.h.start(o);
    in.put(h, band.first, band.last);
    device::sync();
    in.fetch(h + 2, band.first, band.last);
    FASTSEQ_UNROLL(1)
    for (int i = device::thread_index() * V, c = channel; i < 2 * row;
         i += device::block_size() * V) {
      const int below = i >= row;
      A values[V + N - 1];
      channels_around<V, N, Relu>(in.memory(), in.at(h + below, i - below * row), c, C, values);
      device::Pack<S, V> y;
      FASTSEQ_UNROLL(V) for (int v = 0; v < V; ++v) {
        const A sum = sum_of<V, N>(values, v, AddSquare{});
        y.set(v, device::narrow<S>(values[v + N / 2] * a.norm.factor(sum)));
      }
      ys.set(i, y);
      c += step;
      if (c >= C) c -= C;
    }
    device::sync();
    out.pool(o, [&](int at, int i) { return ys.template pack<V>((at - h) * row + i); });
    if constexpr (kFlat) {
      device::sync();
      out.store(o - 1);
    }
  }
}

template <class S, bool kFlat>
TileNeeds trio_quads_needs(int columns, int channels) {
  constexpr int V = kPack<S>;
  TileNeeds needs = pool_quads_needs<S, kFlat>(columns, channels);
  const int64_t pixels = 2 * row_vectors<V, kFlat>(2 * columns, channels);
  const int64_t threads = whole_warps(divide_up(pixels, QuadRows<S, kFlat>::kMoves));
  needs.threads = larger(needs.threads, threads);
  needs.vectors += pixels;
  needs.moves += QuadRows<S, kFlat>::kMoves;
  needs.bytes += row_bytes<S, V, kFlat>(2 * columns, channels) +
                 row_bytes<accumulate_t<S>, V, kFlat>(2 * columns, channels);
  return needs;
}

template <class S, int N>
struct TrioRowsBackward {
  Images images;
  const S* grad_y;
  const uint8_t* offsets;
  const S* x;
  S* grad_x;
  Norm<S, N> norm;
  Window3 window;
  RowCuts cuts;
};

template <class S, int N, bool kFlat>
FASTSEQ_KERNEL_OF(device::kBlock, kTrioRowBackwardBlocks)
trio_rows_backward(TrioRowsBackward<S, N> a) {
  using A = accumulate_t<S>;
  constexpr int V = kRun<kFlat>;
  const Window3& window = a.window;
  const RowWalk walk(a.images, a.cuts, pairs(window.w, window.width),
                     pairs(window.h, window.height));
  const QuadColumns columns(window, walk);
  const int C = walk.channels, row = (columns.last - columns.first) * C;
  const int top = at_least(window.h.start(walk.from), 0);
  const int bottom = at_most(window.h.start(walk.to), window.height);
  const int64_t bytes = row_bytes<S, kPack<S>, kFlat>(columns.last - columns.first, C);
  const int64_t t_bytes = row_bytes<A, kPack<S>, kFlat>(columns.last - columns.first, C);
  const int first = window.h.start(walk.from);
  RowMover<const S, kPack<S>, QuadRows<S, kFlat>::kMoves, 2, kFlat, false> in(
      {a.x, a.images, walk, window.height, window.width, columns.first, columns.last}, first, 0);
  const device::Shared<A> ts(bytes, 2 * row);
  const QuadRows<S, kFlat> out(
      {a.grad_x, a.images, walk, window.height, window.width, columns.first, columns.last}, first,
      bytes + t_bytes);
  QuadGradient<S, kFlat, false> gradient(a.images, window, walk, columns, a.grad_y, a.offsets,
                                         bytes + t_bytes + (kFlat ? bytes : 0));
  gradient.begin();
  in.fetch(first, top, bottom);
  for (int o = walk.from; o < walk.to; ++o) {
    const int h0 = window.h.start(o);
    gradient.put(o);
    in.put(h0, top, bottom);
    device::sync();
    A gp[2][2][V];
    if (const Quad<kFlat> quad(window, walk); quad.mine) {
      A g[2][2][V];
      gradient.get(o, quad, g);
      for_quad(window, columns, C, o, quad, [&](int below, int right, int h, int i) {
        A values[V + N - 1];
        channels_around<V, N, Relu>(in.memory(), in.at(h, i), quad.channel, C, values);
        device::Pack<A, V> t;
        FASTSEQ_UNROLL(V) for (int v = 0; v < V; ++v) {
          A p, q;
          a.norm.factors(sum_of<V, N>(values, v, AddSquare{}), p, q);
          t.set(v, g[below][right][v] * values[v + N / 2] * q);
          gp[below][right][v] = g[below][right][v] * p;
        }
        ts.set((h - h0) * row + i, t);
      });
    }
    gradient.fetch(o + 1);  // not before: registers are few
    in.fetch(h0 + 2, top, bottom);
    device::sync();
    const Quad<kFlat> quad(window, walk);  // anew: registers are few
    for_quad(window, columns, C, o, quad, [&](int below, int right, int h, int i) {
      A values[V + N - 1];
      channels_around<V, N, Identity>(ts, (h - h0) * row + i, quad.channel, C, values);
      const auto x = in.template get<V>(h, i);
      device::Pack<S, V> dx;
      FASTSEQ_UNROLL(V) for (int v = 0; v < V; ++v) {
        const A x_v = Math::relu(A(device::widen(x.get(v))));
        const A sum = sum_of<V, N>(values, v, Add{});
        const A value = a.norm.gradient(gp[below][right][v], x_v, sum);
        dx.set(v, device::narrow<S>(Relu::gradient(x_v, value)));
      }
      out.template write<V>(h, i, dx);
    });
    device::sync();
    if constexpr (kFlat) out.store(h0, top, bottom);
  }
}

}  // namespace fastseq::cuda
