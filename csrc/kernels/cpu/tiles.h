// The product at the heart of everything: rows times a packed weight matrix, one register tile at a
// time, each tile handed to an epilogue while it is still in the L1 cache.
#pragma once

#include "lines.h"
#include "panels.h"
#include "plan.h"

namespace fastseq::FASTSEQ_CAPABILITY {

#if defined(__FMA__) || defined(__aarch64__)
constexpr int kFused = 1;
#else
constexpr int kFused = 0;
#endif

// Rows of the inner dimension (groups of them) that a tile goes through before the next tile has
// its turn: a panel of so many stays in the L2 cache for all tiles. Where every product is rounded
// before it is added, and where libraries sum in short vectors, chains are shorter: longer ones
// would be less exact than torch.nn's.
constexpr int64_t kInnerBlock = kFused && kVectorBytes == 64 ? 512 : 128;
// Rows whose tiles are kept while the inner dimension is gone through in blocks.
constexpr int64_t kBlockRows = 48;

// out[r][v] = sum over k of state[r][k] * panel[k][v], or that much more than it was; rows of `out`
// are kPitch vectors apart. Every element is summed in the order of k, whatever tile it falls in: a
// row's result does not depend on its neighbours. kPacked: the rows of the tile lie side by side
// for each group of k.
template <class D, int kRows, int kWide, int kPitch, bool kPacked>
__attribute__((noinline)) void tile_product(const typename D::Item* state, int64_t stride,
                                            const typename D::Item* panel, int64_t groups,
                                            typename D::Sum* out, bool accumulate, Lines* ahead) {
  using A = typename D::Sum;
  constexpr int64_t L = lanes_of<A>;
  Vec<A> sum[kRows][kWide];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kWide; ++v) sum[r][v] = Vec<A>{};
  }
  const auto state_of = [&](int64_t g, int r) __attribute__((always_inline)) {
    return D::state(state + (kPacked ? (g * kRows + r) * D::kPair : r * stride + g * D::kPair));
  };
  const auto multiply = [&](int64_t g) __attribute__((always_inline)) {
    if constexpr (kRegisters >= 32) {  // a row of weights stays in registers, rows come and go
      Vec<A> w[kWide];
#pragma GCC unroll 8
      for (int v = 0; v < kWide; ++v) w[v] = D::weights(panel + v * L * D::kPair);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const Vec<A> s = state_of(g, r);
#pragma GCC unroll 8
        for (int v = 0; v < kWide; ++v) D::add(sum[r][v], s, w[v]);
      }
    } else {  // the other way round: fewer of them
      Vec<A> s[kRows];
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) s[r] = state_of(g, r);
#pragma GCC unroll 8
      for (int v = 0; v < kWide; ++v) {
        const Vec<A> w = D::weights(panel + v * L * D::kPair);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) D::add(sum[r][v], s[r], w);
      }
    }
    panel += kWide * L * D::kPair;
  };
  int64_t g = 0;
  if (!kPacked && ahead) {
    const int64_t lines = ahead->count();
    for (int64_t i = groups; i < ahead->needed(); ++i) ahead->fetch(i);
    for (; g < (lines < groups ? lines : groups); ++g) {
      ahead->fetch(g);
      multiply(g);
    }
    ahead->pass();
  }
  for (; g < groups; ++g) multiply(g);
  if (accumulate) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < kWide; ++v) sum[r][v] += load<A>(out + (r * kPitch + v) * L);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kWide; ++v) store<A>(out + (r * kPitch + v) * L, sum[r][v]);
  }
}

