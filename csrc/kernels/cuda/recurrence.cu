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

// What the kernels take, shapes as in types.h and recurrence.h.
struct ForwardArguments {
  Rows rows;
  int64_t hidden, state;
  const void* pre;
  const void* product;
  const void* bias_hn;
  void* cell;
  void* h_n;
  void* y;
  void* output;
  void* gates;
  void* cells;
};

struct StateArguments {
  Rows rows;
  int64_t state;
  const void* product;
  const void* grad_y;
  void* carry;
  void* grad_aux;
};

struct BackwardArguments {
  Rows rows;
  int64_t hidden;
  const void* product;
  const void* grad_y;
  const void* output;
  const void* grad_gates;
  const void* grad_cells;
  const void* y;
  const void* gates;
  const void* cells;
  const void* h0;
  const void* c0;
  void* carry;
  void* cell;
  void* side;
  void* grad_pre;
  void* grad_aux;
};

struct FinishArguments {
  int64_t states, cells;  // B*R, and of LSTM B*H
  const void* product;
  const void* carry;
  const void* cell;
  void* grad_h0;
  void* grad_c0;
};

// An argument block whose tensors hold S, of a cell's kernel.
template <class S, class C, class Block>
struct OfCell : Of<S, Block> {
  using Of<S, Block>::Of;
};

template <class S, class C>
FASTSEQ_KERNEL forward_kernel(OfCell<S, C, ForwardArguments> a) {
  using A = accumulate_t<S>;
  const int64_t H = a.hidden, i = device::thread();
  if (i >= a.rows.active * H) return;
  const int64_t row = i / H, u = i % H, at = a.rows.at + row;
  const S* const pre = static_cast<const S*>(a.pre) + at * C::kGates * H + u;
  const S* const product = static_cast<const S*>(a.product) + row * C::kGates * H + u;
  A x[C::kGates], r[C::kGates], cache[C::kCached + 1], c{}, h;
  for (int g = 0; g < C::kGates; ++g) {
    x[g] = load(pre + g * H);
    r[g] = load(product + g * H);
  }
  if constexpr (C::kSplitsGates) {
    if (a.bias_hn) r[2] += load(static_cast<const S*>(a.bias_hn) + u);
  }
  S* const state = static_cast<S*>(a.h_n) + row * a.state + u;
  A* const cell = static_cast<A*>(a.cell) + i;
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
  if (a.output) {
    store(static_cast<S*>(a.output) + i, h);
  } else {
    store(static_cast<S*>(a.y) + at * H + u, h);
    store(state, h);
  }
}

// Of h, where i counts through the rows of a step, `width` of them each.
template <class S, class Arguments>
FASTSEQ_DEVICE accumulate_t<S> state_gradient_at(const Arguments& a, int64_t width, int64_t i) {
  using A = accumulate_t<S>;
  A dh = load(static_cast<const S*>(a.product) + i) + static_cast<A*>(a.carry)[i];
  if (a.grad_y) dh += load(static_cast<const S*>(a.grad_y) + a.rows.at * width + i);
  return dh;
}

template <class S>
FASTSEQ_KERNEL state_gradient_kernel(Of<S, StateArguments> a) {
  const int64_t i = device::thread();
  if (i >= a.rows.active * a.state) return;
  store(static_cast<S*>(a.grad_aux) + a.rows.at * a.state + i, state_gradient_at<S>(a, a.state, i));
  static_cast<accumulate_t<S>*>(a.carry)[i] = 0;
}

template <class S, class C>
FASTSEQ_KERNEL backward_kernel(OfCell<S, C, BackwardArguments> a) {
  using A = accumulate_t<S>;
  const int64_t H = a.hidden, i = device::thread();
  if (i >= a.rows.active * H) return;
  const int64_t row = i / H, u = i % H, at = a.rows.at + row;
  const bool starts = row >= a.rows.carried;  // the state before is the initial one
  const A dh =
      a.output ? A(load(static_cast<const S*>(a.output) + i)) : state_gradient_at<S>(a, H, i);
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
                    : load(static_cast<const S*>(a.y) + a.rows.previous * H + i);
  }
  A* const cell = static_cast<A*>(a.cell) + i;
  if constexpr (C::kHasCellState) {
    const A* const cells = static_cast<const A*>(a.cells);
    c = cells[at * H + u];
    c_prev = starts ? A(load(static_cast<const S*>(a.c0) + i)) : cells[a.rows.previous * H + i];
    dc = *cell;
    if (a.grad_cells) dc += static_cast<const A*>(a.grad_cells)[at * H + u];
  }
  C::template backward<Math>(cache, h, c, h_prev, c_prev, dh, extra, kNoZone<A>, dx, dr, dc,
                             direct);
  for (int g = 0; g < C::kGates; ++g) {
    store(static_cast<S*>(a.grad_pre) + (at * C::kGates + g) * H + u, dx[g]);
    if constexpr (C::kSplitsGates) {
      store(static_cast<S*>(a.side) + (row * C::kGates + g) * H + u, dr[g]);
    }
  }
  if constexpr (C::kSplitsGates) store(static_cast<S*>(a.grad_aux) + at * H + u, dr[2]);
  if constexpr (C::kHasCellState) *cell = dc;
  // A projection's carry was spent by state_gradient; its index is not this one.
  if (!a.output) static_cast<A*>(a.carry)[i] = direct;
}

