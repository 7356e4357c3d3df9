// What a layer's options do in the backward time loop: resets, recurrent dropout, zoneout, layer
// norm; the plain loop (recurrence_backward.cpp) asks for these by name. See forward_options.h.
#pragma once

#include "backward_scratch.h"
#include "moments.h"

namespace fastseq::FASTSEQ_CAPABILITY {
namespace {

// Where a row stands at a step: its row in memory and among those that take part, and the row of
// the state before it.
struct At {
  int64_t t, row, at, inner, previous;
  bool replaced, cut;  // whether the state before this step was replaced, and the one after it
};

template <class S>
struct BackwardOptions {
  using D = dot_t<S>;
  using A = typename D::Sum;
  using Item = typename D::Item;
  using V = Vec<A>;
  static constexpr int64_t L = lanes_of<A>;

  const RecurrenceBackward& a;
  const Shared<D>& all;

  // ---- recurrent dropout: what the product passes on to h.
  FASTSEQ_INLINE V dropped(int64_t row, int64_t u, V product) const {
    if (!a.extra.drop) return product;
    const S* const factor = static_cast<const S*>(a.extra.drop) + a.seq.place(row) * a.state + u;
    return product * load_n<A>(factor, a.state - u);
  }

  // ---- resets: a gradient of the step after that belongs to what replaced the state, and to no
  // step before.
  FASTSEQ_INLINE V cut(A* sum, V gradient) const {
    if (sum) store<A>(sum, load<A>(sum) + gradient);
    return V{};
  }
  FASTSEQ_INLINE A* sum_of_h(int64_t row, int64_t u) const {
    return a.grad_reset_h ? all.reset_h + row * all.h_stride + u : nullptr;
  }
  FASTSEQ_INLINE A* sum_of_c(int64_t row, int64_t u) const {
    return a.grad_reset_c ? all.reset_c + row * all.m_stride + u : nullptr;
  }
  FASTSEQ_INLINE V cut_h(const At& p, int64_t u, V dh) const {
    return p.cut ? cut(sum_of_h(p.row, u), dh) : dh;
  }
  FASTSEQ_INLINE V cut_c(const At& p, int64_t u, V dc) const {
    return p.cut ? cut(sum_of_c(p.row, u), dc) : dc;
  }
  // The state that replaced another before a step, n units of it.
  FASTSEQ_INLINE V replacing(const void* by, int64_t place, int64_t n) const {
    return load_or_zero<A>(by ? static_cast<const S*>(by) + place : nullptr, n);
  }

  // ---- zoneout: what a unit that keeps its value takes past the cell, to be taken from dh.
  FASTSEQ_INLINE V kept(const At& p, int64_t u, V dh) const {
    if (!a.extra.zone_h) return V{};
    return dh * load_n<A>(static_cast<const S*>(a.extra.zone_h) + p.at * a.state + u, a.state - u);
  }
  FASTSEQ_INLINE V with_kept(V direct, const A* carry) const {
    return a.extra.zone_h ? direct + load<A>(carry) : direct;
  }
  FASTSEQ_INLINE const V* zone_of_c(const At& p, int64_t u, V& zone) const {
    if (!a.extra.zone_c) return nullptr;
    zone = load_n<A>(static_cast<const S*>(a.extra.zone_c) + p.at * a.hidden + u, a.hidden - u);
    return &zone;
  }

  // ---- layer norm: the cell's backward waits for the gradient of a whole row, and what W_hh read
  // for that of the normalized product.
  FASTSEQ_INLINE A* output_of(int64_t row) const { return all.output + row * all.m_stride; }
  FASTSEQ_INLINE A* side_of(int64_t row) const {
    return all.side + row * gates_of(a.cell) * all.m_stride;
  }

