// The forward time loop on a CPU: h_t from h_{t-1}, for all steps of a slice of the batch.
//
// One step is one sweep over the panels of W_hh: a register tile of W_hh h_{t-1}, then the cell on
// that tile. With a projection a second sweep makes h_t = W_hr m_t of the cell's output m_t.
#include "recurrence_common.h"
#include "recurrence_table.h"

namespace fastseq::FASTSEQ_CAPABILITY {
namespace {

template <class C>
constexpr bool kGated = C::kGates > 1;
template <class C>
constexpr int64_t kWideOf = kGated<C> ? C::kGates : kPlainWide;

PanelShape hh_shape(const RecurrenceShape& s) {
  const int64_t gates = gates_of(s.cell);
  return {s.hidden, s.state, gates > 1 ? gates : kPlainWide, gates > 1};
}
PanelShape hr_shape(const RecurrenceShape& s) { return {s.state, s.hidden, kPlainWide, false}; }

RecurrenceShape shape_of(const RecurrenceForward& a) {
  return {a.cell, a.hidden, a.state, a.weight_hr != nullptr};
}

template <class A>
struct Buffers {
  A *now, *next;  // h_{t-1} and h_t  [rows, h_stride]
  A* cell;        // c                [rows, m_stride]
  A* mid;         // m before the projection [rows, m_stride]
  int64_t h_stride, m_stride, size;

  Buffers(const RecurrenceShape& s, int64_t rows, A* base) {
    Scratch<A> scratch{base};
    h_stride = padded<A>(s.state);
    m_stride = padded<A>(s.hidden);
    now = scratch.take(rows * h_stride);
    next = scratch.take(rows * h_stride);
    cell = scratch.take(s.cell == Cell::kLstm ? rows * m_stride : 0);
    mid = scratch.take(s.projected ? rows * m_stride : 0);
    size = scratch.used;
  }
};

template <class S, class C>
struct ForwardSlice {
  using A = accumulate_t<S>;
  using V = Vec<A>;
  static constexpr int64_t L = lanes_of<A>;

  const RecurrenceForward& a;
  const int64_t first, rows;
  Buffers<A> buf;

  // The cell for L units from u on, of local row `row`, whose step is stored at row `at`.
  // rec: the recurrent product, one vector per gate.
  FASTSEQ_INLINE void cell_block(int64_t at, int64_t row, int64_t u, const A* rec) {
    const int64_t H = a.hidden, n = H - u;
    const S* const pre = static_cast<const S*>(a.pre) + at * C::kGates * H + u;
    V x[C::kGates], r[C::kGates], cache[C::kCached + 1], c{}, h;
    for (int g = 0; g < C::kGates; ++g) {
      x[g] = load_n<A>(pre + g * H, n);
      r[g] = load<A>(rec + g * L);
    }
    if constexpr (C::kSplitsGates) {
      if (a.bias_hn) r[2] += load_n<A>(static_cast<const S*>(a.bias_hn) + u, n);
    }
    A* const c_state = C::kHasCellState ? buf.cell + row * buf.m_stride + u : nullptr;
    V c_prev{}, h_prev{};
    if constexpr (C::kHasCellState) c_prev = load<A>(c_state);
    if constexpr (C::kHasDirectPath) h_prev = load<A>(buf.now + row * buf.h_stride + u);
    C::template forward<VecMath>(x, r, h_prev, c_prev, cache, c, h);
    if constexpr (C::kHasCellState) {
      store<A>(c_state, c);
      if (a.cells) store_n<A>(static_cast<A*>(a.cells) + at * H + u, c, n);
    }
    if (a.gates) {
      S* const gates = static_cast<S*>(a.gates) + at * C::kCached * H + u;
      for (int g = 0; g < C::kCached; ++g) store_n<A>(gates + g * H, cache[g], n);
    }
    if (C::kHasCellState && a.weight_hr) {
      store<A>(buf.mid + row * buf.m_stride + u, h);
    } else {
      store_state(at, row, u, h);
    }
  }

  // Asks for what cell_block will read and write for n units from u on.
  FASTSEQ_INLINE void fetch_block(int64_t at, int64_t u, int64_t n) const {
    const int64_t H = a.hidden;
    for (int g = 0; g < C::kGates; ++g) {
      prefetch<false>(static_cast<const S*>(a.pre) + (at * C::kGates + g) * H + u, n);
    }
    if (a.gates) {
      for (int g = 0; g < C::kCached; ++g) {
        prefetch<true>(static_cast<S*>(a.gates) + (at * C::kCached + g) * H + u, n);
      }
    }
    if (C::kHasCellState && a.cells) prefetch<true>(static_cast<A*>(a.cells) + at * H + u, n);
    if (!a.weight_hr) prefetch<true>(static_cast<S*>(a.y) + at * a.state + u, n);
  }

  FASTSEQ_INLINE void store_state(int64_t at, int64_t row, int64_t u, V h) {
    const V kept = rounded_to<A, S>(h);
    store_n<A>(static_cast<S*>(a.y) + at * a.state + u, kept, a.state - u);
    store<A>(buf.next + row * buf.h_stride + u, kept);
  }

