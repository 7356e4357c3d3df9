// The backward time loop on a CPU: back-propagation through time for a slice of the batch.
//
// It runs the steps in the opposite order. The gradient of h_t is W_hh^T (gate gradients of the
// step after) + grad_y_t + what the cell passes on directly, so one step is one sweep over panels
// of W_hh^T with the cell's backward in the epilogue. With a projection the first sweep ends at the
// gradient of h_t, and a second one takes it through W_hr^T to the cell.
// Gate gradients of all steps are written out; the gradients of the weights, of x and of the biases
// are large matrix products over them and are made outside.
#include "recurrence_common.h"
#include "recurrence_table.h"

namespace fastseq::FASTSEQ_CAPABILITY {
namespace {

PanelShape hh_shape(const RecurrenceShape& s) {
  return {s.state, gates_of(s.cell) * s.hidden, kPlainWide, false};
}
PanelShape hr_shape(const RecurrenceShape& s) { return {s.hidden, s.state, kPlainWide, false}; }

RecurrenceShape shape_of(const RecurrenceBackward& a) {
  return {a.cell, a.hidden, a.state, a.weight_hr != nullptr};
}

template <class A>
struct Buffers {
  A *now, *next;  // recurrent-side gate gradients of the step after, of this step [rows, g_stride]
  A* carry;       // gradient of h that does not pass through W_hh [rows, h_stride]
  A* cell;        // gradient of c                                [rows, m_stride]
  A* state;       // whole gradient of h, before the projection   [rows, h_stride]
  int64_t g_stride, h_stride, m_stride, size;

  Buffers(const RecurrenceShape& s, int64_t rows, A* base) {
    Scratch<A> scratch{base};
    g_stride = padded<A>(gates_of(s.cell) * s.hidden);
    h_stride = padded<A>(s.state);
    m_stride = padded<A>(s.hidden);
    now = scratch.take(rows * g_stride);
    next = scratch.take(rows * g_stride);
    carry = scratch.take(rows * h_stride);
    cell = scratch.take(s.cell == Cell::kLstm ? rows * m_stride : 0);
    state = scratch.take(s.projected ? rows * h_stride : 0);
    size = scratch.used;
  }
};

template <class S, class C>
struct BackwardSlice {
  using A = accumulate_t<S>;
  using V = Vec<A>;
  static constexpr int64_t L = lanes_of<A>;

  const RecurrenceBackward& a;
  const int64_t first, rows;
  Buffers<A> buf;

  // Where row `row` stands at this step: its own row, and the row of the state before it.
  struct Place {
    int64_t at, previous;
  };
  FASTSEQ_INLINE Place place(int64_t t, int64_t row) const {
    return {a.seq.offset(t) + first + row, a.seq.previous_row(t, first + row)};
  }

  // gradient of h_t for L units from u on: recurrent product, direct path, grad_y.
  FASTSEQ_INLINE V state_gradient(const Place& p, int64_t row, int64_t u, V product) {
    A* const carry = buf.carry + row * buf.h_stride + u;
    V dh = product + load<A>(carry);
    if (a.grad_y) {
      dh += load_n<A>(static_cast<const S*>(a.grad_y) + p.at * a.state + u, a.state - u);
    }
    store<A>(carry, V{});
    return dh;
  }

  // The cell's backward for L units from u on, given the gradient of its output.
  FASTSEQ_INLINE void cell_block(const Place& p, int64_t row, int64_t u, V dh) {
    const int64_t H = a.hidden, n = H - u;
    V cache[C::kCached + 1], extra[C::kCached + 1];
    for (int g = 0; g < C::kCached; ++g) {
      const int64_t i = (p.at * C::kCached + g) * H + u;
      cache[g] = load_n<A>(static_cast<const S*>(a.gates) + i, n);
      extra[g] = a.grad_gates ? load_n<A>(static_cast<const S*>(a.grad_gates) + i, n) : V{};
    }
    V h{}, h_prev{}, c{}, c_prev{}, dc{}, direct{}, dx[C::kGates], dr[C::kGates];
    if constexpr (C::kCached == 0) {
      h = load_n<A>(static_cast<const S*>(a.y) + p.at * H + u, n);
    }
    if constexpr (C::kHasDirectPath) {
      const S* const from = p.previous < 0 ? static_cast<const S*>(a.h0) + (first + row) * H
                                           : static_cast<const S*>(a.y) + p.previous * H;
      h_prev = load_n<A>(from + u, n);
    }
    if constexpr (C::kHasCellState) {
      const A* const cells = static_cast<const A*>(a.cells);
      c = load_n<A>(cells + p.at * H + u, n);
      c_prev = p.previous < 0 ? load_n<A>(static_cast<const S*>(a.c0) + (first + row) * H + u, n)
                              : load_n<A>(cells + p.previous * H + u, n);
      dc = load<A>(buf.cell + row * buf.m_stride + u);
      if (a.grad_cells) {
        dc += load_n<A>(static_cast<const A*>(a.grad_cells) + p.at * H + u, n);
      }
    }
    C::template backward<VecMath>(cache, h, c, h_prev, c_prev, dh, extra, dx, dr, dc, direct);
    S* const grad_pre = static_cast<S*>(a.grad_pre) + p.at * C::kGates * H + u;
    A* const next = buf.next + row * buf.g_stride + u;
    for (int g = 0; g < C::kGates; ++g) {
      store_n<A>(grad_pre + g * H, dx[g], n);
      store_n<A>(next + g * H, dr[g], n);
    }
    if constexpr (C::kSplitsGates) {
      store_n<A>(static_cast<S*>(a.grad_aux) + p.at * H + u, dr[2], n);
    }
    if constexpr (C::kHasCellState) store<A>(buf.cell + row * buf.m_stride + u, dc);
    if constexpr (C::kHasDirectPath) store<A>(buf.carry + row * buf.h_stride + u, direct);
  }

