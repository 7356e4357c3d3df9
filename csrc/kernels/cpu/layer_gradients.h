// The gradients of what a layer reads, as products over the gate gradients of all steps:
//   x = gate gradients times W_ih          W = gate gradients^T times what W was multiplied with
//   b = sums of the gate gradients
#pragma once

#include <type_traits>

#include "backward_scratch.h"
#include "moments.h"
#include "transposed_product.h"

namespace fastseq::FASTSEQ_CAPABILITY {

// A row of Y that lies in memory.
template <class S>
struct Line {
  using A = accumulate_t<S>;
  const S* from;
  FASTSEQ_INLINE Vec<A> operator()(int64_t u, int64_t left) const {
    return load_n<A>(from + u, left);
  }
};

// A state as W_hh read it: null for zeros, elements of it dropped.
template <class S>
struct StateLine {
  using A = accumulate_t<S>;
  const S *from, *factor;
  FASTSEQ_INLINE Vec<A> operator()(int64_t u, int64_t left) const {
    const Vec<A> h = load_or_zero<A>(from ? from + u : from, left);
    return factor ? rounded_to<A, S>(h * load_n<A>(factor + u, left)) : h;
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

  // Whether there is anything to make after the time loop.
  static FASTSEQ_INLINE bool any(const RecurrenceBackward& a) {
    return a.in.given || a.extra.norm_hh;
  }

  static int64_t bytes(const RecurrenceBackward& a, int64_t members) {
    if (!any(a)) return 0;
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
    if (a.grad_x && a.in.given) input(a, packed_ih, member, own);
    const int64_t H = a.hidden, GH = gates_of(a.cell) * H, I = a.in.size, R = a.state;
    Rows x_rows(a.seq), h_rows(a.seq);
    const auto x = [&](int64_t n) __attribute__((always_inline)) {
      const auto [t, b] = x_rows.at(n);
      return Line<S>{input_row<S>(a.in, a.seq, t, b)};
    };
    const auto h = [&](int64_t n) __attribute__((always_inline)) {
      const auto [t, b] = h_rows.at(n);
      const S* const factor = static_cast<const S*>(a.extra.drop);
      return StateLine<S>{state_before<S>(a.seq, a.extra, t, b, R, a.y, a.h0, a.extra.reset_h),
                          factor ? factor + a.seq.place(b) * R : nullptr};
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
    if (a.extra.norm_hh) {
      const Range rows = share(GH, member.id, member.count);
      product(a.grad_products, GH, 0, rows, nullptr, a.grad_weight_hh, nullptr);
      product(a.rows_hh, GH, 0, rows, nullptr, nullptr, a.grad_norm_hh);
      const Range units = share(H, member.id, member.count);
      if (a.grad_norm_c) {  // whose rows have no address where there are none
        const S* const c = static_cast<const S*>(a.rows_c);
        product(c, 2 * H, 0, units, nullptr, nullptr, a.grad_norm_c);
        product(c + H, 2 * H, 0, units, nullptr, nullptr, a.grad_norm_c_bias);
      }
      if (a.grad_bias_hn) {
        product(a.grad_aux, H, 0, units, nullptr, nullptr, a.grad_bias_hn);
      }
      copy_input_side(a, member);
    } else if (a.cell != Cell::kGru) {
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
    clear_absent(a, I, member);
    Rows at(a.seq);
    const auto to_row = [&](int64_t n) __attribute__((always_inline)) {
      if (!a.seq.order) return n;
      const auto [t, b] = at.at(n);
      return a.seq.row(t, b);
    };
    const Range mine = share(a.seq.rows(), member.id, member.count);
    const int64_t stride = row_stride(a);
    Item* const copy = reinterpret_cast<Item*>(own);
    const PanelShape shape = input_shape(a);
    for (int64_t n0 = mine.first; n0 < mine.last; n0 += kBlockRows) {
      const int64_t rows = mine.last - n0 < kBlockRows ? mine.last - n0 : kBlockRows;
      const S* const from = static_cast<const S*>(a.grad_pre) + n0 * GH;
      const auto save = [&](int64_t panel, int64_t r, const A* tile) {
        S* const to = static_cast<S*>(a.grad_x) + to_row(n0 + r) * I;
        for (int64_t v = 0; v < kPlainWide; ++v) {
          const int64_t u = (panel * kPlainWide + v) * L;
          if (u >= I) break;
          store_n<A>(to + u, load<A>(tile + v * L), I - u);
        }
      };
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
      sweep_tiles<D, kPlainWide>(shape, packed_ih, 0, panel_count<D>(shape), state, state_stride,
                                 rows, save);
    }
  }

  // The gradient of an input side that was given: of rows that take part, and zeros for the others.
  static void copy_input_side(const RecurrenceBackward& a, const Member& member) {
    if (!a.grad_x) return;
    const int64_t GH = gates_of(a.cell) * a.hidden;
    clear_absent(a, GH, member);
    const Range mine = share(a.seq.rows(), member.id, member.count);
    Rows at(a.seq);
    for (int64_t n = mine.first; n < mine.last; ++n) {
      const auto [t, b] = at.at(n);
      copy_row(static_cast<S*>(a.grad_x) + a.seq.row(t, b) * GH,
               static_cast<const S*>(a.grad_pre) + n * GH, GH);
    }
  }

  // The rows of grad_x, `width` wide, beyond the lengths of their sequences.
  static void clear_absent(const RecurrenceBackward& a, int64_t width, const Member& member) {
    const Range mine = share(a.seq.batch, member.id, member.count);
    for (int64_t b = mine.first; b < mine.last; ++b) {
      each_absent_row(
          a.seq, b, [&](int64_t row) { fill_row(static_cast<S*>(a.grad_x) + row * width, width); });
    }
  }

  // W_hr: its input was the cell's output m = o tanh(c), which is made again.
  static void projection(const RecurrenceBackward& a, const Member& member, char* own) {
    const int64_t H = a.hidden;
    const Range mine = share(a.state, member.id, member.count);
    Rows at(a.seq);
    const auto m = [&](int64_t n) __attribute__((always_inline)) {
      const auto [t, b] = at.at(n);
      const int64_t row = a.seq.row(t, b);
      const S* const o = static_cast<const S*>(a.gates) + (row * 4 + 3) * H;
      const A* const c = static_cast<const A*>(a.cells) + row * H;
      const S* const gain = static_cast<const S*>(a.extra.norm_c);
      const S* const bias = static_cast<const S*>(a.extra.norm_c_bias);
      A mean = 0, scale = 1;
      if (gain) {
        const Moments<A> of(1, H, a.extra.epsilon,
                            [&](int64_t, int64_t u) { return load_n<A>(c + u, H - u); });
        mean = of.mean;
        scale = of.scale;
      }
      return [=](int64_t u, int64_t left) __attribute__((always_inline)) {
        V v = load_n<A>(c + u, left);
        if (gain) {
          v = (v - mean) * scale * load_n<A>(gain + u, left) + load_n<A>(bias + u, left);
        }
        return rounded_to<A, S>(load_n<A>(o + u, left) * VecMath::tanh(v));
      };
    };
    S* const out = static_cast<S*>(a.grad_weight_hr) + mine.first * H;
    const Product product(static_cast<const S*>(a.grad_aux) + mine.first, a.seq.rows(), a.state,
                          mine.size(), Product::panels_of(H), own);
    product.run(nullptr, Target<S, decltype(m)>{out, H, m});
  }
};

}  // namespace fastseq::FASTSEQ_CAPABILITY