// One row times two panels, `size` items apart, into out and out + apart: the sums of one panel are
// too few to keep the multipliers busy. Each is taken in the order of k, as those of tile_product.
template <class D, int kWide>
__attribute__((noinline)) void pair_product(const typename D::Item* state,
                                            const typename D::Item* panel, int64_t size,
                                            int64_t groups, typename D::Sum* out, int64_t apart,
                                            bool accumulate) {
  using A = typename D::Sum;
  constexpr int64_t L = lanes_of<A>;
  Vec<A> sum[2][kWide];
#pragma GCC unroll 2
  for (int p = 0; p < 2; ++p) {
#pragma GCC unroll 8
    for (int v = 0; v < kWide; ++v) sum[p][v] = Vec<A>{};
  }
  for (int64_t g = 0; g < groups; ++g) {
    const Vec<A> s = D::state(state + g * D::kPair);
#pragma GCC unroll 2
    for (int p = 0; p < 2; ++p) {
#pragma GCC unroll 8
      for (int v = 0; v < kWide; ++v) {
        D::add(sum[p][v], s, D::weights(panel + p * size + v * L * D::kPair));
      }
    }
    panel += kWide * L * D::kPair;
  }
#pragma GCC unroll 2
  for (int p = 0; p < 2; ++p) {
#pragma GCC unroll 8
    for (int v = 0; v < kWide; ++v) {
      A* const to = out + p * apart + v * L;
      store<A>(to, accumulate ? sum[p][v] + load<A>(to) : sum[p][v]);
    }
  }
}
// Whether it serves: a single row, of which panel p and the next one are whole, by vectors.
template <class D, int kWide>
FASTSEQ_INLINE bool pairs(const PanelShape& shape, int64_t p, int64_t p1, int64_t rows) {
  return !D::kTiled && rows == 1 && p + 1 < p1 && panel_width<D>(shape, p + 1) == kWide;
}
template <class D, int kWide, class... Arguments>
FASTSEQ_INLINE void product_of_pair(Arguments... arguments) {
  if constexpr (!D::kTiled) pair_product<D, kWide>(arguments...);
}

// The most rows whose sums fit in the registers, beside what a product reads (and, where there is
// no fused multiply-add, the product).
template <int kWide>
constexpr int kFittingRows =
    kRegisters >= 32 ? (kRegisters - kWide - 2) / kWide : (kRegisters - 2 + kFused) / (kWide + 1);
template <int kWide>
constexpr int kMostRows = kFittingRows<kWide> < 8 ? kFittingRows<kWide> : 8;

template <class D, int kWide, int kPitch, bool kPacked, int kRows = kMostRows<kPitch>>
FASTSEQ_INLINE void product_by_rows(int64_t rows, const typename D::Item* state, int64_t stride,
                                    const typename D::Item* panel, int64_t groups,
                                    typename D::Sum* out, bool accumulate, Lines* ahead) {
  if (rows == kRows) {
    tile_product<D, kRows, kWide, kPitch, kPacked>(state, stride, panel, groups, out, accumulate,
                                                   ahead);
  } else if constexpr (kRows > 1) {
    product_by_rows<D, kWide, kPitch, kPacked, kRows - 1>(rows, state, stride, panel, groups, out,
                                                          accumulate, ahead);
  }
}

// A tile of a panel `wide` vectors wide: kPitch of them, or fewer in the last plain panel.
template <class D, int kPitch, bool kPacked = false, int kWide = kPitch>
FASTSEQ_INLINE void product_of(typename D::Unit& unit, int64_t wide, int64_t rows,
                               const typename D::Item* state, int64_t stride,
                               const typename D::Item* panel, int64_t groups, typename D::Sum* out,
                               bool accumulate, Lines* ahead = nullptr) {
  if (wide == kWide) {
    if constexpr (D::kTiled) {
      D::template product<kWide, kPitch, kPacked>(unit, rows, state, stride, panel, groups, out,
                                                  accumulate, ahead);
    } else {
      product_by_rows<D, kWide, kPitch, kPacked>(rows, state, stride, panel, groups, out,
                                                 accumulate, ahead);
    }
  } else if constexpr (kWide > 1 && kPitch == kPlainWide) {  // gates come all together
    product_of<D, kPitch, kPacked, kWide - 1>(unit, wide, rows, state, stride, panel, groups, out,
                                              accumulate, ahead);
  }
}

