// Max-pooling of channels_last images by windows of 3 x 3 pixels, two apart, as part of a walk down
// the rows (rows.cuh). Forward: a thread owns some elements of a row of outputs, and keeps the
// maxima of rows that it has met; a window's last row is the next one's first. Backward: a thread
// owns 2 x 2 pixels, which four outputs look at.
#pragma once

#include "pool_strip.cuh"
#include "rows.cuh"

namespace fastseq::cuda {

// Elements that a thread computes at once, neighbours in a pixel.
template <bool kFlat>
constexpr int kRun = kFlat ? 1 : 4;

// Runs of a thread: four elements, of one pixel or of any.
template <bool kFlat>
constexpr int kRuns = 4 / kRun<kFlat>;

// Vectors that a thread fetches of two rows: four outputs look at 16 elements and some.
template <class S>
constexpr int kRowMoves = (20 + kPack<S> - 1) / kPack<S>;

// What a tile of so many outputs takes.
template <class S, bool kFlat>
TileNeeds pool_rows_needs(int columns, int channels) {
  constexpr int V = kPack<S>;
  const int64_t inputs = 2 * row_vectors<V, kFlat>(2 * columns + 1, channels);
  const int64_t outputs =
      larger(divide_up(columns * int64_t{channels}, 4), row_vectors<V, kFlat>(columns, channels));
  const int64_t bytes = row_bytes<S, V, kFlat>(2 * columns + 1, channels);
  const int64_t out_bytes =
      row_bytes<S, V, kFlat>(columns, channels) + row_bytes<uint8_t, V, kFlat>(columns, channels);
  return {inputs, kRowMoves<S>, whole_warps(larger(outputs, divide_up(inputs, kRowMoves<S>))),
          bytes + (kFlat ? out_bytes : 0)};
}

// Forward, a tile of x: the columns that its outputs look at.
struct RowColumns {
  int first, last;

  FASTSEQ_DEVICE RowColumns(const Window3& window, const RowWalk& walk)
      : first(at_least(window.w.start(walk.column), 0)),
        last(at_most(window.w.start(walk.column + walk.columns - 1) + 3, window.width)) {}
};
// Its rows.
struct RowBand {
  int first, last;

  FASTSEQ_DEVICE RowBand(const Window3& window, const RowWalk& walk)
      : first(at_least(window.h.start(walk.from), 0)),
        last(at_most(window.h.start(walk.to - 1) + 3, window.height)) {}
};

// A block's outputs, in a tensor of theirs.
template <class T>
FASTSEQ_DEVICE RowsOf<T> pooled_rows(T* tensor, const Images& images, const Window3& window,
                                     const RowWalk& walk) {
  return {
      tensor, images, walk, window.h.out, window.w.out, walk.column, walk.column + walk.columns};
}

// A thread's outputs, and where the results of all of them go.
template <class S, bool kFlat>
class RowPool {
 public:
  static constexpr int V = kRun<kFlat>;

  // `left`: the image's column where the rows begin that it pools. offsets: perhaps null. `shared`:
  // an offset.
  FASTSEQ_DEVICE RowPool(const Images& images, const Window3& window, const RowWalk& walk, int left,
                         S* y, uint8_t* offsets, int64_t shared)
      : window_(window),
        walk_(walk),
        saves_(offsets),
        y_(pooled_rows(y, images, window, walk), 0, shared),
        offsets_(pooled_rows(offsets, images, window, walk), 0,
                 shared + (kFlat ? bytes(walk.columns, walk.channels) : 0)) {
    const int of_pixel = walk.channels / V;
    FASTSEQ_UNROLL(kRuns<kFlat>) for (int m = 0; m < kRuns<kFlat>; ++m) {
      const int column = item(m) / of_pixel, channel = (item(m) - column * of_pixel) * V;
      const int w = window.w.start(walk.column + column);
      out_[m] = kFlat ? item(m) : column * static_cast<int>(images.channels) + channel;
      corner_[m] = (w - left) * walk.channels + channel;
      FASTSEQ_UNROLL(3) for (int j = 0; j < 3; ++j) {
        const bool inside = column < walk.columns && w + j >= 0 && w + j < window.width;
        inside_ |= inside << (3 * m + j);
      }
    }
  }

