// A slice's rows before and after the forward time loop, and the input product of its next steps:
// what is the same for every cell.
#pragma once

#include "forward_options.h"

namespace fastseq::FASTSEQ_CAPABILITY {
namespace {

template <class S>
struct ForwardRows {
  using D = dot_t<S>;
  using A = typename D::Sum;
  using Item = typename D::Item;
  using V = Vec<A>;
  static constexpr int64_t L = lanes_of<A>;

  const RecurrenceForward& a;
  Shared<D> all;
  const Place& place;
  const Range batch, panels, projected;  // rows, and panels of W_hh and of W_hr
  Chunk<D> chunk;
  int64_t chunk_end = 0, chunk_row = 0;  // first step beyond the chunk; where the next step starts
  const ForwardOptions<S> options{a, all};
  const bool lstm = a.cell == Cell::kLstm;

  FASTSEQ_INLINE int64_t active(int64_t t) const {
    return clamped(a.seq.active(t) - batch.first, 0, batch.size());
  }

  // The input product of the steps from s on, as many as the chunk holds.
  template <int kWide>
  void fill_chunk(int64_t s) {
    constexpr int64_t kTileRow = kWide * L;
    int64_t rows = 0;
    for (; s < a.seq.steps; ++s) {
      const int64_t t = a.seq.at(s), n = active(t);
      if (rows + n > chunk.rows) break;
      for (int64_t r = 0; r < n; ++r, ++rows) {
        const S* const from = input_row<S>(a.in, a.seq, t, batch.first + r);
        load_items<D>(chunk.x + rows * chunk.x_stride, from, a.in.size);
      }
    }
    for (int64_t p = panels.first; p < panels.last; ++p) {
      A* const to = chunk.product + (p - panels.first) * chunk.rows * kTileRow;
      for (int64_t r = 0; r < rows; ++r) {
        copy_row(to + r * kTileRow, all.bias + p * kTileRow, kTileRow);
      }
    }
    add_product<D, kWide>(all.ih, all.packed_ih, panels.first, panels.last, chunk.x, chunk.x_stride,
                          rows, chunk.product, chunk.rows);
    chunk_end = s;
    chunk_row = 0;
  }

  void start_row(int64_t row) {
    const int64_t R = a.state, H = a.hidden;
    Item* const h = all.now + row * all.h_stride;
    fill_row(h, all.h_stride);
    if (const S* const from = options.first_state(row, R, a.h0, a.extra.reset_h)) {
      for (int64_t u = 0; u < R; u += L) {
        store<A>(h + u, options.dropped(row, u, load_n<A>(from + u, R - u)));
      }
    }
    // A row that has not started yet holds its state in both buffers.
    copy_row(all.next + row * all.h_stride, h, all.h_stride);
    if (lstm) {
      A* const c = all.cell + row * all.m_stride;
      const S* const from = options.first_state(row, H, a.c0, a.extra.reset_c);
      if (from) {
        load_row<A>(c, from, H);
      } else {
        fill_row(c, all.m_stride);
      }
      if (a.weight_hr) fill_row(all.mid + row * all.m_stride, all.m_stride);
    }
  }

  void end_row(int64_t row) {
    const int64_t R = a.state, H = a.hidden, place = a.seq.place(row);
    int64_t last = -1;  // its last step
    if (a.seq.reverse) {
      if (a.seq.steps > 0 && row < a.seq.active(0)) last = 0;
    } else {
      last = a.seq.steps - 1;
      while (last >= 0 && a.seq.active(last) <= row) --last;
    }
    const S* const h = last < 0 ? static_cast<const S*>(a.h0) + place * R
                                : static_cast<const S*>(a.y) + a.seq.row(last, row) * R;
    copy_row(static_cast<S*>(a.h_n) + place * R, h, R);
    if (lstm) {
      store_row<A>(static_cast<S*>(a.c_n) + place * H, all.cell + row * all.m_stride, H);
    }
    const int64_t gates = gates_of(a.cell) * H, cached = cached_of(a.cell) * H;
    each_absent_row(a.seq, row, [&](int64_t at) {
      fill_row(static_cast<S*>(a.y) + at * R, R);
      if (a.gates) fill_row(static_cast<S*>(a.gates) + at * cached, cached);
      if (lstm && a.cells) fill_row(static_cast<A*>(a.cells) + at * H, H);
      if (a.products) fill_row(static_cast<S*>(a.products) + at * gates, gates);
    });
  }
};

}  // namespace
}  // namespace fastseq::FASTSEQ_CAPABILITY
