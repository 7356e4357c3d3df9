// The gradients of what a layer reads, as products over the gate gradients of all steps:
//   x = gate gradients times W_ih          W = gate gradients^T times what W was multiplied with
//   b = sums of the gate gradients
#pragma once

#include <type_traits>

#include "recurrence_common.h"

namespace fastseq::FASTSEQ_CAPABILITY {

FASTSEQ_INLINE PanelShape input_shape(const RecurrenceBackward& a) {
  return {a.in.size, gates_of(a.cell) * a.hidden, kPlainWide, false};
}

// C = X^T Y over all rows n: for columns [first, last) of X, all columns of Y. A block of rows of X
// is packed tile by tile, then Y panel by panel; sums are kept tile by tile until the end.
template <class S>
struct TransposedProduct {
  using D = dot_t<S>;
  using A = typename D::Sum;
  using Item = typename D::Item;
  using V = Vec<A>;
  static constexpr int64_t L = lanes_of<A>;
  static constexpr int64_t kTileRow = kPlainWide * L;
  static constexpr int64_t kRowBlock = kInnerBlock * D::kPair;  // rows packed at a time
  static constexpr int64_t kMost = kMostRows<kPlainWide>;

  Item* packed_x;  // [tile][group][row of tile]
  Item* packed_y;  // one panel
  A* sums;         // [panel][column of X][tile row]
  A* column_sums;  // [column of X]
  int64_t bytes;

  static constexpr int64_t panels_of(int64_t columns) {
    return (columns + kTileRow - 1) / kTileRow;
  }

  TransposedProduct(int64_t rows, int64_t x_columns, int64_t y_columns, char* base) {
    Block block{base};
    const int64_t groups = inner_groups<D>(rows < kRowBlock ? rows : kRowBlock);
    packed_x = block.take<Item>(groups * x_columns * D::kPair + 2 * L);
    packed_y = block.take<Item>(groups * kTileRow * D::kPair);
    sums = block.take<A>(panels_of(y_columns) * x_columns * kTileRow);
    column_sums = block.take<A>(whole_vectors<A>(x_columns) + L);
    bytes = block.used;
  }

  // x: [rows, x_stride], its first column the first of this product. y(n)(u, left): the vector of
  // row n of Y from column u on, where `left` columns are left. Either result may be null.
  template <class Y>
  FASTSEQ_INLINE void run(int64_t rows, const S* x, int64_t x_stride, int64_t x_columns,
                          int64_t y_columns, const Y& y, S* out, S* out_sums) const {
    if (out_sums) fill_row(column_sums, whole_vectors<A>(x_columns));
    for (int64_t n0 = 0; n0 < rows; n0 += kRowBlock) {
      const int64_t n = rows - n0 < kRowBlock ? rows - n0 : kRowBlock;
      pack_x(x + n0 * x_stride, x_stride, n, x_columns);
      if (out_sums) add_columns(x + n0 * x_stride, x_stride, n, x_columns);
      if (!out) continue;
      const int64_t groups = inner_groups<D>(n);
      for (int64_t p = 0; p < panels_of(y_columns); ++p) {
        const int64_t vectors = (y_columns - p * kTileRow + L - 1) / L;
        const int64_t wide = vectors < kPlainWide ? vectors : kPlainWide;
        pack_y(n0, n, p * kTileRow, y_columns, wide, y);
        A* const to = sums + p * x_columns * kTileRow;
        each_tile<kPlainWide>(
            x_columns, [&](int64_t column, int64_t count) __attribute__((always_inline)) {
              product_of<D, kPlainWide, true>(wide, count, packed_x + column * groups * D::kPair, 0,
                                              packed_y, groups, to + column * kTileRow, n0 > 0);
            });
      }
    }
    if (out_sums) store_row<A>(out_sums, column_sums, x_columns);
    if (!out) return;
    for (int64_t column = 0; column < x_columns; ++column) {
      S* const to = out + column * y_columns;
      for (int64_t u = 0; u < y_columns; u += L) {
        const A* const from = sums + (u / kTileRow * x_columns + column) * kTileRow + u % kTileRow;
        store_n<A>(to + u, rows > 0 ? load<A>(from) : V{}, y_columns - u);
      }
    }
  }

 private:
  FASTSEQ_INLINE void pack_x(const S* x, int64_t stride, int64_t rows, int64_t columns) const {
    const int64_t groups = inner_groups<D>(rows);
    constexpr int64_t kLines = 16;  // rows gone through for all tiles, so that they stay in L1
    for (int64_t g0 = 0; g0 < groups; g0 += kLines) {
      const int64_t g1 = g0 + kLines < groups ? g0 + kLines : groups;
      each_tile<kPlainWide>(
          columns, [&](int64_t column, int64_t count) __attribute__((always_inline)) {
            for (int64_t g = g0; g < g1; ++g) {
              const S* const from = x + g * D::kPair * stride + column;
              Item* const to = packed_x + (column * groups + g * count) * D::kPair;
              const V first = load_n<A>(from, count);
              V second{};
              if (D::kPair == 2 && g * D::kPair + 1 < rows) {
                second = load_n<A>(from + stride, count);
              }
              store_words(to, joined<D>(first, second), count);
            }
          });
    }
  }