// The most rows of a tile whose panels are kWide vectors wide.
template <class D, int kWide>
constexpr int64_t most_rows() {
  if constexpr (D::kTiled) {
    return D::Unit::kRows;
  } else {
    return kMostRows<kWide>;
  }
}
template <class D, int kWide>
FASTSEQ_INLINE int64_t tiles_of(int64_t rows) {
  return (rows + most_rows<D, kWide>() - 1) / most_rows<D, kWide>();
}
// Cuts rows into tiles of even heights (8 rows are 4 + 4, not 6 + 2): f(first row, rows).
template <class D, int kWide, class F>
FASTSEQ_INLINE void each_tile(int64_t rows, const F& f) {
  const int64_t tiles = tiles_of<D, kWide>(rows);
  for (int64_t i = 0, row = 0; i < tiles; ++i) {
    const int64_t n = (rows - row) / (tiles - i);
    f(row, n);
    row += n;
  }
}

// Bytes of a block of a panel, the unit in which weights are read, if a sweep over so many panels
// finds its weights no longer in the L2 cache, and has tiles enough to ask for them early; else 0.
template <class D>
FASTSEQ_INLINE int64_t streamed_block(const PanelShape& shape, int64_t panels, int64_t rows,
                                      int64_t tile) {
  const int64_t panel = panel_size<D>(shape) * static_cast<int64_t>(sizeof(typename D::Item));
  if (rows <= tile || !streams(panels * panel)) return 0;
  const int64_t groups = inner_groups<D>(shape.inner);
  return groups <= kInnerBlock ? panel : panel / groups * kInnerBlock;
}

// For every panel of [p0, p1) and every row: epilogue(panel, row, tile of that row).
// Panels outermost: a panel is read from memory once and stays in cache for all the rows.
// fetch(panel, row, lines) names what the epilogue will touch, to be asked for during the tile's
// last product: rows lie kilobytes apart, so the hardware does not see those lines coming.
template <class D, int kWide, class Fetch, class Epilogue>
FASTSEQ_INLINE void for_each_tile(const PanelShape& shape, const typename D::Item* packed,
                                  int64_t p0, int64_t p1, const typename D::Item* state,
                                  int64_t stride, int64_t rows, const Fetch& fetch,
                                  const Epilogue& epilogue) {
  constexpr int64_t kLanes = lanes_of<typename D::Sum>, kTileRow = kWide * kLanes;
  alignas(64) typename D::Sum block[kBlockRows * kTileRow];
  typename D::Unit unit;
  Lines lines;
  const int64_t groups = inner_groups<D>(shape.inner);
  const bool single = groups <= kInnerBlock;
  const int64_t blocks = (rows + kBlockRows - 1) / kBlockRows;
  const int64_t streamed = streamed_block<D>(shape, p1 - p0, rows, most_rows<D, kWide>());
  for (int64_t p = p0, done; p < p1; p += done) {
    const typename D::Item* const panel = packed + p * panel_size<D>(shape);
    const int64_t wide = panel_width<D>(shape, p), inner_step = wide * kLanes * D::kPair;
    const bool pair = pairs<D, kWide>(shape, p, p1, rows);
    done = pair ? 2 : 1;
    for (int64_t b = 0, row0 = 0; b < blocks; ++b) {
      const int64_t height = (rows - row0) / (blocks - b);
      int64_t g0 = 0;
      do {  // once at least: a product over nothing is zero
        const bool last = g0 + kInnerBlock >= groups;
        const int64_t count = last ? groups - g0 : kInnerBlock;
        if (streamed) {  // more of the panel, the panel again for other rows, or another
          const bool again = b + 1 < blocks;
          const typename D::Item* const next = !last   ? panel + (g0 + count) * inner_step
                                               : again ? panel
                                                       : panel + panel_size<D>(shape);
          const bool any = !last || (again ? !single : p + 1 < p1);
          lines.clear();
          lines.stream(next, any ? streamed : 0, tiles_of<D, kWide>(height));
        }
        each_tile<D, kWide>(height, [&](int64_t in_block,
                                        int64_t n) __attribute__((always_inline)) {
          const int64_t row = row0 + in_block, items = pair ? 2 : n;  // rows, or panels of one row
          typename D::Sum* const out = single ? block : block + in_block * kTileRow;
          if (last) {
            lines.clear();
            for (int64_t i = 0; i < items; ++i) {
              fetch(pair ? p + i : p, pair ? row : row + i, lines);
            }
          }
          if (pair) {
            if (last) lines.fetch_needed();
            product_of_pair<D, kWide>(state + g0 * D::kPair, panel + g0 * inner_step,
                                      panel_size<D>(shape), count, out, kTileRow, g0 > 0);
          } else {
            product_of<D, kWide>(unit, wide, n, state + row * stride + g0 * D::kPair, stride,
                                 panel + g0 * inner_step, count, out, g0 > 0,
                                 last || streamed ? &lines : nullptr);
          }
          if (last) {
            for (int64_t i = 0; i < items; ++i) {
              epilogue(pair ? p + i : p, pair ? row : row + i, out + i * kTileRow);
            }
          }
        });
        g0 += kInnerBlock;
      } while (g0 < groups);
      row0 += height;
    }
  }
}

