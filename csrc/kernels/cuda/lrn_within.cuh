// LRN within a channel: a block owns a tile of pixels of a few channels and keeps it, with the
// windows' halo, in shared memory. The sum over n x n pixels is a sum over columns of sums over
// rows. N: the window's side, 0: any.
#pragma once

#include "lrn_direct.cuh"

namespace fastseq::cuda {

// A tile of th x tw pixels of tc channels (a power of two), channels fastest; a row of threads is
// `lane_count` wide (a power of two).
struct Tile {
  int th = 0, tw = 0, tc = 0, lane_count = 0;
  int shift = 0;                             // log2(tc)
  int64_t down = 0, across = 0, groups = 0;  // tiles of an image

  Tile() = default;
  Tile(const Images& s, int th_, int tw_, int shift_)
      : th(th_), tw(tw_), tc(1 << shift_), shift(shift_) {
    lane_count = tw * tc < 64 ? 32 : 64;
    down = divide_up(s.height, th);
    across = divide_up(s.width, tw);
    groups = divide_up(s.channels, tc);
  }
  int64_t blocks(const Images& s) const { return s.batch * groups * down * across; }
  int64_t forward_values(int64_t n) const {
    return ((th + n - 1) * (tw + n - 1) + (th + n - 1) * tw) * tc;
  }
  int64_t backward_values(int64_t n) const {
    const int64_t m = n - 1;
    return ((th + 2 * m) * (tw + 2 * m) + (th + 2 * m) * (tw + m) + (th + m) * (tw + m) + th * tw) *
           tc;
  }
};

// A block's tile: where it starts, and its elements' indices.
struct Corner {
  int64_t image, channel, h, w;