  // The first n lanes, each with all items of its pair.
  static FASTSEQ_INLINE void store_words(Item* to, V v, int64_t n) {
    store_n<A>(reinterpret_cast<A*>(to), v, n);
  }

  FASTSEQ_INLINE void add_columns(const S* x, int64_t stride, int64_t rows, int64_t columns) const {
    for (int64_t n = 0; n < rows; ++n) {
      for (int64_t u = 0; u < columns; u += L) {
        const V row = load_n<A>(x + n * stride + u, columns - u);
        store<A>(column_sums + u, load<A>(column_sums + u) + row);
      }
    }
  }

  template <class Y>
  FASTSEQ_INLINE void pack_y(int64_t n0, int64_t rows, int64_t column, int64_t columns,
                             int64_t wide, const Y& y) const {
    for (int64_t g = 0; g < inner_groups<D>(rows); ++g) {
      Item* const to = packed_y + g * wide * L * D::kPair;
      const int64_t n = n0 + g * D::kPair;
      const bool two = D::kPair == 2 && g * D::kPair + 1 < rows;
      const auto first = y(n), second = y(two ? n + 1 : n);
      for (int64_t v = 0; v < wide; ++v) {
        const int64_t u = column + v * L;
        const V both = joined<D>(first(u, columns - u), two ? second(u, columns - u) : V{});
        __builtin_memcpy(to + v * L * D::kPair, &both, sizeof(both));
      }
    }
  }
};

// A row of Y that lies in memory.
template <class S>
struct Line {
  using A = accumulate_t<S>;
  const S* from;
  FASTSEQ_INLINE Vec<A> operator()(int64_t u, int64_t left) const {
    return load_n<A>(from + u, left);
  }
};

template <class S>
struct LayerGradients {
  using D = dot_t<S>;
  using A = typename D::Sum;
  using Item = typename D::Item;
  using V = Vec<A>;
  static constexpr int64_t L = lanes_of<A>;
  static constexpr int64_t kTileRow = kPlainWide * L;
  static constexpr bool kDirect = std::is_same_v<S, Item>;  // gate gradients are items as they are

  static int64_t bytes(const RecurrenceBackward& a, int64_t members) {
    if (!a.in.given) return 0;
    const int64_t columns = (gates_of(a.cell) * a.hidden + members - 1) / members;
    const int64_t rows_of_hr = (a.state + members - 1) / members;
    int64_t most = a.grad_x ? kBlockRows * row_stride(a) * int64_t{sizeof(Item)} : 0;
    const auto at_least = [&](int64_t n) { most = n > most ? n : most; };
    at_least(TransposedProduct<S>(a.seq.rows(), columns, a.in.size, nullptr).bytes);
    at_least(TransposedProduct<S>(a.seq.rows(), columns, a.state, nullptr).bytes);
    if (a.weight_hr) {
      at_least(TransposedProduct<S>(a.seq.rows(), rows_of_hr, a.hidden, nullptr).bytes);
    }
    return most;
  }

  static void run(const RecurrenceBackward& a, const Item* packed_ih, const Member& member,
                  char* own) {
    if (a.grad_x) input(a, packed_ih, member, own);
    const int64_t H = a.hidden, GH = gates_of(a.cell) * H, N = a.seq.rows();
    const S* const gates = static_cast<const S*>(a.grad_pre);
    const auto bias = [&](Range r) {
      return a.grad_bias ? static_cast<S*>(a.grad_bias) + r.first : nullptr;
    };
    const Range all = share(GH, member.id, member.count);
    if (a.grad_weight_ih || a.grad_bias) {
      S* const out =
          a.grad_weight_ih ? static_cast<S*>(a.grad_weight_ih) + all.first * a.in.size : nullptr;
      Rows rows(a.seq);
      const auto x = [&](int64_t n) __attribute__((always_inline)) {
        const auto [t, b] = rows.at(n);
        return Line<S>{input_row<S>(a.in, a.seq, t, b)};
      };
      TransposedProduct<S>(N, all.size(), a.in.size, own)
          .run(N, gates + all.first, GH, all.size(), a.in.size, x, out, bias(all));
    }
    Rows rows(a.seq);
    const auto h = [&](int64_t n) __attribute__((always_inline)) {
      const auto [t, b] = rows.at(n);
      const int64_t previous = a.seq.previous_row(t, b);
      return Line<S>{previous < 0 ? static_cast<const S*>(a.h0) + b * a.state
                                  : static_cast<const S*>(a.y) + previous * a.state};
    };
    const auto hidden = [&](const S* from, int64_t stride, Range r, int64_t row0, S* sums) {
      S* const out = a.grad_weight_hh
                         ? static_cast<S*>(a.grad_weight_hh) + (row0 + r.first) * a.state
                         : nullptr;
      if (!out && !sums) return;
      TransposedProduct<S>(N, r.size(), a.state, own)
          .run(N, from + r.first, stride, r.size(), a.state, h, out, sums);
    };
    if (a.cell != Cell::kGru) {
      hidden(gates, GH, all, 0, nullptr);
    } else {  // n's recurrent side has a gradient of its own
      hidden(gates, GH, share(2 * H, member.id, member.count), 0, nullptr);
      const Range n = share(H, member.id, member.count);
      S* const sums = a.grad_bias_hn ? static_cast<S*>(a.grad_bias_hn) + n.first : nullptr;
      hidden(static_cast<const S*>(a.grad_aux), H, n, 2 * H, sums);
    }
    if (a.grad_weight_hr) projection(a, member, own);
  }

