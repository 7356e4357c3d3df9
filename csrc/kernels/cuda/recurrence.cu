// One thread is one hidden unit of one row at one step; neighbouring threads are neighbouring
// units, so every access is coalesced.
#include "../cells.h"
#include "common.h"
#include "recurrence.h"

namespace fastseq::cuda {
namespace {

using device::load;
using device::Math;
using device::store;

// The rows of one step, by value: a kernel must not follow the host pointers of Sequence.
struct Rows {
  int64_t at;        // row of y, gates, ... at which the step starts
  int64_t active;    // rows that take part
  int64_t previous;  // row at which the step before starts
  int64_t carried;   // of the active rows, those that have a step before; the others start here
};

Rows rows_of(const Sequence& seq, int64_t t) {
  Rows r{seq.offset(t), seq.active(t), 0, 0};
  const int64_t p = seq.reverse ? t + 1 : t - 1;
  if (p >= 0 && p < seq.steps) {
    r.previous = seq.offset(p);
    r.carried = seq.active(p) < r.active ? seq.active(p) : r.active;
  }
  return r;
}

template <class S, class C>
FASTSEQ_KERNEL forward_kernel(Of<S, RecurrenceForward> a, StepForward s, Rows rows) {
  using A = accumulate_t<S>;
  const int64_t H = a.hidden, i = device::thread();
  if (i >= rows.active * H) return;
  const int64_t row = i / H, u = i % H, at = rows.at + row;
  const S* const pre = static_cast<const S*>(a.pre) + at * C::kGates * H + u;
  const S* const product = static_cast<const S*>(s.product) + row * C::kGates * H + u;
  A x[C::kGates], r[C::kGates], cache[C::kCached + 1], c{}, h;
  for (int g = 0; g < C::kGates; ++g) {
    x[g] = load(pre + g * H);
    r[g] = load(product + g * H);
  }
  if constexpr (C::kSplitsGates) {
    if (a.bias_hn) r[2] += load(static_cast<const S*>(a.bias_hn) + u);
  }
  S* const state = static_cast<S*>(a.h_n) + row * a.state + u;
  A* const cell = static_cast<A*>(s.cell) + i;
  A c_prev{}, h_prev{};
  if constexpr (C::kHasCellState) c_prev = *cell;
  if constexpr (C::kHasDirectPath) h_prev = load(state);
  C::template forward<Math>(x, r, h_prev, c_prev, kNoZone<A>, cache, c, h);
  if constexpr (C::kHasCellState) {
    *cell = c;
    if (a.cells) static_cast<A*>(a.cells)[at * H + u] = c;
  }
  if (a.gates) {
    for (int g = 0; g < C::kCached; ++g) {
      store(static_cast<S*>(a.gates) + (at * C::kCached + g) * H + u, cache[g]);
    }
  }
  if (s.output) {
    store(static_cast<S*>(s.output) + i, h);
  } else {
    store(static_cast<S*>(a.y) + at * H + u, h);
    store(state, h);
  }
}

template <class S>
FASTSEQ_DEVICE accumulate_t<S> state_gradient_at(const RecurrenceBackward& a, const StepBackward& s,
                                                 const Rows& rows, int64_t i) {
  using A = accumulate_t<S>;
  A dh = load(static_cast<const S*>(s.product) + i) + static_cast<A*>(s.carry)[i];
  if (a.grad_y) dh += load(static_cast<const S*>(a.grad_y) + rows.at * a.state + i);
  return dh;
}

template <class S>
FASTSEQ_KERNEL state_gradient_kernel(Of<S, RecurrenceBackward> a, StepBackward s, Rows rows) {
  using A = accumulate_t<S>;
  const int64_t i = device::thread();
  if (i >= rows.active * a.state) return;
  store(static_cast<S*>(a.grad_aux) + rows.at * a.state + i, state_gradient_at<S>(a, s, rows, i));
  static_cast<A*>(s.carry)[i] = 0;
}

template <class S, class C>
FASTSEQ_KERNEL backward_kernel(Of<S, RecurrenceBackward> a, StepBackward s, Rows rows) {
  using A = accumulate_t<S>;
  const int64_t H = a.hidden, i = device::thread();
  if (i >= rows.active * H) return;
  const int64_t row = i / H, u = i % H, at = rows.at + row;
  const bool starts = row >= rows.carried;  // the state before is the initial one
  const A dh =
      s.output ? A(load(static_cast<const S*>(s.output) + i)) : state_gradient_at<S>(a, s, rows, i);
  A cache[C::kCached + 1], extra[C::kCached + 1];
  for (int g = 0; g < C::kCached; ++g) {
    const int64_t j = (at * C::kCached + g) * H + u;
    cache[g] = load(static_cast<const S*>(a.gates) + j);
    extra[g] = a.grad_gates ? A(load(static_cast<const S*>(a.grad_gates) + j)) : A(0);
  }
  A h{}, h_prev{}, c{}, c_prev{}, dc{}, direct{}, dx[C::kGates], dr[C::kGates];
  if constexpr (C::kCached == 0) h = load(static_cast<const S*>(a.y) + at * H + u);
  if constexpr (C::kHasDirectPath) {
    h_prev = starts ? load(static_cast<const S*>(a.h0) + i)
                    : load(static_cast<const S*>(a.y) + rows.previous * H + i);
  }
  A* const cell = static_cast<A*>(s.cell) + i;
  if constexpr (C::kHasCellState) {
    const A* const cells = static_cast<const A*>(a.cells);
    c = cells[at * H + u];
    c_prev = starts ? A(load(static_cast<const S*>(a.c0) + i)) : cells[rows.previous * H + i];
    dc = *cell;
    if (a.grad_cells) dc += static_cast<const A*>(a.grad_cells)[at * H + u];
  }
  C::template backward<Math>(cache, h, c, h_prev, c_prev, dh, extra, kNoZone<A>, dx, dr, dc,
                             direct);
  for (int g = 0; g < C::kGates; ++g) {
    store(static_cast<S*>(a.grad_pre) + (at * C::kGates + g) * H + u, dx[g]);
    if constexpr (C::kSplitsGates) {
      store(static_cast<S*>(s.side) + (row * C::kGates + g) * H + u, dr[g]);
    }
  }
  if constexpr (C::kSplitsGates) store(static_cast<S*>(a.grad_aux) + at * H + u, dr[2]);
  if constexpr (C::kHasCellState) *cell = dc;
  // A projection's carry was spent by state_gradient; its index is not this one.
  if (!s.output) static_cast<A*>(s.carry)[i] = direct;
}

template <class S>
FASTSEQ_KERNEL finish_kernel(Of<S, RecurrenceBackward> a, StepBackward s, int64_t states,
                             int64_t cells) {
  using A = accumulate_t<S>;
  const int64_t i = device::thread();
  if (i < states) {
    store(static_cast<S*>(a.grad_h0) + i,
          load(static_cast<const S*>(s.product) + i) + static_cast<const A*>(s.carry)[i]);
  }
  if (i < cells) store(static_cast<S*>(a.grad_c0) + i, static_cast<const A*>(s.cell)[i]);
}

}  // namespace

const char* step_forward(DType dtype, const RecurrenceForward& a, const StepForward& s,
                         void* stream) {
  const Rows rows = rows_of(a.seq, s.t);
  return with_dtype(dtype, [&](auto type) {
    return with_cell(a.cell, [&](auto cell) {
      return device::launch(forward_kernel<decltype(type), decltype(cell)>, rows.active * a.hidden,
                            as_stream(stream), Of<decltype(type), RecurrenceForward>(a), s, rows);
    });
  });
}

const char* state_gradient(DType dtype, const RecurrenceBackward& a, const StepBackward& s,
                           void* stream) {
  const Rows rows = rows_of(a.seq, s.t);
  return with_dtype(dtype, [&](auto type) {
    return device::launch(state_gradient_kernel<decltype(type)>, rows.active * a.state,
                          as_stream(stream), Of<decltype(type), RecurrenceBackward>(a), s, rows);
  });
}

const char* step_backward(DType dtype, const RecurrenceBackward& a, const StepBackward& s,
                          void* stream) {
  const Rows rows = rows_of(a.seq, s.t);
  return with_dtype(dtype, [&](auto type) {
    return with_cell(a.cell, [&](auto cell) {
      return device::launch(backward_kernel<decltype(type), decltype(cell)>, rows.active * a.hidden,
                            as_stream(stream), Of<decltype(type), RecurrenceBackward>(a), s, rows);
    });
  });
}

const char* finish_backward(DType dtype, const RecurrenceBackward& a, const StepBackward& s,
                            void* stream) {
  const int64_t states = a.seq.batch * a.state;
  const int64_t cells = a.cell == Cell::kLstm ? a.seq.batch * a.hidden : 0;
  return with_dtype(dtype, [&](auto type) {
    return device::launch(finish_kernel<decltype(type)>, states > cells ? states : cells,
                          as_stream(stream), Of<decltype(type), RecurrenceBackward>(a), s, states,
                          cells);
  });
}

}  // namespace fastseq::cuda