  // Pools rows start(o) and start(o) + 1: these end outputs o - 1 and begin outputs o.
  // value(row, i) is a Pack<S, V> of the tile's elements from i on.
  template <class Value>
  FASTSEQ_DEVICE void pool(int o, const Value& value) {
    const int h = window_.h.start(o);
    FASTSEQ_UNROLL(kRuns<kFlat>) for (int m = 0; m < kRuns<kFlat>; ++m) {
      if (!inside(m)) continue;
      Best<A> top[V];
      if (h >= 0 && h < window_.height) across(m, h, value, top);
      if (o > walk_.from) {
        offer(m, top, 6);
        write(o - 1, m);
      }
      if (o == walk_.to) continue;
      const int place = 3 * window_.h.first(o) + (inside(m) & 1 ? 0 : 1);
      FASTSEQ_UNROLL(V) for (int v = 0; v < V; ++v) keep(m * V + v, {-INFINITY, place});
      offer(m, top, 0);
      if (h + 1 >= window_.height) continue;
      Best<A> middle[V];
      across(m, h + 1, value, middle);
      offer(m, middle, 3);
    }
  }
  // Stores outputs o, behind a barrier.
  FASTSEQ_DEVICE void store(int o) const {
    if constexpr (kFlat) {
      y_.store(o, walk_.from, walk_.to);
      if (saves_) offsets_.store(o, walk_.from, walk_.to);
    }
  }
  static FASTSEQ_HD int64_t bytes(int columns, int channels) {
    return row_bytes<S, kPack<S>, kFlat>(columns, channels);
  }

 private:
  using A = accumulate_t<S>;

  FASTSEQ_DEVICE static int item(int m) {
    return device::thread_index() + m * device::block_size();
  }
  // Which of the three columns of the m-th window are in the image, as bits; 0: there is no window.
  FASTSEQ_DEVICE int inside(int m) const { return inside_ >> 3 * m & 7; }
  // The maxima of row h, of the three columns that the m-th outputs look at.
  template <class Value>
  FASTSEQ_DEVICE void across(int m, int h, const Value& value, Best<A> (&best)[V]) const {
    FASTSEQ_UNROLL(3) for (int j = 0; j < 3; ++j) {
      if (!(inside(m) >> j & 1)) continue;
      const auto x = value(h, corner_[m] + j * walk_.channels);
      FASTSEQ_UNROLL(V) for (int v = 0; v < V; ++v) best[v].offer(device::widen(x.get(v)), j);
    }
  }
  FASTSEQ_DEVICE void offer(int m, const Best<A> (&row)[V], int place) {
    FASTSEQ_UNROLL(V) for (int v = 0; v < V; ++v) {
      const int i = m * V + v;
      Best<A> best{device::widen(values_.get(i)), places_.get(i)};
      best.offer(row[v].value, place + row[v].place);
      keep(i, best);
    }
  }
  // As S, which holds a maximum as well, and its place as a byte: registers are few.
  FASTSEQ_DEVICE void keep(int i, const Best<A>& best) {
    values_.set(i, device::narrow<S>(best.value));
    places_.set(i, static_cast<uint8_t>(best.place));
  }
  FASTSEQ_DEVICE void write(int o, int m) const {
    device::Pack<S, V> y;
    device::Pack<uint8_t, V> places;
    FASTSEQ_UNROLL(V) for (int v = 0; v < V; ++v) {
      y.set(v, values_.get(m * V + v));
      places.set(v, places_.get(m * V + v));
    }
    y_.template write<V>(o, out_[m], y);
    if (saves_) offsets_.template write<V>(o, out_[m], places);
  }

  const Window3& window_;
  const RowWalk& walk_;
  bool saves_;
  int inside_ = 0;
  int out_[kRuns<kFlat>], corner_[kRuns<kFlat>];  // in a row of outputs; of its window, in the tile
  device::Pack<S, 4> values_;                     // the maxima so far, of all runs
  device::Pack<uint8_t, 4> places_;
  RowMover<S, kPack<S>, 1, 1, kFlat> y_;
  RowMover<uint8_t, kPack<S>, 1, 1, kFlat> offsets_;
};

// Blocks on a multiprocessor that registers are for; Turing rounds to bfloat16 by many
// instructions, and has room for two without spills.
template <class S>
constexpr int kRowBlocks = device::kArchitecture / 100 == 7 ? 2
                           : sizeof(S) == 2                 ? 4
                                                            : 3;

template <class S>
struct PoolRowsForward {
  Images images;  // of x
  const S* x;
  S* y;
  uint8_t* offsets;  // may be null
  Window3 window;
  RowCuts cuts;
};

template <class S, bool kFlat>
FASTSEQ_KERNEL_OF(device::kBlock, kRowBlocks<S>)
pool_rows_forward(PoolRowsForward<S> a) {
  const Window3& window = a.window;
  const RowWalk walk(a.images, a.cuts, window.w.out, window.h.out);
  const RowColumns columns(window, walk);
  const RowBand band(window, walk);
  const int first = window.h.start(walk.from);
  RowMover<const S, kPack<S>, kRowMoves<S>, 2, kFlat> in(
      {a.x, a.images, walk, window.height, window.width, columns.first, columns.last}, first, 0);
  RowPool<S, kFlat> out(a.images, window, walk, columns.first, a.y, a.offsets,
                        row_bytes<S, kPack<S>, kFlat>(columns.last - columns.first, walk.channels));
  in.fetch(first, band.first, band.last);
  for (int o = walk.from; o <= walk.to; ++o) {
    const int h = window.h.start(o);
    in.put(h, band.first, band.last);
    device::sync();
    in.fetch(h + 2, band.first, band.last);
    out.pool(o, [&](int row, int i) { return in.template get<kRun<kFlat>>(row, i); });
    device::sync();
    out.store(o - 1);
  }
}

// Backward: of a tile, the columns of pixels, and those of the outputs that look at them.
struct QuadColumns {
  int first, last, first_output, last_output;