 private:
  static int64_t row_stride(const RecurrenceBackward& a) {
    return padded<Item>(gates_of(a.cell) * a.hidden);
  }

  // Step and batch row of a row of the sequence; quick where rows are asked for in order.
  struct Rows {
    const Sequence& seq;
    int64_t t = 0;
    explicit FASTSEQ_INLINE Rows(const Sequence& s) : seq(s) {}
    struct Found {
      int64_t t, b;
    };
    FASTSEQ_INLINE Found at(int64_t n) {
      while (seq.offset(t) > n) t = seq.offsets ? t - 1 : n / seq.batch;
      while (seq.offset(t) + seq.active(t) <= n) ++t;
      return {t, n - seq.offset(t)};
    }
  };

  // Rows of x divided among the members.
  static void input(const RecurrenceBackward& a, const Item* packed_ih, const Member& member,
                    char* own) {
    const int64_t GH = gates_of(a.cell) * a.hidden, I = a.in.size;
    const Range mine = share(a.seq.rows(), member.id, member.count);
    const int64_t stride = row_stride(a);
    Item* const copy = reinterpret_cast<Item*>(own);
    const PanelShape shape = input_shape(a);
    for (int64_t n0 = mine.first; n0 < mine.last; n0 += kBlockRows) {
      const int64_t rows = mine.last - n0 < kBlockRows ? mine.last - n0 : kBlockRows;
      const S* const from = static_cast<const S*>(a.grad_pre) + n0 * GH;
      const auto save = [&](int64_t panel, int64_t r,
                            const A* tile) __attribute__((always_inline)) {
        for (int64_t v = 0; v < kPlainWide; ++v) {
          const int64_t u = (panel * kPlainWide + v) * L;
          if (u >= I) break;
          store_n<A>(static_cast<S*>(a.grad_x) + (n0 + r) * I + u, load<A>(tile + v * L), I - u);
        }
      };
      const auto fetch = [](int64_t, int64_t, Lines&) {};
      const Item* state = copy;
      int64_t state_stride = stride;
      bool direct = false;
      if constexpr (kDirect) direct = GH % D::kPair == 0;
      if (direct) {
        state = reinterpret_cast<const Item*>(from);
        state_stride = GH;
      } else {
        for (int64_t r = 0; r < rows; ++r) load_items<D>(copy + r * stride, from + r * GH, GH);
      }
      for_each_tile<D, kPlainWide>(shape, packed_ih, 0, panel_count<D>(shape), state, state_stride,
                                   rows, fetch, save);
    }
  }

  // W_hr: its input was the cell's output m = o tanh(c), which is made again.
  static void projection(const RecurrenceBackward& a, const Member& member, char* own) {
    const int64_t H = a.hidden, N = a.seq.rows();
    const Range mine = share(a.state, member.id, member.count);
    const auto m = [&](int64_t n) __attribute__((always_inline)) {
      return [o = static_cast<const S*>(a.gates) + (n * 4 + 3) * H,
              c = static_cast<const A*>(a.cells) + n * H](int64_t u, int64_t left)
                 __attribute__((always_inline)) {
                   const V tc = VecMath::tanh(load_n<A>(c + u, left));
                   return rounded_to<A, S>(load_n<A>(o + u, left) * tc);
                 };
    };
    TransposedProduct<S>(N, mine.size(), H, own)
        .run(N, static_cast<const S*>(a.grad_aux) + mine.first, a.state, mine.size(), H, m,
             static_cast<S*>(a.grad_weight_hr) + mine.first * H, nullptr);
  }
};

}  // namespace fastseq::FASTSEQ_CAPABILITY
