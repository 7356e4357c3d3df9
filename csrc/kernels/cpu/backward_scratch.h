// The backward time loop's scratch, plan and packed weights.
#pragma once

#include "recurrence_common.h"

namespace fastseq::FASTSEQ_CAPABILITY {

FASTSEQ_INLINE PanelShape input_shape(const RecurrenceBackward& a) {
  return {a.in.size, gates_of(a.cell) * a.hidden, kPlainWide, false};
}

namespace {

PanelShape hh_shape(const RecurrenceBackward& a) {
  return {a.state, gates_of(a.cell) * a.hidden, kPlainWide, false};
}
// Whether any gradient goes back through W_hh: none does from a single step to initial states that
// nobody asks about.
bool goes_back(const RecurrenceBackward& a) {
  return a.seq.steps > 1 || a.grad_h0 || a.grad_reset_h;
}
PanelShape hr_shape(const RecurrenceBackward& a) { return {a.hidden, a.state, kPlainWide, false}; }

// The team's scratch.
template <class D>
struct Shared {
  using A = typename D::Sum;
  using Item = typename D::Item;
  PanelShape hh, hr, ih;
  int64_t hh_panels, hr_panels, ih_panels;
  int64_t hh_packed;  // panels of W_hh^T that are read: all or none
  Item *packed_hh, *packed_hr, *packed_ih;
  Item *now, *next;  // recurrent-side gate gradients of the step after, of this step [B, g_stride]
  A* carry;          // gradient of h that does not pass through W_hh [B, h_stride]
  A* cell;           // gradient of c                                [B, m_stride]
  Item* state;       // whole gradient of h, before the projection   [B, h_stride]
  A* output;         // with a layer norm, gradient of the cell's output    [B, m_stride]
  A* side;           // ... and of the normalized product             [B, gates, m_stride]
  A* output_gate;    // ... and of o, LSTM                                  [B, m_stride]
  A *reset_h, *reset_c;  // gradients of what replaced states [B, h_stride], [B, m_stride]
  int64_t g_stride, h_stride, m_stride, bytes;

  Shared(const RecurrenceBackward& a, char* base) {
    Block block{base};
    const int64_t B = a.seq.batch;
    hh = hh_shape(a);
    hr = hr_shape(a);
    ih = input_shape(a);
    hh_panels = panel_count<D>(hh);
    hr_panels = a.weight_hr ? panel_count<D>(hr) : 0;
    ih_panels = a.grad_x && a.in.given ? panel_count<D>(ih) : 0;
    hh_packed = goes_back(a) ? hh_panels : 0;
    packed_hh = block.take<Item>(hh_packed ? packed_size<D>(hh) : 0);
    packed_hr = block.take<Item>(a.weight_hr ? packed_size<D>(hr) : 0);
    packed_ih = block.take<Item>(ih_panels ? packed_size<D>(ih) : 0);
    g_stride = padded<Item>(gates_of(a.cell) * a.hidden);
    h_stride = padded<A>(a.state);
    m_stride = padded<A>(a.hidden);
    now = block.take<Item>(B * g_stride);
    next = block.take<Item>(B * g_stride);
    carry = block.take<A>(B * h_stride);
    cell = block.take<A>(a.cell == Cell::kLstm ? B * m_stride : 0);
    state = block.take<Item>(a.weight_hr ? B * h_stride : 0);
    const bool norm = a.extra.norm_hh;
    output = block.take<A>(norm ? B * m_stride : 0);
    side = block.take<A>(norm ? B * gates_of(a.cell) * m_stride : 0);
    output_gate = block.take<A>(norm && a.cell == Cell::kLstm ? B * m_stride : 0);
    reset_h = block.take<A>(a.grad_reset_h ? B * h_stride : 0);
    reset_c = block.take<A>(a.grad_reset_c ? B * m_stride : 0);
    bytes = block.used;
  }
};

template <class D>
RecurrencePlan plan_of(const RecurrenceBackward& a, int64_t members) {
  int64_t panels = panel_count<D>(hh_shape(a));
  if (a.weight_hr && panel_count<D>(hr_shape(a)) < panels) panels = panel_count<D>(hr_shape(a));
  return plan_recurrence(a.cell, a.seq.steps, a.seq.batch, a.hidden, a.state, panels, members,
                         a.asked);
}

// Packs this member's share of the panels.
template <class S, class D = dot_t<S>>
void pack(const RecurrenceBackward& a, const Shared<D>& all, const Member& member) {
  const WeightView<S> w_hh{static_cast<const S*>(a.weight_hh), 0, 1, a.state};
  const WeightView<S> w_hr{static_cast<const S*>(a.weight_hr), 0, 1, a.hidden};
  const WeightView<S> w_ih{static_cast<const S*>(a.in.weight_ih), 0, 1, a.in.size};
  const Range mine = share(all.hh_packed + all.hr_panels + all.ih_panels, member.id, member.count);
  for (int64_t i = mine.first; i < mine.last; ++i) {
    const int64_t p = i - all.hh_packed, q = p - all.hr_panels;
    if (p < 0) {
      pack_panel<D>(all.hh, w_hh, i, all.packed_hh);
    } else if (q < 0) {
      pack_panel<D>(all.hr, w_hr, p, all.packed_hr);
    } else {
      pack_panel<D>(all.ih, w_ih, q, all.packed_ih);
    }
  }
}

}  // namespace
}  // namespace fastseq::FASTSEQ_CAPABILITY
