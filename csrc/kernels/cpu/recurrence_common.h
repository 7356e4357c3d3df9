// What the forward and the backward time loop share: row buffers, shares of the work, and where a
// row of the sequence lies.
#pragma once

#include "../cells.h"
#include "plan.h"
#include "recurrence.h"
#include "rows.h"
#include "tiles.h"

namespace fastseq::FASTSEQ_CAPABILITY {

// Rows of a buffer start a cache line apart from a multiple of 1 KB, so that the rows of a tile do
// not compete for the same cache sets. In elements of E.
template <class E>
FASTSEQ_INLINE int64_t padded(int64_t n) {
  constexpr int64_t line = 64 / sizeof(E), wide = kPlainWide * kVectorBytes / sizeof(E);
  constexpr int64_t unit = wide > line ? wide : line;
  const int64_t whole = (n + unit - 1) / unit * unit;
  return whole % (1024 / static_cast<int64_t>(sizeof(E))) == 0 ? whole + line : whole;
}

// A bump allocator over a scratch block, in cache lines; with no block it only counts.
struct Block {
  char* base;
  int64_t used = 0;
  template <class E>
  FASTSEQ_INLINE E* take(int64_t n) {
    char* const p = base ? base + used : nullptr;
    used += (n * static_cast<int64_t>(sizeof(E)) + 63) / 64 * 64;
    return reinterpret_cast<E*>(p);
  }
};

struct Range {
  int64_t first, last;
  FASTSEQ_INLINE int64_t size() const { return last - first; }
};

// Part i of n of `count` things.
FASTSEQ_INLINE Range share(int64_t count, int64_t i, int64_t n) {
  return {count * i / n, count * (i + 1) / n};
}

// Where the slices of a packed batch end, but for the last, as f(number of slices, rows).
template <class F>
FASTSEQ_INLINE void each_slice_end(const Sequence& seq, int64_t n, const F& f) {
  int64_t done = 0, next = 1, length = seq.steps;
  for (int64_t row = 0; row < seq.batch && next < n; ++row) {
    while (length > 0 && seq.batch_sizes[length - 1] <= row) --length;
    done += length;
    if (done * n < seq.rows() * next) continue;
    f(next, row + 1);
    ++next;
  }
}

// Batch rows of slice i of n, of about equal work. Rows are sorted by length, so for a packed batch
// slices differ in rows and agree in steps.
FASTSEQ_INLINE Range batch_slice(const Sequence& seq, int64_t i, int64_t n) {
  if (!seq.batch_sizes || n == 1) return share(seq.batch, i, n);
  Range found{seq.batch, seq.batch};
  if (i == 0) found.first = 0;
  each_slice_end(seq, n, [&](int64_t next, int64_t end) {
    if (next == i) found.first = end;
    if (next == i + 1) found.last = end;
  });
  return found;
}

// The most rows that any of n slices has.
FASTSEQ_INLINE int64_t widest_slice(const Sequence& seq, int64_t n) {
  if (!seq.batch_sizes || n == 1) return (seq.batch + n - 1) / n;
  int64_t widest = 0, first = 0;
  each_slice_end(seq, n, [&](int64_t, int64_t end) {
    widest = end - first > widest ? end - first : widest;
    first = end;
  });
  return seq.batch - first > widest ? seq.batch - first : widest;
}

// A member's place in the plan's grid.
struct Place {
  RecurrencePlan plan;
  int64_t batch, unit;  // of plan.batches, plan.units
  Barrier* group;
  bool idle;  // the plan has no work for this member in the time loop