  FASTSEQ_DEVICE QuadColumns(const Window3& window, const RowWalk& walk)
      : first(at_least(window.w.start(walk.column), 0)),
        last(at_most(window.w.start(walk.column + walk.columns), window.width)),
        first_output(at_least(walk.column - 1, 0)),
        last_output(at_least(at_most(walk.column + walk.columns, window.w.out), first_output)) {}
};

// A thread's quad: a run in each of 2 x 2 pixels, the upper left of which is in column `w`. An
// element of one of these is i = pixel * step + channel.
template <bool kFlat>
struct Quad {
  int column, channel, w;
  bool mine;

  FASTSEQ_DEVICE Quad(const Window3& window, const RowWalk& walk) {
    const int item = device::thread_index();
    const int of_pixel = walk.channels / kRun<kFlat>;
    column = item / of_pixel;
    channel = (item - column * of_pixel) * kRun<kFlat>;
    mine = column < walk.columns;
    column += walk.column;
    w = window.w.start(column);
  }
};

// The gradients of a pool's input, from staged outputs; those of rows o - 1 and o are there at
// once.
template <class S, bool kFlat, bool kGroups>
class QuadGradient {
 public:
  static constexpr int V = kRun<kFlat>, kMoves = kFlat ? 1 : 8 / kPack<S>;
  using A = accumulate_t<S>;

  FASTSEQ_DEVICE QuadGradient(const Images& images, const Window3& window, const RowWalk& walk,
                              const QuadColumns& columns, const S* grad_y, const uint8_t* offsets,
                              int64_t shared)
      : window_(window),
        walk_(walk),
        first_output_(columns.first_output),
        grad_y_({grad_y, images, walk, window.h.out, window.w.out, columns.first_output,
                 columns.last_output},
                0, shared),
        offsets_({offsets, images, walk, window.h.out, window.w.out, columns.first_output,
                  columns.last_output},
                 0,
                 shared + row_bytes<S, kPack<S>, kFlat>(columns.last_output - columns.first_output,
                                                        walk.channels)) {}

  // The outputs above the walk's first, and its first are on their way.
  FASTSEQ_DEVICE void begin() {
    fetch(walk_.from - 1);
    put(walk_.from - 1);
    fetch(walk_.from);
  }
  // Of outputs o.
  FASTSEQ_DEVICE void fetch(int o) {
    const int to = at_most(walk_.to, window_.h.out);
    grad_y_.fetch(o, at_least(walk_.from - 1, 0), to);
    offsets_.fetch(o, at_least(walk_.from - 1, 0), to);
  }
  FASTSEQ_DEVICE void put(int o) const {
    const int to = at_most(walk_.to, window_.h.out);
    grad_y_.put(o, at_least(walk_.from - 1, 0), to);
    offsets_.put(o, at_least(walk_.from - 1, 0), to);
  }
  // Of the quad in rows start(o) and start(o) + 1: sums in ascending order of the outputs.
  FASTSEQ_DEVICE void get(int o, const Quad<kFlat>& quad, A (&g)[2][2][V]) const {
    FASTSEQ_UNROLL(4) for (int p = 0; p < 4; ++p) {
      FASTSEQ_UNROLL(V) for (int v = 0; v < V; ++v) g[p >> 1][p & 1][v] = 0;
    }
    FASTSEQ_UNROLL(4) for (int i = 0; i < 4; ++i) {
      const int below = i >> 1, right = i & 1;  // of the four outputs
      const int oh = o - 1 + below, ow = quad.column - 1 + right;
      if (oh < 0 || oh >= window_.h.out || ow < 0 || ow >= window_.w.out) continue;
      const int at = (ow - first_output_) * walk_.channels + quad.channel;
      const auto grad = grad_y_.template get<V>(oh, at);
      const auto chosen = offsets_.template get<V>(oh, at);
      // Outputs above look at the quad with their last row, outputs on the left with their last
      // column.
      FASTSEQ_UNROLL(2) for (int row = 0; row <= below; ++row) {
        FASTSEQ_UNROLL(2) for (int column = 0; column <= right; ++column) {
          const int place = (below ? row : 2) * 3 + (right ? column : 2);
          FASTSEQ_UNROLL(V) for (int v = 0; v < V; ++v) {
            if (chosen.get(v) == place) g[row][column][v] += device::widen(grad.get(v));
          }
        }
      }
    }
  }
  static FASTSEQ_HD int64_t bytes(int columns, int channels) {
    return row_bytes<S, kPack<S>, kFlat>(columns, channels) +
           row_bytes<uint8_t, kPack<S>, kFlat>(columns, channels);
  }

