// The product at the heart of a step: rows of a small state times a packed weight matrix, one
// register tile at a time, each tile handed to an epilogue while it is still in the L1 cache.
//
// A weight matrix is packed once per call into panels. A panel holds, for every k of the inner
// dimension, kWide vectors: one unit block of each gate (gated), or kWide blocks of neighbouring
// outputs (plain). So all gates of a unit meet in one tile and the cell runs in the epilogue.
#pragma once

#include "vec.h"

namespace fastseq::FASTSEQ_CAPABILITY {

constexpr int64_t kPlainWide = 4;

// Where the weight of output n (of gate g) and inner index k lies: src[g*gate + n*out + k*inner].
template <class S>
struct WeightView {
  const S* src;
  int64_t gate, out, inner;
};

struct PanelShape {
  int64_t outputs;  // n: units of one gate
  int64_t inner;    // K
  int64_t wide;     // vectors of a panel
  bool gated;       // the vectors are gates of one unit block
};

template <class A>
FASTSEQ_INLINE int64_t outputs_per_panel(const PanelShape& s) {
  return s.gated ? lanes_of<A> : s.wide * lanes_of<A>;
}
template <class A>
FASTSEQ_INLINE int64_t panel_count(const PanelShape& s) {
  const int64_t per = outputs_per_panel<A>(s);
  return (s.outputs + per - 1) / per;
}
template <class A>
FASTSEQ_INLINE int64_t panel_size(const PanelShape& s) {
  return s.inner * s.wide * lanes_of<A>;
}
template <class A>
FASTSEQ_INLINE int64_t packed_size(const PanelShape& s) {
  return panel_count<A>(s) * panel_size<A>(s);
}

// Packs one panel. Columns beyond the last output are zero.
template <class A, class S>
void pack_panel(const PanelShape& s, const WeightView<S>& w, int64_t panel, A* packed) {
  constexpr int64_t L = lanes_of<A>;
  const int64_t row = s.wide * L;
  const int64_t n0 = panel * outputs_per_panel<A>(s);
  A* const to = packed + panel * panel_size<A>(s);
  for (int64_t v = 0; v < s.wide; ++v) {
    const int64_t block = s.gated ? n0 : n0 + v * L;
    const S* const from = w.src + (s.gated ? v * w.gate : 0) + block * w.out;
    const int64_t left = s.outputs - block;
    const int64_t valid = left < 0 ? 0 : left < L ? left : L;
    if (w.out == 1) {  // outputs lie side by side: copy vectors
      for (int64_t k = 0; k < s.inner; ++k) {
        store<A>(to + k * row + v * L, load_n<A>(from + k * w.inner, valid));
      }
      continue;
    }
    constexpr int64_t kBlock = 16;  // transpose in blocks that stay in the L1 cache
    for (int64_t k0 = 0; k0 < s.inner; k0 += kBlock) {
      const int64_t k1 = k0 + kBlock < s.inner ? k0 + kBlock : s.inner;
      A block_of[kBlock][L] = {};
      for (int64_t j = 0; j < valid; ++j) {
        const S* const line = from + j * w.out;
        for (int64_t k = k0; k < k1; ++k) {
          if constexpr (sizeof(S) == sizeof(A)) {
            block_of[k - k0][j] = line[k * w.inner];
          } else {
            block_of[k - k0][j] = load_n<A>(line + k * w.inner, 1)[0];
          }
        }
      }
      for (int64_t k = k0; k < k1; ++k) {
        store<A>(to + k * row + v * L, load<A>(block_of[k - k0]));
      }
    }
  }
}

// out[r][v] = sum over k of state[r][k] * panel[k][v]. Every element is summed in the order of k,
// whatever tile it falls in: a row's result does not depend on its neighbours.
template <class A, int kRows, int kWide>
__attribute__((noinline)) void tile_product(const A* state, int64_t stride, const A* panel,
                                            int64_t inner, A* out) {
  constexpr int L = lanes_of<A>;
  Vec<A> sum[kRows][kWide];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kWide; ++v) sum[r][v] = Vec<A>{};
  }
  for (int64_t k = 0; k < inner; ++k, panel += kWide * L) {
    Vec<A> w[kWide];
#pragma GCC unroll 8
    for (int v = 0; v < kWide; ++v) w[v] = load<A>(panel + v * L);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Vec<A> s = splat<A>(state[r * stride + k]);
#pragma GCC unroll 8
      for (int v = 0; v < kWide; ++v) sum[r][v] += s * w[v];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kWide; ++v) store<A>(out + (r * kWide + v) * L, sum[r][v]);
  }
}

// The most rows whose sums, one row of weights and one broadcast fit in the registers.
template <int kWide>
constexpr int kMostRows =
    (kRegisters - kWide - 2) / kWide < 8 ? (kRegisters - kWide - 2) / kWide : 8;

template <class A, int kWide, int kRows = kMostRows<kWide>>
FASTSEQ_INLINE void product_of(int64_t rows, const A* state, int64_t stride, const A* panel,
                               int64_t inner, A* out) {
  if (rows == kRows) {
    tile_product<A, kRows, kWide>(state, stride, panel, inner, out);
  } else if constexpr (kRows > 1) {
    product_of<A, kWide, kRows - 1>(rows, state, stride, panel, inner, out);
  }
}

// Asks for the cache lines of n elements from p on, to be read or written soon.
template <bool kWrite, class S>
FASTSEQ_INLINE void prefetch(const S* p, int64_t n) {
  const char* const bytes = reinterpret_cast<const char*>(p);
  for (int64_t i = 0; i < n * static_cast<int64_t>(sizeof(S)); i += 64) {
    __builtin_prefetch(bytes + i, kWrite, 3);
  }
}

// For every panel and row: epilogue(panel, row, tile of that row).
// Panels outermost: a panel is read from memory once and stays in cache for all the rows. Before a
// tile's product, fetch(panel, row) asks for what its epilogue will touch: rows lie kilobytes
// apart, so the hardware does not see those lines coming, and the product takes long enough to hide
// them.
template <class A, int kWide, class Fetch, class Epilogue>
FASTSEQ_INLINE void for_each_tile(const PanelShape& shape, const A* packed, const A* state,
                                  int64_t stride, int64_t rows, const Fetch& fetch,
                                  const Epilogue& epilogue) {
  constexpr int kMost = kMostRows<kWide>;
  constexpr int kTileRow = kWide * lanes_of<A>;
  alignas(64) A tile[kMost * kTileRow];
  const int64_t panels = panel_count<A>(shape);
  const int64_t tiles = (rows + kMost - 1) / kMost;
  for (int64_t p = 0; p < panels; ++p) {
    const A* const panel = packed + p * panel_size<A>(shape);
    for (int64_t i = 0, row = 0; i < tiles; ++i) {
      const int64_t n = (rows - row) / (tiles - i);  // even tiles: 8 rows are 4 + 4, not 6 + 2
      for (int64_t r = 0; r < n; ++r) fetch(p, row + r);
      product_of<A, kWide>(n, state + row * stride, stride, panel, shape.inner, tile);
      for (int64_t r = 0; r < n; ++r) epilogue(p, row + r, tile + r * kTileRow);
      row += n;
    }
  }
}

}  // namespace fastseq::FASTSEQ_CAPABILITY