  FASTSEQ_DEVICE Corner(const Tile& tile) {
    int64_t i = device::block_index(), rest = device::divide(i, tile.across);
    w = (i - rest * tile.across) * tile.tw;
    i = rest, rest = device::divide(i, tile.down);
    h = (i - rest * tile.down) * tile.th;
    image = device::divide(rest, tile.groups);
    channel = (rest - image * tile.groups) * tile.tc;
  }
  // The element at (row, column) of the tile, column = pixel * tc + channel; -1 outside the image.
  FASTSEQ_DEVICE int64_t index(const Images& s, const Tile& tile, int row, int column) const {
    const int64_t y = h + row, x = w + (column >> tile.shift);
    const int64_t c = channel + (column & (tile.tc - 1));
    if (y < 0 || y >= s.height || x < 0 || x >= s.width || c >= s.channels) return -1;
    return image * s.channels * s.pixels() + c * s.channel_stride() +
           (y * s.width + x) * s.pixel_stride();
  }
};

// f(row, column) for all of an array of rows x columns, shared among the block's threads.
template <class F>
FASTSEQ_DEVICE void for_each(const Tile& tile, int rows, int columns, const F& f) {
  const int lane = device::thread_index() & (tile.lane_count - 1);
  const int first = device::thread_index() / tile.lane_count;
  const int step = device::block_size() / tile.lane_count;
  for (int row = first; row < rows; row += step) {
    for (int column = lane; column < columns; column += tile.lane_count) f(row, column);
  }
}

// The sum over n values from `at` on, `step` apart.
template <int N, class A, class Add>
FASTSEQ_DEVICE A line_sum(const device::Shared<A>& from, int at, int step, int n, const Add& add) {
  A sum = 0;
  if constexpr (N > 0) {
    FASTSEQ_UNROLL(N) for (int j = 0; j < N; ++j) sum = add(sum, from.get(at + j * step));
  } else {
    for (int j = 0; j < n; ++j) sum = add(sum, from.get(at + j * step));
  }
  return sum;
}

template <class S, int N>
struct WithinForward {
  Images images;
  const S* x;
  S* y;
  Norm<S, N> norm;
  Tile tile;
};

template <class S, int N>
FASTSEQ_KERNEL_OF(device::kBlock, 3)
within_forward(WithinForward<S, N> a) {
  using A = accumulate_t<S>;
  const Tile& tile = a.tile;
  const int before = static_cast<int>(a.norm.before());
  const int n = before + static_cast<int>(a.norm.after()) + 1;
  const int rows = tile.th + n - 1, wide = (tile.tw + n - 1) * tile.tc, width = tile.tw * tile.tc;
  const Corner corner(tile);
  const device::Shared<A> xs(0, rows * wide);
  const device::Shared<A> row_sums(static_cast<int64_t>(sizeof(A)) * rows * wide, rows * width);
  for_each(tile, rows, wide, [&](int r, int q) {
    const int64_t i = corner.index(a.images, tile, r - before, q - before * tile.tc);
    xs.set(r * wide + q, i < 0 ? A(0) : device::read(a.x + i));
  });
  device::sync();
  for_each(tile, rows, width, [&](int r, int q) {
    row_sums.set(r * width + q, line_sum<N>(xs, r * wide + q, tile.tc, n, AddSquare{}));
  });
  device::sync();
  for_each(tile, tile.th, width, [&](int r, int q) {
    const int64_t i = corner.index(a.images, tile, r, q);
    if (i < 0) return;
    const A sum = line_sum<N>(row_sums, r * width + q, width, n, Add{});
    const A x = xs.get((r + before) * wide + q + before * tile.tc);
    device::store(a.y + i, x * a.norm.factor(sum));
  });
}

template <class S, int N>
struct WithinBackward {
  Images images;
  const S* grad_y;
  const S* x;
  S* grad_x;
  Norm<S, N> norm;
  Tile tile;
};

// x is needed n - 1 pixels around the tile; t, from the sums around it, `after` pixels before the
// tile and `before` pixels behind.
template <class S, int N>
FASTSEQ_KERNEL_OF(device::kBlock, 3)
within_backward(WithinBackward<S, N> a) {
  using A = accumulate_t<S>;
  const Tile& tile = a.tile;
  const int before = static_cast<int>(a.norm.before()), after = static_cast<int>(a.norm.after());
  const int n = before + after + 1, m = n - 1, tc = tile.tc, width = tile.tw * tc;
  const int x_rows = tile.th + 2 * m, x_width = (tile.tw + 2 * m) * tc;
  const int t_rows = tile.th + m, t_width = (tile.tw + m) * tc;
  const Corner corner(tile);
  constexpr int64_t size = sizeof(A);
  const device::Shared<A> xs(0, x_rows * x_width);
  const int64_t sums_at = size * x_rows * x_width;
  const device::Shared<A> row_sums(sums_at, x_rows * t_width);  // of squares, then of t
  const int64_t t_at = sums_at + size * x_rows * t_width;
  const device::Shared<A> ts(t_at, t_rows * t_width);
  const device::Shared<A> gps(t_at + size * t_rows * t_width, tile.th * width);
  for_each(tile, x_rows, x_width, [&](int r, int q) {
    const int64_t i = corner.index(a.images, tile, r - m, q - m * tc);
    xs.set(r * x_width + q, i < 0 ? A(0) : device::read(a.x + i));
  });
  device::sync();
  for_each(tile, x_rows, t_width, [&](int r, int q) {
    row_sums.set(r * t_width + q, line_sum<N>(xs, r * x_width + q, tc, n, AddSquare{}));
  });
  device::sync();
  for_each(tile, t_rows, t_width, [&](int r, int q) {
    const int64_t i = corner.index(a.images, tile, r - after, q - after * tc);
    A t = 0;
    if (i >= 0) {
      A p, qf;
      a.norm.factors(line_sum<N>(row_sums, r * t_width + q, t_width, n, Add{}), p, qf);
      const A g = device::read(a.grad_y + i);
      t = g * xs.get((r + before) * x_width + q + before * tc) * qf;
      const int row = r - after, column = q - after * tc;
      if (row >= 0 && row < tile.th && column >= 0 && column < width) {
        gps.set(row * width + column, g * p);
      }
    }
    ts.set(r * t_width + q, t);
  });
  device::sync();
  for_each(tile, t_rows, width, [&](int r, int q) {
    row_sums.set(r * width + q, line_sum<N>(ts, r * t_width + q, tc, n, Add{}));
  });
  device::sync();
  for_each(tile, tile.th, width, [&](int r, int q) {
    const int64_t i = corner.index(a.images, tile, r, q);
    if (i < 0) return;
    const A sum = line_sum<N>(row_sums, r * width + q, width, n, Add{});
    const A x = xs.get((r + m) * x_width + q + m * tc);
    device::store(a.grad_x + i, a.norm.gradient(gps.get(r * width + q), x, sum));
  });
}

// The largest tile that has room in shared memory for `values`, one of Tile's counts, of A; th = 0:
// none has.
template <class A>
Tile largest_tile(const Images& s, int64_t n, int64_t (Tile::*values)(int64_t) const) {
  constexpr int kPlanes[][3] = {{32, 32, 0}, {16, 32, 0}, {16, 16, 0}, {8, 8, 0}};
  constexpr int kLast[][3] = {{8, 8, 4}, {8, 8, 3}, {4, 8, 3}, {4, 4, 3}};
  for (const auto& [th, tw, shift] : s.channels_last ? kLast : kPlanes) {
    const Tile tile(s, th, tw, shift);
    const int64_t bytes = (tile.*values)(n) * static_cast<int64_t>(sizeof(A));
    if (bytes <= device::kSharedLimit) return tile;
  }
  return {};
}

}  // namespace fastseq::cuda
