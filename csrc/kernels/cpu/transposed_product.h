// Products over all rows, X^T Y: gradients of weights; and sums over all rows: of biases.
#pragma once

#include "recurrence_common.h"

namespace fastseq::FASTSEQ_CAPABILITY {

// One result of a transposed product: out = X^T Y, [columns of X, columns of Y]; null if not
// wanted. y(n)(u, left): the vector of row n of Y from column u on, where `left` columns are left.
template <class S, class Y>
struct Target {
  S* out;
  int64_t columns;
  const Y& y;
};

// X^T Y over all rows n, for some columns of X and all columns of one or two Ys, and the sums of
// X's columns. A block of rows of X is packed tile by tile, then each Y panel by panel; sums are
// kept tile by tile until the end.
template <class S>
struct TransposedProduct {
  using D = dot_t<S>;
  using A = typename D::Sum;
  using Item = typename D::Item;
  using V = Vec<A>;
  static constexpr int64_t L = lanes_of<A>;
  static constexpr int64_t kTileRow = kPlainWide * L;
  static constexpr int64_t kRowBlock = kInnerBlock * D::kPair;  // rows packed at a time
  static constexpr int64_t kColumnChain = 32;                   // rows, as D::kChain

  const S* x;  // [rows, x_stride], from its first column here on
  int64_t rows, x_stride, x_columns;
  Item* packed_x;         // [tile][group][row of tile]; of AMX [tile][16 groups][row][group]
  Item* packed_y;         // one panel
  A* column_sums;         // [column of X], of a chain
  double* column_totals;  // [column of X]
  A* sums;                // of each Y, [panel][column of X][tile row]
  int64_t bytes;

  static constexpr int64_t panels_of(int64_t columns) {
    return (columns + kTileRow - 1) / kTileRow;
  }

  // y_panels: of all Ys together.
  TransposedProduct(const S* x_, int64_t rows_, int64_t stride, int64_t columns, int64_t y_panels,
                    char* base)
      : x(x_), rows(rows_), x_stride(stride), x_columns(columns) {
    Block block{base};
    const int64_t groups = inner_groups<D>(rows < kRowBlock ? rows : kRowBlock);
    packed_x = block.take<Item>(groups * x_columns * D::kPair + 2 * L);
    packed_y = block.take<Item>(groups * kTileRow * D::kPair);
    column_sums = block.take<A>(whole_vectors<A>(x_columns) + L);
    column_totals = block.take<double>(whole_vectors<A>(x_columns) + L);
    sums = block.take<A>(y_panels * x_columns * kTileRow);
    bytes = block.used;
  }

  template <class... Ys>
  FASTSEQ_INLINE void run(S* out_sums, const Target<S, Ys>&... targets) const {
    if (!out_sums && !(targets.out || ...)) return;
    if (out_sums) {
      fill_row(column_sums, whole_vectors<A>(x_columns));
      fill_row(column_totals, whole_vectors<A>(x_columns));
    }
    for (int64_t n0 = 0; n0 < rows; n0 += kRowBlock) {
      const int64_t n = rows - n0 < kRowBlock ? rows - n0 : kRowBlock;
      if ((targets.out || ...)) pack_x(n0, n);
      if (out_sums) add_columns(n0, n);
      A* to = sums;
      (add(targets, n0, n, to), ...);
    }
    if (out_sums) {
      for (int64_t u = 0; u < x_columns; ++u) column_sums[u] = static_cast<A>(column_totals[u]);
      store_row<A>(out_sums, column_sums, x_columns);
    }
    const A* from = sums;
    (save(targets, from), ...);
  }