template <class S>
FASTSEQ_KERNEL finish_kernel(Of<S, FinishArguments> a) {
  using A = accumulate_t<S>;
  const int64_t i = device::thread();
  if (i < a.states) {
    store(static_cast<S*>(a.grad_h0) + i,
          load(static_cast<const S*>(a.product) + i) + static_cast<const A*>(a.carry)[i]);
  }
  if (i < a.cells) store(static_cast<S*>(a.grad_c0) + i, static_cast<const A*>(a.cell)[i]);
}

}  // namespace

const char* step_forward(DType dtype, const RecurrenceForward& a, const StepForward& s,
                         void* stream) {
  const ForwardArguments args{.rows = rows_of(a.seq, s.t),
                              .hidden = a.hidden,
                              .state = a.state,
                              .pre = a.pre,
                              .product = s.product,
                              .bias_hn = a.bias_hn,
                              .cell = s.cell,
                              .h_n = a.h_n,
                              .y = a.y,
                              .output = s.output,
                              .gates = a.gates,
                              .cells = a.cells};
  return with_dtype(dtype, [&](auto type) {
    return with_cell(a.cell, [&](auto cell) {
      using S = decltype(type);
      using C = decltype(cell);
      return device::launch(forward_kernel<S, C>, args.rows.active * a.hidden, as_stream(stream),
                            OfCell<S, C, ForwardArguments>(args));
    });
  });
}

const char* state_gradient(DType dtype, const RecurrenceBackward& a, const StepBackward& s,
                           void* stream) {
  const StateArguments args{.rows = rows_of(a.seq, s.t),
                            .state = a.state,
                            .product = s.product,
                            .grad_y = a.grad_y,
                            .carry = s.carry,
                            .grad_aux = a.grad_aux};
  return with_dtype(dtype, [&](auto type) {
    using S = decltype(type);
    return device::launch(state_gradient_kernel<S>, args.rows.active * a.state, as_stream(stream),
                          Of<S, StateArguments>(args));
  });
}

const char* step_backward(DType dtype, const RecurrenceBackward& a, const StepBackward& s,
                          void* stream) {
  const BackwardArguments args{.rows = rows_of(a.seq, s.t),
                               .hidden = a.hidden,
                               .product = s.product,
                               .grad_y = a.grad_y,
                               .output = s.output,
                               .grad_gates = a.grad_gates,
                               .grad_cells = a.grad_cells,
                               .y = a.y,
                               .gates = a.gates,
                               .cells = a.cells,
                               .h0 = a.h0,
                               .c0 = a.c0,
                               .carry = s.carry,
                               .cell = s.cell,
                               .side = s.side,
                               .grad_pre = a.grad_pre,
                               .grad_aux = a.grad_aux};
  return with_dtype(dtype, [&](auto type) {
    return with_cell(a.cell, [&](auto cell) {
      using S = decltype(type);
      using C = decltype(cell);
      return device::launch(backward_kernel<S, C>, args.rows.active * a.hidden, as_stream(stream),
                            OfCell<S, C, BackwardArguments>(args));
    });
  });
}

const char* finish_backward(DType dtype, const RecurrenceBackward& a, const StepBackward& s,
                            void* stream) {
  const FinishArguments args{.states = a.seq.batch * a.state,
                             .cells = a.cell == Cell::kLstm ? a.seq.batch * a.hidden : 0,
                             .product = s.product,
                             .carry = s.carry,
                             .cell = s.cell,
                             .grad_h0 = a.grad_h0,
                             .grad_c0 = a.grad_c0};
  return with_dtype(dtype, [&](auto type) {
    using S = decltype(type);
    return device::launch(finish_kernel<S>, args.states > args.cells ? args.states : args.cells,
                          as_stream(stream), Of<S, FinishArguments>(args));
  });
}

}  // namespace fastseq::cuda
