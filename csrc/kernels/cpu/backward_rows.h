// A slice's rows before and after the backward time loop: what is the same for every cell.
#pragma once

#include "backward_options.h"

namespace fastseq::FASTSEQ_CAPABILITY {
namespace {

template <class S>
struct BackwardRows {
  using D = dot_t<S>;
  using A = typename D::Sum;
  using Item = typename D::Item;
  using V = Vec<A>;
  static constexpr int64_t L = lanes_of<A>;

  const RecurrenceBackward& a;
  Shared<D> all;
  const Place& place;
  const Range batch, panels, projected;  // rows, and panels of W_hh^T and of W_hr^T

  // Whether options ask for anything.
  const bool beside = a.extra.any();
  const BackwardOptions<S> options{a, all};

  FASTSEQ_INLINE At where(int64_t t, int64_t row) const {
    const int64_t inner = a.seq.offset(t) + row;
    return {t,
            row,
            a.seq.order ? a.seq.row(t, row) : inner,
            inner,
            a.seq.previous_row(t, row),
            beside && a.extra.resets(a.seq, t, row),
            beside && a.extra.resets_after(a.seq, t, row)};
  }

  // The gradient that reaches h from the step after.
  template <bool kBeside>
  FASTSEQ_INLINE V from_later(int64_t row, int64_t u, V product) const {
    if constexpr (kBeside) product = options.dropped(row, u, product);
    return product + load<A>(all.carry + row * all.h_stride + u);
  }

  // What is left after the first step of every row: the gradients of the initial states, and of
  // those that replaced them.
  void finish() {
    if (a.grad_h0 || a.grad_reset_h) finish_h();
    if (a.cell == Cell::kLstm && (a.grad_c0 || a.grad_reset_c)) finish_c();
  }
  void finish_h() {
    const auto run = [&](int64_t panel, int64_t r, const A* tile) {
      const int64_t row = batch.first + r;
      for (int64_t v = 0; v < kPlainWide; ++v) {
        const int64_t u = (panel * kPlainWide + v) * L;
        if (u >= a.state) break;
        V dh = from_later<true>(row, u, load<A>(tile + v * L));
        const int64_t at = a.seq.place(row) * a.state + u, n = a.state - u;
        A* const sum = options.sum_of_h(row, u);
        if (a.extra.resets_first(a.seq, row)) dh = options.cut(sum, dh);
        if (a.grad_h0) store_n<A>(static_cast<S*>(a.grad_h0) + at, dh, n);
        if (sum) store_n<A>(static_cast<S*>(a.grad_reset_h) + at, load<A>(sum), n);
      }
    };
    sweep_tiles<D, kPlainWide>(all.hh, all.packed_hh, panels.first, panels.last,
                               all.now + batch.first * all.g_stride, all.g_stride, batch.size(),
                               run);
  }
  void finish_c() {
    place.each_own_row(batch, [&](int64_t row) {
      const int64_t H = a.hidden, at = a.seq.place(row) * H;
      A* const sum = options.sum_of_c(row, 0);
      A* const dc = all.cell + row * all.m_stride;
      if (a.extra.resets_first(a.seq, row)) {
        for (int64_t u = 0; u < H; u += L) {
          store<A>(dc + u, options.cut(sum ? sum + u : nullptr, load<A>(dc + u)));
        }
      }
      if (a.grad_c0) store_row<A>(static_cast<S*>(a.grad_c0) + at, dc, H);
      if (sum) store_row<A>(static_cast<S*>(a.grad_reset_c) + at, sum, H);
    });
  }

  void start_row(int64_t row) {
    const int64_t R = a.state, H = a.hidden, place = a.seq.place(row);
    const S* const gh = static_cast<const S*>(a.grad_h_n);
    const S* const gc = static_cast<const S*>(a.grad_c_n);
    fill_row(all.now + row * all.g_stride, all.g_stride);
    fill_row(all.next + row * all.g_stride, all.g_stride);
    load_or_clear(all.carry + row * all.h_stride, all.h_stride, gh ? gh + place * R : nullptr, R);
    if (a.grad_reset_h) fill_row(all.reset_h + row * all.h_stride, all.h_stride);
    if (a.cell != Cell::kLstm) return;
    load_or_clear(all.cell + row * all.m_stride, all.m_stride, gc ? gc + place * H : nullptr, H);
    if (a.grad_reset_c) fill_row(all.reset_c + row * all.m_stride, all.m_stride);
    if (a.weight_hr) fill_row(all.state + row * all.h_stride, all.h_stride);
  }

  static void load_or_clear(A* to, int64_t stride, const S* from, int64_t n) {
    fill_row(to, stride);
    if (from) load_row<A>(to, from, n);
  }
};

}  // namespace
}  // namespace fastseq::FASTSEQ_CAPABILITY
