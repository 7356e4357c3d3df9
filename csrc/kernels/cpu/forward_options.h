// What a layer's options do in the forward time loop: resets, recurrent dropout, zoneout, layer
// norm.
//
// The plain loop (recurrence_forward.cpp) reads as the paper does and asks for these by name, in
// copies of its functions that only a layer with options runs.
#pragma once

#include "forward_scratch.h"
#include "moments.h"

namespace fastseq::FASTSEQ_CAPABILITY {
namespace {

// A row at a step, and the row of memory that holds it.
struct Spot {
  int64_t t, row, at;
  bool cut;  // whether the state after the step is replaced
};

template <class S>
struct ForwardOptions {
  using D = dot_t<S>;
  using A = typename D::Sum;
  using V = Vec<A>;
  static constexpr int64_t L = lanes_of<A>;

  const RecurrenceForward& a;
  const Shared<D>& all;

  // ---- recurrent dropout: what the product reads has elements dropped, so that h before the step
  // is read from where it was stored.
  FASTSEQ_INLINE V before_step(const Spot& p, int64_t u) const {
    if (!a.extra.drop) return load<A>(all.now + p.row * all.h_stride + u);
    const int64_t R = a.state;
    const S* const from =
        state_before<S>(a.seq, a.extra, p.t, p.row, R, a.y, a.h0, a.extra.reset_h);
    return from ? load_n<A>(from + u, R - u) : V{};
  }

  // The state as W_hh reads it.
  FASTSEQ_INLINE V dropped(int64_t row, int64_t u, V h) const {
    if (!a.extra.drop) return h;
    const S* const factor = static_cast<const S*>(a.extra.drop) + a.seq.place(row) * a.state + u;
    return rounded_to<A, S>(h * load_n<A>(factor, a.state - u));
  }

  // ---- zoneout (Krueger et al., 2016): units that keep the value of the step before.
  FASTSEQ_INLINE const V* zone_of_c(const Spot& p, int64_t u, V& zone) const {
    if (!a.extra.zone_c) return nullptr;
    zone = load_n<A>(static_cast<const S*>(a.extra.zone_c) + p.at * a.hidden + u, a.hidden - u);
    return &zone;
  }
  FASTSEQ_INLINE V zoned(const Spot& p, int64_t u, V h) const {
    if (!a.extra.zone_h) return h;
    const V zone =
        load_n<A>(static_cast<const S*>(a.extra.zone_h) + p.at * a.state + u, a.state - u);
    return (1 - zone) * h + zone * before_step(p, u);
  }

  // ---- resets: states that are replaced after a step, for the one that follows.
  FASTSEQ_INLINE V replaced(const Spot& p, const void* by, int64_t width, int64_t u,
                            V state) const {
    if (!p.cut) return state;
    const S* const from = static_cast<const S*>(by);
    return load_or_zero<A>(from ? from + a.seq.place(p.row) * width + u : from, width - u);
  }

  // What the next step reads of c, and of h (as it was stored).
  FASTSEQ_INLINE V next_c(const Spot& p, int64_t u, V c) const {
    return replaced(p, a.extra.reset_c, a.hidden, u, c);
  }
  FASTSEQ_INLINE V next_h(const Spot& p, int64_t u, V h) const {
    return dropped(p.row, u, replaced(p, a.extra.reset_h, a.state, u, h));
  }

  // The first state of a row, or what replaces it before the first step.
  const S* first_state(int64_t row, int64_t width, const void* initial, const void* by) const {
    if (!a.extra.resets_first(a.seq, row)) by = initial;
    return by ? static_cast<const S*>(by) + a.seq.place(row) * width : nullptr;
  }

  // ---- layer norm (Ba et al., 2016): the cell waits until the product of the whole row is there.
  template <class C>
  void keep_product(const Spot& p, int64_t panel, const A* tile) const {
    constexpr bool kGated = C::kGates > 1;
    constexpr int64_t wide = kGated ? C::kGates : kPlainWide;
    A* const to = product_of(p);
    for (int64_t v = 0; v < wide; ++v) {
      const int64_t u = (kGated ? panel : panel * kPlainWide + v) * L;
      if (u < a.hidden) {
        store<A>(to + (kGated ? v * all.m_stride : 0) + u, load<A>(tile + v * L));
      }
    }
  }

  // o and c of L units, where the product has been read.
  FASTSEQ_INLINE void keep_output(const Spot& p, int64_t u, V o, V c) const {
    if (!a.extra.norm_c) return;
    A* const kept = product_of(p) + u;
    store<A>(kept, o);
    store<A>(kept + all.m_stride, c);
  }

  // Runs cell(u, normalized product, one vector per gate), then, of an LSTM, output(u, h).
  template <class C, class Cell, class Output>
  void normed_row(const Spot& p, const Cell& cell, const Output& output) const {
    const int64_t H = a.hidden, M = all.m_stride;
    A* const product = product_of(p);
    const Moments<A> of(C::kGates, H, a.extra.epsilon,
                        [&](int64_t g, int64_t u) { return load<A>(product + g * M + u); });
    if (a.products) {
      S* const to = static_cast<S*>(a.products) + p.at * C::kGates * H;
      for (int g = 0; g < C::kGates; ++g) store_row<A>(to + g * H, product + g * M, H);
    }
    const S* const gain = static_cast<const S*>(a.extra.norm_hh);
    for (int64_t u = 0; u < H; u += L) {
      A normed[C::kGates * L];
      for (int g = 0; g < C::kGates; ++g) {
        const V v = (load<A>(product + g * M + u) - of.mean) * of.scale;
        store<A>(normed + g * L, v * load_n<A>(gain + g * H + u, H - u));
      }
      cell(u, normed);
    }
    if constexpr (C::kHasCellState) {
      const Moments<A> of_c(1, H, a.extra.epsilon,
                            [&](int64_t, int64_t u) { return load<A>(product + M + u); });
      for (int64_t u = 0; u < H; u += L) {
        const V v = (load<A>(product + M + u) - of_c.mean) * of_c.scale;
        const V gain_c = load_n<A>(static_cast<const S*>(a.extra.norm_c) + u, H - u);
        const V bias_c = load_n<A>(static_cast<const S*>(a.extra.norm_c_bias) + u, H - u);
        output(u, load<A>(product + u) * VecMath::tanh(v * gain_c + bias_c));
      }
    }
  }

 private:
  FASTSEQ_INLINE A* product_of(const Spot& p) const {
    return all.product + p.row * gates_of(a.cell) * all.m_stride;
  }
};

}  // namespace
}  // namespace fastseq::FASTSEQ_CAPABILITY