  FASTSEQ_INLINE Place(const RecurrencePlan& plan_, const Member& member)
      : plan(plan_),
        batch(member.id / plan_.units),
        unit(member.id % plan_.units),
        idle(member.id >= plan_.batches * plan_.units) {
    group = idle ? nullptr : member.team->groups + batch;
  }
  FASTSEQ_INLINE void meet() const { wait(*group, plan.units); }
  // The rows of a slice that are this member's, where whole rows are moved: the group shares them.
  template <class F>
  FASTSEQ_INLINE void each_own_row(const Range& rows, const F& f) const {
    for (int64_t row = rows.first + unit; row < rows.last; row += plan.units) f(row);
  }
};

// A row as a product reads it; zero up to the next whole vector.
template <class D, class S>
FASTSEQ_INLINE void load_items(typename D::Item* to, const S* from, int64_t n) {
  using A = typename D::Sum;
  constexpr int64_t L = lanes_of<A>;
  for (int64_t i = 0; i < n; i += L) store<A>(to + i, load_n<A>(from + i, n - i));
}

// Where row b of step t of the layer's input lies.
template <class S>
FASTSEQ_INLINE const S* input_row(const LayerInput& in, const Sequence& seq, int64_t t, int64_t b) {
  const S* const x = static_cast<const S*>(in.x);
  const bool packed = seq.offsets && !seq.order;
  return packed ? x + (seq.offset(t) + b) * in.x_row : x + t * in.x_step + seq.place(b) * in.x_row;
}

// The state before step t of row b, `width` units of it: of the step before, the initial one, or
// the one it is replaced by (null: zeros).
template <class S>
FASTSEQ_INLINE const S* state_before(const Sequence& seq, const Extras& extra, int64_t t, int64_t b,
                                     int64_t width, const void* stored, const void* initial,
                                     const void* replaced) {
  if (extra.resets(seq, t, b)) {
    return replaced ? static_cast<const S*>(replaced) + seq.place(b) * width : nullptr;
  }
  const int64_t row = seq.previous_row(t, b);
  return row < 0 ? static_cast<const S*>(initial) + seq.place(b) * width
                 : static_cast<const S*>(stored) + row * width;
}

// tanh or ReLU, told at run time: such a cell is nearly all product, and one copy of a loop serves
// both.
struct ElmanOfBoth : RnnTanhCell {
  bool relu;

  template <class M, class V>
  FASTSEQ_INLINE void forward(const V* x, const V* r, V h_prev, V c_prev, const V* zone, V* cache,
                              V& c, V& h) const {
    if (relu) return RnnReluCell::forward<M>(x, r, h_prev, c_prev, zone, cache, c, h);
    RnnTanhCell::forward<M>(x, r, h_prev, c_prev, zone, cache, c, h);
  }
  template <class M, class V>
  FASTSEQ_INLINE void backward(const V* cache, V h, V c, V h_prev, V c_prev, V dh, const V* extra,
                               const V* zone, V* dx, V* dr, V& dc, V& direct) const {
    if (relu) {
      return RnnReluCell::backward<M>(cache, h, c, h_prev, c_prev, dh, extra, zone, dx, dr, dc,
                                      direct);
    }
    RnnTanhCell::backward<M>(cache, h, c, h_prev, c_prev, dh, extra, zone, dx, dr, dc, direct);
  }
};

// f(a cell that has a time loop compiled for it).
template <class F>
void with_loop_cell(Cell cell, const F& f) {
  if (cell == Cell::kLstm) return f(LstmCell{});
  if (cell == Cell::kGru) return f(GruCell{});
  f(ElmanOfBoth{{}, cell == Cell::kRnnRelu});
}

template <class A, class S>
FASTSEQ_INLINE Vec<A> load_or_zero(const S* p, int64_t n) {
  return p ? load_n<A>(p, n) : Vec<A>{};
}

// Steps of row b that do not take part (beyond its length) as f(their row in memory).
template <class F>
FASTSEQ_INLINE void each_absent_row(const Sequence& seq, int64_t b, const F& f) {
  if (!seq.order) return;
  for (int64_t t = seq.steps - 1; t >= 0 && seq.active(t) <= b; --t) f(seq.row(t, b));
}

}  // namespace fastseq::FASTSEQ_CAPABILITY