  // Asks for what the epilogue will read and write for n units from u on.
  FASTSEQ_INLINE void fetch_block(const Place& p, int64_t u, int64_t n) const {
    const int64_t H = a.hidden;
    if (a.grad_y) prefetch<false>(static_cast<const S*>(a.grad_y) + p.at * a.state + u, n);
    if (a.weight_hr) return;
    for (int g = 0; g < C::kCached; ++g) {
      prefetch<false>(static_cast<const S*>(a.gates) + (p.at * C::kCached + g) * H + u, n);
    }
    for (int g = 0; g < C::kGates; ++g) {
      prefetch<true>(static_cast<S*>(a.grad_pre) + (p.at * C::kGates + g) * H + u, n);
    }
    if constexpr (C::kSplitsGates) {
      prefetch<true>(static_cast<S*>(a.grad_aux) + p.at * H + u, n);
    }
    if constexpr (C::kCached == 0) prefetch<false>(static_cast<const S*>(a.y) + p.at * H + u, n);
    if (p.previous < 0) return;
    if constexpr (C::kHasDirectPath) {
      prefetch<false>(static_cast<const S*>(a.y) + p.previous * H + u, n);
    }
    if constexpr (C::kHasCellState) {
      prefetch<false>(static_cast<const A*>(a.cells) + p.previous * H + u, n);
    }
  }

  void step(int64_t t, int64_t active, const A* packed_hh, const A* packed_hr) {
    const RecurrenceShape shape = shape_of(a);
    const auto run_state = [&](int64_t panel, int64_t row,
                               const A* tile) __attribute__((always_inline)) {
      const Place p = place(t, row);
      for (int64_t v = 0; v < kPlainWide; ++v) {
        const int64_t u = (panel * kPlainWide + v) * L;
        if (u >= a.state) break;
        const V dh = state_gradient(p, row, u, load<A>(tile + v * L));
        if (C::kHasCellState && packed_hr) {
          store<A>(buf.state + row * buf.h_stride + u, dh);
          store_n<A>(static_cast<S*>(a.grad_aux) + p.at * a.state + u, dh, a.state - u);
        } else {
          cell_block(p, row, u, dh);
        }
      }
    };
    const auto fetch = [&](int64_t panel, int64_t row) __attribute__((always_inline)) {
      constexpr int64_t per = kPlainWide * L;
      const int64_t u = panel * per, left = (packed_hr ? a.state : a.hidden) - u;
      fetch_block(place(t, row), u, left < per ? left : per);
    };
    for_each_tile<A, kPlainWide>(hh_shape(shape), packed_hh, buf.now, buf.g_stride, active, fetch,
                                 run_state);
    if constexpr (C::kHasCellState) {
      if (!packed_hr) return;
      const auto run_cell = [&](int64_t panel, int64_t row, const A* tile)
                                __attribute__((always_inline)) {
                                  const Place p = place(t, row);
                                  for (int64_t v = 0; v < kPlainWide; ++v) {
                                    const int64_t u = (panel * kPlainWide + v) * L;
                                    if (u < a.hidden) cell_block(p, row, u, load<A>(tile + v * L));
                                  }
                                };
      for_each_tile<A, kPlainWide>(
          hr_shape(shape), packed_hr, buf.state, buf.h_stride, active, [](int64_t, int64_t) {},
          run_cell);
    }
  }