  // Runs cell(u, gradient of h, of c, of o), L units at a time, and takes its gradients through the
  // norm of the product.
  template <class C, class Cell>
  void normed_row(const At& p, const Cell& cell) const {
    const int64_t H = a.hidden, M = all.m_stride;
    A* const output = output_of(p.row);
    if constexpr (C::kHasCellState) {
      norm_of_c(p, output, cell);
    } else {
      for (int64_t u = 0; u < H; u += L) cell(u, load<A>(output + u), V{}, V{});
    }
    const S* const products = static_cast<const S*>(a.products) + p.at * C::kGates * H;
    const S* const gain = static_cast<const S*>(a.extra.norm_hh);
    const A* const side = side_of(p.row);
    const Moments<A> of(C::kGates, H, a.extra.epsilon, [&](int64_t g, int64_t u) {
      return load_n<A>(products + g * H + u, H - u);
    });
    V sum{}, weighted{};
    const auto each = [&](const auto& f) __attribute__((always_inline)) {
      for (int64_t g = 0; g < C::kGates; ++g) {
        for (int64_t u = 0; u < H; u += L) {
          const int64_t n = H - u, i = g * H + u;
          const V normed = (load_n<A>(products + i, n) - of.mean) * of.scale;
          const V d = load<A>(side + g * M + u);
          f(i, n, normed, d, Moments<A>::first_of(d * load_n<A>(gain + i, n), n));
        }
      }
    };
    S* const gains = static_cast<S*>(a.rows_hh) + p.inner * C::kGates * H;
    each([&](int64_t i, int64_t n, V normed, V d, V through) __attribute__((always_inline)) {
      sum += through;
      weighted += through * normed;
      store_n<A>(gains + i, d * normed, n);
    });
    const A count = static_cast<A>(C::kGates * H);
    const A mean = Moments<A>::total(sum) / count, slope = Moments<A>::total(weighted) / count;
    Item* const next = all.next + p.row * all.g_stride;
    S* const out = static_cast<S*>(a.grad_products) + p.inner * C::kGates * H;
    each([&](int64_t i, int64_t n, V normed, V, V through) __attribute__((always_inline)) {
      const V d = rounded_to<A, S>((through - mean - normed * slope) * of.scale);
      store_n<A>(out + i, d, n);
      store_n<A>(next + i, d, n);
    });
  }

 private:
  // h = o tanh(gain norm(c) + bias), backwards, and then the cell.
  template <class Cell>
  FASTSEQ_INLINE void norm_of_c(const At& p, A* output, const Cell& cell) const {
    const int64_t H = a.hidden;
    const A* const c = static_cast<const A*>(a.cells) + p.at * H;
    const S* const o = static_cast<const S*>(a.gates) + (p.at * 4 + 3) * H;
    const S* const gain = static_cast<const S*>(a.extra.norm_c);
    const S* const bias = static_cast<const S*>(a.extra.norm_c_bias);
    A* const gate = all.output_gate + p.row * all.m_stride;
    S* const gains = static_cast<S*>(a.rows_c) + p.inner * 2 * H;
    const Moments<A> of(1, H, a.extra.epsilon,
                        [&](int64_t, int64_t u) { return load_n<A>(c + u, H - u); });
    V sum{}, weighted{};
    for (int64_t u = 0; u < H; u += L) {
      const int64_t n = H - u;
      const V normed = (load_n<A>(c + u, n) - of.mean) * of.scale, g = load_n<A>(gain + u, n);
      const V tc = VecMath::tanh(normed * g + load_n<A>(bias + u, n)), dh = load<A>(output + u);
      const V d = dh * load_n<A>(o + u, n) * (1 - tc * tc);
      const V through = Moments<A>::first_of(d * g, n);
      sum += through;
      weighted += through * normed;
      store_n<A>(gains + u, d * normed, n);
      store_n<A>(gains + H + u, d, n);
      store<A>(gate + u, dh * tc);
      store<A>(output + u, through);
    }
    const A mean = Moments<A>::total(sum) / static_cast<A>(H);
    const A slope = Moments<A>::total(weighted) / static_cast<A>(H);
    for (int64_t u = 0; u < H; u += L) {
      const V normed = (load_n<A>(c + u, H - u) - of.mean) * of.scale;
      const V d_c = (load<A>(output + u) - mean - normed * slope) * of.scale;
      cell(u, V{}, d_c, load<A>(gate + u));
    }
  }
};

}  // namespace
}  // namespace fastseq::FASTSEQ_CAPABILITY
