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
  // Terms that are added one to the other before their sum joins the total: a single chain over
  // thousands of rows would lose digits that a BLAS library keeps.
  static constexpr int64_t kChain = 64;
  static constexpr int64_t kColumnChain = 32;

  const S* x;  // [rows, x_stride], from its first column here on
  int64_t rows, x_stride, x_columns;
  Item* packed_x;         // [tile][group][row of tile]
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
    for (int64_t g0 = 0; g0 < groups; g0 += kLines) {
      const int64_t g1 = g0 + kLines < groups ? g0 + kLines : groups;
      each_tile<kPlainWide>(
          x_columns, [&](int64_t column, int64_t width) __attribute__((always_inline)) {
            const S* from = x + (n0 + g0 * D::kPair) * x_stride + column;
            Item* to = packed_x + (column * groups + g0 * width) * D::kPair;
            for (int64_t g = g0; g < g1; ++g) {
              const V first = load_n<A>(from, width);
              V second{};
              if (D::kPair == 2 && g * D::kPair + 1 < count)
                second = load_n<A>(from + x_stride, width);
              // Each lane holds all items of its pair.
              store_n<A>(reinterpret_cast<A*>(to), joined<D>(first, second), width);
              from += D::kPair * x_stride;
              to += width * D::kPair;
            }
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
    for (int64_t column = 0; column < target.columns; column += kTileRow) {
      const int64_t vectors = (target.columns - column + L - 1) / L;
      const int64_t wide = vectors < kPlainWide ? vectors : kPlainWide;
      pack_y(target, n0, count, column, wide);
      each_tile<kPlainWide>(
          x_columns, [&](int64_t row, int64_t height) __attribute__((always_inline)) {
            const Item* const from = packed_x + row * groups * D::kPair;
            for (int64_t g = 0; g < groups; g += kChain) {
              const int64_t links = groups - g < kChain ? groups - g : kChain;
              product_of<D, kPlainWide, true>(wide, height, from + g * height * D::kPair, 0,
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
  using Product = TransposedProduct<S>;
  static constexpr bool kDirect = std::is_same_v<S, Item>;  // gate gradients are items as they are

  static int64_t bytes(const RecurrenceBackward& a, int64_t members) {
    if (!a.in.given) return 0;
    const int64_t GH = gates_of(a.cell) * a.hidden, N = a.seq.rows();
    int64_t most = a.grad_x ? kBlockRows * row_stride(a) * int64_t{sizeof(Item)} : 0;
    const auto at_least = [&](int64_t x_columns, int64_t y_panels) {
      const int64_t own = (x_columns + members - 1) / members;
      const int64_t n = Product(nullptr, N, 0, own, y_panels, nullptr).bytes;
      most = n > most ? n : most;
    };
    at_least(GH, Product::panels_of(a.in.size) + Product::panels_of(a.state));
    if (a.weight_hr) at_least(a.state, Product::panels_of(a.hidden));
    return most;
  }

  static void run(const RecurrenceBackward& a, const Item* packed_ih, const Member& member,
                  char* own) {
    if (a.grad_x) input(a, packed_ih, member, own);
    const int64_t H = a.hidden, GH = gates_of(a.cell) * H, I = a.in.size, R = a.state;
    Rows x_rows(a.seq), h_rows(a.seq);
    const auto x = [&](int64_t n) __attribute__((always_inline)) {
      const auto [t, b] = x_rows.at(n);
      return Line<S>{input_row<S>(a.in, a.seq, t, b)};
    };
    const auto h = [&](int64_t n) __attribute__((always_inline)) {
      const auto [t, b] = h_rows.at(n);
      const int64_t previous = a.seq.previous_row(t, b);
      return Line<S>{previous < 0 ? static_cast<const S*>(a.h0) + b * R
                                  : static_cast<const S*>(a.y) + previous * R};
    };
    // Columns `mine` of gate gradients that start at weight row `first`: which weights, which bias.
    const auto product = [&](const void* from, int64_t stride, int64_t first, Range mine,
                             void* w_ih, void* w_hh, void* bias) {
      const int64_t row = first + mine.first;
      const Target<S, decltype(x)> input{w_ih ? static_cast<S*>(w_ih) + row * I : nullptr, I, x};
      const Target<S, decltype(h)> state{w_hh ? static_cast<S*>(w_hh) + row * R : nullptr, R, h};
      const Product all(static_cast<const S*>(from) + mine.first, a.seq.rows(), stride, mine.size(),
                        Product::panels_of(I) + Product::panels_of(R), own);
      all.run(bias ? static_cast<S*>(bias) + mine.first : nullptr, input, state);
    };
    if (a.cell != Cell::kGru) {
      product(a.grad_pre, GH, 0, share(GH, member.id, member.count), a.grad_weight_ih,
              a.grad_weight_hh, a.grad_bias);
    } else {  // n's recurrent side has a gradient of its own
      const Range two = share(2 * H, member.id, member.count);
      const Range one = share(H, member.id, member.count);
      const S* const n_side = static_cast<const S*>(a.grad_pre) + 2 * H;
      S* const n_bias = a.grad_bias ? static_cast<S*>(a.grad_bias) + 2 * H : nullptr;
      product(a.grad_pre, GH, 0, two, a.grad_weight_ih, a.grad_weight_hh, a.grad_bias);
      product(n_side, GH, 2 * H, one, a.grad_weight_ih, nullptr, n_bias);
      product(a.grad_aux, H, 2 * H, one, nullptr, a.grad_weight_hh, a.grad_bias_hn);
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
    const int64_t H = a.hidden;
    const Range mine = share(a.state, member.id, member.count);
    const auto m = [&](int64_t n) __attribute__((always_inline)) {
      return [o = static_cast<const S*>(a.gates) + (n * 4 + 3) * H,
              c = static_cast<const A*>(a.cells) + n * H](int64_t u, int64_t left)
                 __attribute__((always_inline)) {
                   const V tc = VecMath::tanh(load_n<A>(c + u, left));
                   return rounded_to<A, S>(load_n<A>(o + u, left) * tc);
                 };
    };
    S* const out = static_cast<S*>(a.grad_weight_hr) + mine.first * H;
    const Product product(static_cast<const S*>(a.grad_aux) + mine.first, a.seq.rows(), a.state,
                          mine.size(), Product::panels_of(H), own);
    product.run(nullptr, Target<S, decltype(m)>{out, H, m});
  }
};

}  // namespace fastseq::FASTSEQ_CAPABILITY