 private:
  const Window3& window_;
  const RowWalk& walk_;
  int first_output_;
  RowMover<const S, kPack<S>, kMoves, 1, kFlat, kGroups> grad_y_;
  RowMover<const uint8_t, kPack<S>, kMoves, 1, kFlat, kGroups> offsets_;
};

// Where the gradients of two rows of pixels go: a thread has four runs of them.
template <class S, bool kFlat>
using QuadRows = RowMover<S, kPack<S>, kFlat ? 1 : 16 / kPack<S>, 2, kFlat>;

// f(row, column, h, i): the pixels of a quad that are in the image, and in the tile's row h the
// quad's first element, as memory counts.
template <bool kFlat, class F>
FASTSEQ_DEVICE void for_quad(const Window3& window, const QuadColumns& columns, int step, int o,
                             const Quad<kFlat>& quad, const F& f) {
  if (!quad.mine) return;
  FASTSEQ_UNROLL(2) for (int row = 0; row < 2; ++row) {
    FASTSEQ_UNROLL(2) for (int column = 0; column < 2; ++column) {
      const int h = window.h.start(o) + row, w = quad.w + column;
      if (h < 0 || h >= window.height || w < 0 || w >= window.width) continue;
      f(row, column, h, (w - columns.first) * step + quad.channel);
    }
  }
}

// What a tile of so many quads takes: they move outputs, and what is flat their pixels, too.
template <class S, bool kFlat>
TileNeeds pool_quads_needs(int columns, int channels) {
  constexpr int V = kPack<S>, kMoves = QuadGradient<S, kFlat, !kFlat>::kMoves;
  const int64_t outputs = row_vectors<V, kFlat>(columns + 1, channels);
  const int64_t pixels = 2 * row_vectors<V, kFlat>(2 * columns, channels);
  const int64_t quads = columns * int64_t{channels} / kRun<kFlat>;
  const int64_t movers =
      larger(divide_up(outputs, kMoves), divide_up(pixels, QuadRows<S, kFlat>::kMoves));
  const int64_t out_bytes = row_bytes<S, V, kFlat>(2 * columns, channels);
  return {outputs, kMoves, whole_warps(larger(quads, movers)),
          QuadGradient<S, kFlat, !kFlat>::bytes(columns + 1, channels) + (kFlat ? out_bytes : 0)};
}

template <class S>
struct PoolRowsBackward {
  Images images;  // of x
  const S* grad_y;
  const uint8_t* offsets;
  S* grad_x;
  Window3 window;
  RowCuts cuts;
};

template <class S, bool kFlat>
FASTSEQ_KERNEL pool_rows_backward(PoolRowsBackward<S> a) {
  constexpr int V = kRun<kFlat>;
  const Window3& window = a.window;
  const RowWalk walk(a.images, a.cuts, pairs(window.w, window.width),
                     pairs(window.h, window.height));
  const QuadColumns columns(window, walk);
  const QuadRows<S, kFlat> out(
      {a.grad_x, a.images, walk, window.height, window.width, columns.first, columns.last},
      window.h.start(0), 0);
  QuadGradient<S, kFlat, !kFlat> gradient(
      a.images, window, walk, columns, a.grad_y, a.offsets,
      kFlat ? row_bytes<S, kPack<S>, kFlat>(columns.last - columns.first, walk.channels) : 0);
  const Quad<kFlat> quad(window, walk);
  const int top = at_least(window.h.start(walk.from), 0);
  gradient.begin();
  for (int o = walk.from; o < walk.to; ++o) {
    gradient.put(o);
    device::sync();
    gradient.fetch(o + 1);
    if (quad.mine) {
      accumulate_t<S> g[2][2][V];
      gradient.get(o, quad, g);
      for_quad(window, columns, static_cast<int>(a.images.channels), o, quad,
               [&](int row, int column, int h, int i) {
                 device::Pack<S, V> pack;
                 FASTSEQ_UNROLL(V) for (int v = 0; v < V; ++v) {
                   pack.set(v, device::narrow<S>(g[row][column][v]));
                 }
                 out.template write<V>(h, i, pack);
               });
    }
    device::sync();
    if constexpr (kFlat) out.store(window.h.start(o), top, window.height);
  }
}

}  // namespace fastseq::cuda
