// The forward time loop's scratch, plan and packed weights.
#pragma once

#include "recurrence_common.h"

namespace fastseq::FASTSEQ_CAPABILITY {
namespace {

PanelShape gate_shape(const RecurrenceForward& a, int64_t inner) {
  const int64_t gates = gates_of(a.cell);
  return {a.hidden, inner, gates > 1 ? gates : kPlainWide, gates > 1};
}
PanelShape hr_shape(const RecurrenceForward& a) { return {a.state, a.hidden, kPlainWide, false}; }

// The team's scratch. Packed weights come first, or lie where they were packed before.
template <class D>
struct Shared {
  using A = typename D::Sum;
  using Item = typename D::Item;
  PanelShape hh, ih, hr;
  int64_t hh_panels, ih_panels, hr_panels;
  Item *packed_hh, *packed_ih, *packed_hr;
  A* bias;           // [panel][tile row]
  Item *now, *next;  // h_{t-1} and h_t  [B, h_stride]
  A* cell;           // c                [B, m_stride]
  Item* mid;         // m before the projection [B, m_stride]
  A* product;        // W_hh h_{t-1} of a layer norm [B, gates, m_stride]
  int64_t h_stride, m_stride, weight_bytes, bytes;

  Shared(const RecurrenceForward& a, char* base) {
    Block block{base}, before{static_cast<char*>(const_cast<void*>(a.packed))};
    Block& weights = a.packed ? before : block;
    const bool lstm = a.cell == Cell::kLstm;
    hh = gate_shape(a, a.state);
    ih = gate_shape(a, a.in.size);
    hr = hr_shape(a);
    hh_panels = panel_count<D>(hh);
    ih_panels = a.in.given ? hh_panels : 0;
    hr_panels = a.weight_hr ? panel_count<D>(hr) : 0;
    packed_hh = weights.take<Item>(packed_size<D>(hh));
    packed_ih = weights.take<Item>(a.in.given ? packed_size<D>(ih) : 0);
    packed_hr = weights.take<Item>(a.weight_hr ? packed_size<D>(hr) : 0);
    bias = weights.take<A>(ih_panels * hh.wide * lanes_of<A>);
    weight_bytes = weights.used;
    h_stride = padded<Item>(a.state);
    m_stride = padded<A>(a.hidden);
    now = block.take<Item>(a.seq.batch * h_stride);
    next = block.take<Item>(a.seq.batch * h_stride);
    cell = block.take<A>(lstm ? a.seq.batch * m_stride : 0);
    mid = block.take<Item>(a.weight_hr ? a.seq.batch * m_stride : 0);
    product = block.take<A>(a.extra.norm_hh ? a.seq.batch * gates_of(a.cell) * m_stride : 0);
    bytes = block.used;
  }
};

template <class D>
RecurrencePlan plan_of(const RecurrenceForward& a, int64_t members) {
  int64_t panels = panel_count<D>(gate_shape(a, a.state));
  if (a.weight_hr && panel_count<D>(hr_shape(a)) < panels) panels = panel_count<D>(hr_shape(a));
  return plan_recurrence(a.cell, a.seq.steps, a.seq.batch, a.hidden, a.state, panels, members,
                         a.asked);
}

// A member's scratch: the input of a chunk, and its product with W_ih.
template <class D>
struct Chunk {
  using A = typename D::Sum;
  typename D::Item* x;  // [rows, x_stride]
  A* product;           // [panel][rows][tile row]
  int64_t rows, x_stride, bytes;

  Chunk(const RecurrenceForward& a, int64_t batch_rows, int64_t panels, char* base) {
    Block block{base};
    const int64_t panel_row = gate_shape(a, 1).wide * lanes_of<A>;
    const int64_t some = panels > 0 ? panels : 1;
    const PanelShape ih = gate_shape(a, a.in.given ? a.in.size : 0);
    x_stride = padded<typename D::Item>(a.in.size);
    const int64_t row_bytes = some * panel_row * sizeof(A) + x_stride * sizeof(typename D::Item);
    rows = a.asked.chunk > 0
               ? a.asked.chunk
               : chunk_rows(row_bytes, some * panel_size<D>(ih) * sizeof(typename D::Item));
    if (rows < batch_rows) rows = batch_rows;  // a step at least
    if (rows > a.seq.steps * batch_rows) rows = a.seq.steps * batch_rows;
    x = block.take<typename D::Item>(a.in.given ? rows * x_stride : 0);
    product = block.take<A>(a.in.given ? panels * rows * panel_row : 0);
    bytes = block.used;
  }
};

// Packs this member's share of the panels and the biases.
template <class S, class D = dot_t<S>>
void pack(const RecurrenceForward& a, const Shared<D>& all, const Member& member) {
  using A = typename D::Sum;
  constexpr int64_t L = lanes_of<A>;
  const int64_t H = a.hidden, R = a.state, I = a.in.size;
  const WeightView<S> w_hh{static_cast<const S*>(a.weight_hh), H * R, R, 1};
  const WeightView<S> w_ih{static_cast<const S*>(a.in.weight_ih), H * I, I, 1};
  const WeightView<S> w_hr{static_cast<const S*>(a.weight_hr), 0, H, 1};
  const auto bias_of = [&](int64_t panel) {
    A* const to = all.bias + panel * all.hh.wide * L;
    for (int64_t v = 0; v < all.hh.wide; ++v) {
      const int64_t u = all.hh.gated ? panel * L : (panel * all.hh.wide + v) * L;
      const int64_t at = all.hh.gated ? v * H + u : u;
      const bool split = a.cell == Cell::kGru && v == 2;  // that one is added inside the cell
      Vec<A> sum{};
      if (a.bias_ih && u < H) sum += load_n<A>(static_cast<const S*>(a.bias_ih) + at, H - u);
      if (a.bias_hh && u < H && !split) {
        sum += load_n<A>(static_cast<const S*>(a.bias_hh) + at, H - u);
      }
      store<A>(to + v * L, sum);
    }
  };
  const Range mine = share(all.hh_panels + all.ih_panels + all.hr_panels, member.id, member.count);
  for (int64_t i = mine.first; i < mine.last; ++i) {
    int64_t p = i;
    if (p < all.hh_panels) {
      pack_panel<D>(all.hh, w_hh, p, all.packed_hh);
      continue;
    }
    p -= all.hh_panels;
    if (p < all.ih_panels) {
      pack_panel<D>(all.ih, w_ih, p, all.packed_ih);
      bias_of(p);
    } else {
      pack_panel<D>(all.hr, w_hr, p - all.ih_panels, all.packed_hr);
    }
  }
}

}  // namespace
}  // namespace fastseq::FASTSEQ_CAPABILITY