// The same where the epilogue is short, or a call a panel costs it little: one copy of the loops
// for all such.
template <class D, int kWide>
__attribute__((noinline)) void sweep_tiles(const PanelShape& shape, const typename D::Item* packed,
                                           int64_t p0, int64_t p1, const typename D::Item* state,
                                           int64_t stride, int64_t rows, void* epilogue,
                                           void (*run)(void* epilogue, int64_t panel, int64_t row,
                                                       const typename D::Sum* tile)) {
  for_each_tile<D, kWide>(
      shape, packed, p0, p1, state, stride, rows, [](int64_t, int64_t, Lines&) {},
      [&](int64_t panel, int64_t row, const typename D::Sum* tile)
          __attribute__((always_inline)) { run(epilogue, panel, row, tile); });
}
template <class D, int kWide, class Epilogue>
FASTSEQ_INLINE void sweep_tiles(const PanelShape& shape, const typename D::Item* packed, int64_t p0,
                                int64_t p1, const typename D::Item* state, int64_t stride,
                                int64_t rows, Epilogue epilogue) {
  sweep_tiles<D, kWide>(shape, packed, p0, p1, state, stride, rows, &epilogue,
                        [](void* self, int64_t panel, int64_t row, const typename D::Sum* tile) {
                          (*static_cast<Epilogue*>(self))(panel, row, tile);
                        });
}

// Adds the product to out, [panel of [p0, p1)][row][tile row]; panels `pitch` rows apart.
template <class D, int kWide>
FASTSEQ_INLINE void add_product(const PanelShape& shape, const typename D::Item* packed, int64_t p0,
                                int64_t p1, const typename D::Item* state, int64_t stride,
                                int64_t rows, typename D::Sum* out, int64_t pitch) {
  constexpr int64_t kLanes = lanes_of<typename D::Sum>, kTileRow = kWide * kLanes;
  const int64_t groups = inner_groups<D>(shape.inner);
  const int64_t streamed = streamed_block<D>(shape, p1 - p0, rows, most_rows<D, kWide>());
  typename D::Unit unit;
  Lines lines;
  for (int64_t p = p0, done; p < p1; p += done) {
    const typename D::Item* const panel = packed + p * panel_size<D>(shape);
    const int64_t wide = panel_width<D>(shape, p), inner_step = wide * kLanes * D::kPair;
    const bool pair = pairs<D, kWide>(shape, p, p1, rows);
    done = pair ? 2 : 1;
    typename D::Sum* const to = out + (p - p0) * pitch * kTileRow;
    for (int64_t g0 = 0; g0 < groups; g0 += kInnerBlock) {
      const int64_t count = groups - g0 < kInnerBlock ? groups - g0 : kInnerBlock;
      if (streamed) {
        const bool any = g0 + count < groups || p + 1 < p1;
        lines.stream(panel + (g0 + count) * inner_step, any ? streamed : 0,
                     tiles_of<D, kWide>(rows));
      }
      if (pair) {
        product_of_pair<D, kWide>(state + g0 * D::kPair, panel + g0 * inner_step,
                                  panel_size<D>(shape), count, to, pitch * kTileRow, true);
        continue;
      }
      each_tile<D, kWide>(rows, [&](int64_t row, int64_t n) __attribute__((always_inline)) {
        product_of<D, kWide>(unit, wide, n, state + row * stride + g0 * D::kPair, stride,
                             panel + g0 * inner_step, count, to + row * kTileRow, true,
                             streamed ? &lines : nullptr);
      });
    }
  }
}

}  // namespace fastseq::FASTSEQ_CAPABILITY