  void step(int64_t t, int64_t active, const A* packed_hh, const A* packed_hr) {
    const int64_t at0 = a.seq.offset(t) + first;
    const RecurrenceShape shape = shape_of(a);
    const PanelShape hh = hh_shape(shape);
    const auto run_cell = [&](int64_t panel, int64_t row, const A* tile)
                              __attribute__((always_inline)) {
                                if constexpr (kGated<C>) {
                                  cell_block(at0 + row, row, panel * L, tile);
                                } else {
                                  for (int64_t v = 0; v < kPlainWide; ++v) {
                                    const int64_t u = (panel * kPlainWide + v) * L;
                                    if (u < a.hidden) cell_block(at0 + row, row, u, tile + v * L);
                                  }
                                }
                              };
    const auto fetch_cell = [&](int64_t panel, int64_t row) __attribute__((always_inline)) {
      const int64_t per = outputs_per_panel<A>(hh), u = panel * per;
      const int64_t n = a.hidden - u < per ? a.hidden - u : per;
      fetch_block(at0 + row, u, n);
    };
    for_each_tile<A, kWideOf<C>>(hh, packed_hh, buf.now, buf.h_stride, active, fetch_cell,
                                 run_cell);
    if (!packed_hr) return;
    const auto run_projection = [&](int64_t panel, int64_t row, const A* tile)
                                    __attribute__((always_inline)) {
                                      for (int64_t v = 0; v < kPlainWide; ++v) {
                                        const int64_t u = (panel * kPlainWide + v) * L;
                                        if (u < a.state)
                                          store_state(at0 + row, row, u, load<A>(tile + v * L));
                                      }
                                    };
    const auto fetch_nothing = [](int64_t, int64_t) {};
    for_each_tile<A, kPlainWide>(hr_shape(shape), packed_hr, buf.mid, buf.m_stride, active,
                                 fetch_nothing, run_projection);
  }

  void run(const A* packed) {
    const int64_t R = a.state, H = a.hidden;
    const RecurrenceShape shape = shape_of(a);
    const A* const packed_hr = a.weight_hr ? packed + packed_size<A>(hh_shape(shape)) : nullptr;
    for (int64_t row = 0; row < rows; ++row) {
      load_row<A>(buf.now + row * buf.h_stride, static_cast<const S*>(a.h0) + (first + row) * R, R);
      // A row that has not started yet, or has ended, holds its state in both buffers.
      copy_row(buf.next + row * buf.h_stride, buf.now + row * buf.h_stride, buf.h_stride);
      if constexpr (C::kHasCellState) {
        load_row<A>(buf.cell + row * buf.m_stride, static_cast<const S*>(a.c0) + (first + row) * H,
                    H);
      }
    }
    int64_t before = rows;
    for (int64_t s = 0; s < a.seq.steps; ++s) {
      const int64_t t = a.seq.at(s);
      const int64_t active = clamped(a.seq.active(t) - first, 0, rows);
      for (int64_t row = active; row < before; ++row) {
        copy_row(buf.next + row * buf.h_stride, buf.now + row * buf.h_stride, buf.h_stride);
      }
      before = active;
      if (active == 0) continue;
      step(t, active, packed, packed_hr);
      A* const swap = buf.now;
      buf.now = buf.next;
      buf.next = swap;
    }
    for (int64_t row = 0; row < rows; ++row) {
      store_row<A>(static_cast<S*>(a.h_n) + (first + row) * R, buf.now + row * buf.h_stride, R);
      if constexpr (C::kHasCellState) {
        store_row<A>(static_cast<S*>(a.c_n) + (first + row) * H, buf.cell + row * buf.m_stride, H);
      }
    }
  }
};

template <class S>
struct Forward {
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
  static void pack(const RecurrenceForward& a, int64_t p0, int64_t p1, void* packed) {
    const RecurrenceShape s = shape_of(a);
    const PanelShape hh = hh_shape(s);
    const int64_t H = a.hidden, R = a.state, own = panel_count<A>(hh);
    const WeightView<S> w_hh{static_cast<const S*>(a.weight_hh), H * R, R, 1};
    const WeightView<S> w_hr{static_cast<const S*>(a.weight_hr), 0, H, 1};
    A* const to = static_cast<A*>(packed);
    for (int64_t p = p0; p < p1; ++p) {
      if (p < own) {
        pack_panel<A>(hh, w_hh, p, to);
      } else {
        pack_panel<A>(hr_shape(s), w_hr, p - own, to + packed_size<A>(hh));
      }
    }
  }
  static void run(const RecurrenceForward& a, int64_t first, int64_t last, const void* packed,
                  void* scratch) {
    with_cell(a.cell, [&](auto cell) {
      ForwardSlice<S, decltype(cell)> slice{
          a, first, last - first, {shape_of(a), last - first, static_cast<A*>(scratch)}};
      slice.run(static_cast<const A*>(packed));
    });
  }
};

template <class S>
constexpr ForwardTable table_of() {
  using F = Forward<S>;
  return {F::panels, F::packed_bytes, F::scratch_bytes, F::pack, F::run};
}

}  // namespace

const ForwardTable forward_table[kDTypes] = {table_of<float>(), table_of<double>(),
                                             table_of<BFloat16>(), table_of<Half>()};

}  // namespace fastseq::FASTSEQ_CAPABILITY