 private:
  FASTSEQ_INLINE void pack_x(int64_t n0, int64_t count) const {
    const int64_t groups = inner_groups<D>(count);
    constexpr int64_t kLines = 16;  // rows gone through for all tiles, so that they stay in L1
    alignas(64) Item block[D::kTiled ? kLines * L * D::kPair : 1];
    for (int64_t g0 = 0; g0 < groups; g0 += kLines) {
      const int64_t g1 = g0 + kLines < groups ? g0 + kLines : groups;
      each_tile<D, kPlainWide>(
          x_columns, [&](int64_t column, int64_t width) __attribute__((always_inline)) {
            const S* from = x + (n0 + g0 * D::kPair) * x_stride + column;
            Item* const at = packed_x + (column * groups + g0 * width) * D::kPair;
            Item* to = D::kTiled ? block : at;
            for (int64_t g = g0; g < g1; ++g) {
              const V first = load_n<A>(from, width);
              V second{};
              if (D::kPair == 2 && g * D::kPair + 1 < count)
                second = load_n<A>(from + x_stride, width);
              // Each lane holds all items of its pair.
              store_n<A>(reinterpret_cast<A*>(to), joined<D>(first, second), width);
              from += D::kPair * x_stride;
              to += (D::kTiled ? L : width) * D::kPair;
            }
            if constexpr (D::kTiled) turn_groups(block, g1 - g0, width, at);
          });
    }
  }

  FASTSEQ_INLINE void add_columns(int64_t n0, int64_t count) const {
    for (int64_t n = n0; n < n0 + count; ++n) {
      for (int64_t u = 0; u < x_columns; u += L) {
        const V row = load_n<A>(x + n * x_stride + u, x_columns - u);
        store<A>(column_sums + u, load<A>(column_sums + u) + row);
      }
      if ((n + 1) % kColumnChain != 0 && n + 1 < rows) continue;
      for (int64_t u = 0; u < x_columns; ++u) {
        column_totals[u] += column_sums[u];
        column_sums[u] = 0;
      }
    }
  }

  // Adds the rows [n0, n0 + count) to a target's sums, and steps over them.
  template <class Y>
  FASTSEQ_INLINE void add(const Target<S, Y>& target, int64_t n0, int64_t count, A*& to) const {
    if (!target.out) return;
    const int64_t groups = inner_groups<D>(count);
    typename D::Unit unit;
    for (int64_t column = 0; column < target.columns; column += kTileRow) {
      const int64_t vectors = (target.columns - column + L - 1) / L;
      const int64_t wide = vectors < kPlainWide ? vectors : kPlainWide;
      pack_y(target, n0, count, column, wide);
      each_tile<D, kPlainWide>(
          x_columns, [&](int64_t row, int64_t height) __attribute__((always_inline)) {
            const Item* const from = packed_x + row * groups * D::kPair;
            for (int64_t g = 0; g < groups; g += D::kChain) {
              const int64_t links = groups - g < D::kChain ? groups - g : D::kChain;
              product_of<D, kPlainWide, true>(unit, wide, height, from + g * height * D::kPair, 0,
                                              packed_y + g * wide * L * D::kPair, links,
                                              to + row * kTileRow, n0 + g > 0);
            }
          });
      to += x_columns * kTileRow;
    }
  }

  template <class Y>
  FASTSEQ_INLINE void pack_y(const Target<S, Y>& target, int64_t n0, int64_t count, int64_t column,
                             int64_t wide) const {
    Item* to = packed_y;
    for (int64_t n = n0; n < n0 + count; n += D::kPair) {
      const bool two = D::kPair == 2 && n + 1 < n0 + count;
      const auto first = target.y(n), second = target.y(two ? n + 1 : n);
      for (int64_t v = 0; v < wide; ++v, to += L * D::kPair) {
        const int64_t u = column + v * L, left = target.columns - u;
        const V both = joined<D>(first(u, left), two ? second(u, left) : V{});
        __builtin_memcpy(to, &both, sizeof(both));
      }
    }
  }

  template <class Y>
  FASTSEQ_INLINE void save(const Target<S, Y>& target, const A*& from) const {
    if (!target.out) return;
    for (int64_t row = 0; row < x_columns; ++row) {
      for (int64_t u = 0; u < target.columns; u += L) {
        const A* const sum = from + (u / kTileRow * x_columns + row) * kTileRow + u % kTileRow;
        store_n<A>(target.out + row * target.columns + u, rows > 0 ? load<A>(sum) : V{},
                   target.columns - u);
      }
    }
    from += panels_of(target.columns) * x_columns * kTileRow;
  }
};

}  // namespace fastseq::FASTSEQ_CAPABILITY