  // What is left after the first step of every row: the gradients of the initial states.
  void finish(const A* packed_hh) {
    const auto run = [&](int64_t panel, int64_t row, const A* tile) __attribute__((always_inline)) {
      for (int64_t v = 0; v < kPlainWide; ++v) {
        const int64_t u = (panel * kPlainWide + v) * L;
        if (u >= a.state) break;
        const V dh = load<A>(tile + v * L) + load<A>(buf.carry + row * buf.h_stride + u);
        store_n<A>(static_cast<S*>(a.grad_h0) + (first + row) * a.state + u, dh, a.state - u);
      }
    };
    for_each_tile<A, kPlainWide>(
        hh_shape(shape_of(a)), packed_hh, buf.now, buf.g_stride, rows, [](int64_t, int64_t) {},
        run);
    if constexpr (C::kHasCellState) {
      for (int64_t row = 0; row < rows; ++row) {
        store_row<A>(static_cast<S*>(a.grad_c0) + (first + row) * a.hidden,
                     buf.cell + row * buf.m_stride, a.hidden);
      }
    }
  }

  static void load_or_zero(A* to, int64_t stride, const S* from, int64_t n) {
    fill_row(to, stride);
    if (from) load_row<A>(to, from, n);
  }

  void run(const A* packed) {
    const int64_t R = a.state, H = a.hidden;
    const A* const packed_hr =
        a.weight_hr ? packed + packed_size<A>(hh_shape(shape_of(a))) : nullptr;
    fill_row(buf.now, 2 * rows * buf.g_stride);  // now and next are neighbours
    const S* const gh = static_cast<const S*>(a.grad_h_n);
    const S* const gc = static_cast<const S*>(a.grad_c_n);
    for (int64_t row = 0; row < rows; ++row) {
      load_or_zero(buf.carry + row * buf.h_stride, buf.h_stride,
                   gh ? gh + (first + row) * R : nullptr, R);
      if constexpr (C::kHasCellState) {
        load_or_zero(buf.cell + row * buf.m_stride, buf.m_stride,
                     gc ? gc + (first + row) * H : nullptr, H);
      }
    }
    int64_t before = 0;
    for (int64_t s = a.seq.steps - 1; s >= 0; --s) {
      const int64_t t = a.seq.at(s);
      const int64_t active = clamped(a.seq.active(t) - first, 0, rows);
      // A row that has passed its first step keeps its gate gradients in both buffers.
      for (int64_t row = active; row < before; ++row) {
        copy_row(buf.next + row * buf.g_stride, buf.now + row * buf.g_stride, buf.g_stride);
      }
      before = active;
      if (active == 0) continue;
      step(t, active, packed, packed_hr);
      A* const swap = buf.now;
      buf.now = buf.next;
      buf.next = swap;
    }
    finish(packed);
  }
};

template <class S>
struct Backward {
  using A = accumulate_t<S>;

  static int64_t panels(const RecurrenceShape& s) {
    return panel_count<A>(hh_shape(s)) + (s.projected ? panel_count<A>(hr_shape(s)) : 0);
  }
  static int64_t packed_bytes(const RecurrenceShape& s) {
    const int64_t n = packed_size<A>(hh_shape(s)) + (s.projected ? packed_size<A>(hr_shape(s)) : 0);
    return n * static_cast<int64_t>(sizeof(A));
  }
  static int64_t scratch_bytes(const RecurrenceShape& s, int64_t rows) {
    return Buffers<A>(s, rows, nullptr).size * static_cast<int64_t>(sizeof(A));
  }
  static void pack(const RecurrenceBackward& a, int64_t p0, int64_t p1, void* packed) {
    const RecurrenceShape s = shape_of(a);
    const PanelShape hh = hh_shape(s);
    const int64_t own = panel_count<A>(hh);
    const WeightView<S> w_hh{static_cast<const S*>(a.weight_hh), 0, 1, a.state};
    const WeightView<S> w_hr{static_cast<const S*>(a.weight_hr), 0, 1, a.hidden};
    A* const to = static_cast<A*>(packed);
    for (int64_t p = p0; p < p1; ++p) {
      if (p < own) {
        pack_panel<A>(hh, w_hh, p, to);
      } else {
        pack_panel<A>(hr_shape(s), w_hr, p - own, to + packed_size<A>(hh));
      }
    }
  }
  static void run(const RecurrenceBackward& a, int64_t first, int64_t last, const void* packed,
                  void* scratch) {
    with_cell(a.cell, [&](auto cell) {
      BackwardSlice<S, decltype(cell)> slice{
          a, first, last - first, {shape_of(a), last - first, static_cast<A*>(scratch)}};
      slice.run(static_cast<const A*>(packed));
    });
  }
};

template <class S>
constexpr BackwardTable table_of() {
  using B = Backward<S>;
  return {B::panels, B::packed_bytes, B::scratch_bytes, B::pack, B::run};
}

}  // namespace

const BackwardTable backward_table[kDTypes] = {table_of<float>(), table_of<double>(),
                                               table_of<BFloat16>(), table_of<Half>()};

}  // namespace fastseq::FASTSEQ_CAPABILITY
