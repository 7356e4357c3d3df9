// The backward time loop on a CPU: back-propagation through time for a slice.
//
// It runs the steps in the opposite order. The gradient of h_t is W_hh^T (gate gradients of the
// step after) + grad_y_t + what the cell passes on directly, so one step is one sweep over panels
// of W_hh^T with the cell's backward in the epilogue. With a projection the first sweep ends at the
// gradient of h_t, and a second one takes it through W_hr^T to the cell.
// Gate gradients of all steps are written out; the gradients of the input, the weights and the
// biases are large products over them, made at the end (layer_gradients.h).
#include "layer_gradients.h"
#include "recurrence_table.h"

namespace fastseq::FASTSEQ_CAPABILITY {
namespace {

PanelShape hh_shape(const RecurrenceBackward& a) {
  return {a.state, gates_of(a.cell) * a.hidden, kPlainWide, false};
}
PanelShape hr_shape(const RecurrenceBackward& a) { return {a.hidden, a.state, kPlainWide, false}; }

// The team's scratch.
template <class D>
struct Shared {
  using A = typename D::Sum;
  using Item = typename D::Item;
  PanelShape hh, hr, ih;
  int64_t hh_panels, hr_panels, ih_panels;
  Item *packed_hh, *packed_hr, *packed_ih;
  Item *now, *next;  // recurrent-side gate gradients of the step after, of this step [B, g_stride]
  A* carry;          // gradient of h that does not pass through W_hh [B, h_stride]
  A* cell;           // gradient of c                                [B, m_stride]
  Item* state;       // whole gradient of h, before the projection   [B, h_stride]
  int64_t g_stride, h_stride, m_stride, bytes;

  Shared(const RecurrenceBackward& a, char* base) {
    Block block{base};
    const int64_t B = a.seq.batch;
    hh = hh_shape(a);
    hr = hr_shape(a);
    ih = input_shape(a);
    hh_panels = panel_count<D>(hh);
    hr_panels = a.weight_hr ? panel_count<D>(hr) : 0;
    ih_panels = a.grad_x ? panel_count<D>(ih) : 0;
    packed_hh = block.take<Item>(packed_size<D>(hh));
    packed_hr = block.take<Item>(a.weight_hr ? packed_size<D>(hr) : 0);
    packed_ih = block.take<Item>(a.grad_x ? packed_size<D>(ih) : 0);
    g_stride = padded<Item>(gates_of(a.cell) * a.hidden);
    h_stride = padded<A>(a.state);
    m_stride = padded<A>(a.hidden);
    now = block.take<Item>(B * g_stride);
    next = block.take<Item>(B * g_stride);
    carry = block.take<A>(B * h_stride);
    cell = block.take<A>(a.cell == Cell::kLstm ? B * m_stride : 0);
    state = block.take<Item>(a.weight_hr ? B * h_stride : 0);
    bytes = block.used;
  }
};

template <class D>
RecurrencePlan plan_of(const RecurrenceBackward& a, int64_t members) {
  int64_t panels = panel_count<D>(hh_shape(a));
  if (a.weight_hr && panel_count<D>(hr_shape(a)) < panels) panels = panel_count<D>(hr_shape(a));
  return plan_recurrence(a.cell, a.seq.batch, a.hidden, a.state, panels, members);
}

template <class S, class C>
struct BackwardSlice {
  using D = dot_t<S>;
  using A = typename D::Sum;
  using Item = typename D::Item;
  using V = Vec<A>;
  static constexpr int64_t L = lanes_of<A>;

  const RecurrenceBackward& a;
  Shared<D> all;
  const Place& place;
  const Range batch, panels, projected;  // rows, and panels of W_hh^T and of W_hr^T

  // Where a row stands at this step: its own row, and the row of the state before it.
  struct At {
    int64_t at, previous;
  };
  FASTSEQ_INLINE At where(int64_t t, int64_t row) const {
    return {a.seq.offset(t) + row, a.seq.previous_row(t, row)};
  }

  // gradient of h_t for L units from u on: recurrent product, direct path, grad_y.
  FASTSEQ_INLINE V state_gradient(const At& p, int64_t row, int64_t u, V product) {
    A* const carry = all.carry + row * all.h_stride + u;
    V dh = product + load<A>(carry);
    if (a.grad_y) {
      dh += load_n<A>(static_cast<const S*>(a.grad_y) + p.at * a.state + u, a.state - u);
    }
    store<A>(carry, V{});
    return dh;
  }

  // The cell's backward for L units from u on, given the gradient of its output.
  FASTSEQ_INLINE void cell_block(const At& p, int64_t row, int64_t u, V dh) {
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
      const S* const from = p.previous < 0 ? static_cast<const S*>(a.h0) + row * H
                                           : static_cast<const S*>(a.y) + p.previous * H;
      h_prev = load_n<A>(from + u, n);
    }
    if constexpr (C::kHasCellState) {
      const A* const cells = static_cast<const A*>(a.cells);
      c = load_n<A>(cells + p.at * H + u, n);
      c_prev = p.previous < 0 ? load_n<A>(static_cast<const S*>(a.c0) + row * H + u, n)
                              : load_n<A>(cells + p.previous * H + u, n);
      dc = load<A>(all.cell + row * all.m_stride + u);
      if (a.grad_cells) {
        dc += load_n<A>(static_cast<const A*>(a.grad_cells) + p.at * H + u, n);
      }
    }
    C::template backward<VecMath>(cache, h, c, h_prev, c_prev, dh, extra, dx, dr, dc, direct);
    S* const grad_pre = static_cast<S*>(a.grad_pre) + p.at * C::kGates * H + u;
    Item* const next = all.next + row * all.g_stride + u;
    for (int g = 0; g < C::kGates; ++g) {
      store_n<A>(grad_pre + g * H, dx[g], n);
      store_n<A>(next + g * H, dr[g], n);
    }
    if constexpr (C::kSplitsGates) {
      store_n<A>(static_cast<S*>(a.grad_aux) + p.at * H + u, dr[2], n);
    }
    if constexpr (C::kHasCellState) store<A>(all.cell + row * all.m_stride + u, dc);
    if constexpr (C::kHasDirectPath) store<A>(all.carry + row * all.h_stride + u, direct);
  }

  // What the epilogue will read and write for n units from u on.
  FASTSEQ_INLINE void fetch_block(const At& p, int64_t u, int64_t n, Lines& lines) const {
    const int64_t H = a.hidden;
    if (a.grad_y) lines.add(static_cast<const S*>(a.grad_y) + p.at * a.state + u, n);
    if (a.weight_hr) return;
    for (int g = 0; g < C::kCached; ++g) {
      lines.add(static_cast<const S*>(a.gates) + (p.at * C::kCached + g) * H + u, n);
    }
    for (int g = 0; g < C::kGates; ++g) {
      lines.add(static_cast<S*>(a.grad_pre) + (p.at * C::kGates + g) * H + u, n);
    }
    if constexpr (C::kSplitsGates) {
      lines.add(static_cast<S*>(a.grad_aux) + p.at * H + u, n);
    }
    if constexpr (C::kCached == 0) lines.add(static_cast<const S*>(a.y) + p.at * H + u, n);
    if (p.previous < 0) return;
    if constexpr (C::kHasDirectPath) {
      lines.add(static_cast<const S*>(a.y) + p.previous * H + u, n);
    }
    if constexpr (C::kHasCellState) {
      lines.add(static_cast<const A*>(a.cells) + p.previous * H + u, n);
    }
  }

  void step(int64_t t, int64_t count) {
    const int64_t row0 = batch.first;
    const auto run_state = [&](int64_t panel, int64_t r,
                               const A* tile) __attribute__((always_inline)) {
      const int64_t row = row0 + r;
      const At p = where(t, row);
      for (int64_t v = 0; v < kPlainWide; ++v) {
        const int64_t u = (panel * kPlainWide + v) * L;
        if (u >= a.state) break;
        const V dh = state_gradient(p, row, u, load<A>(tile + v * L));
        if (C::kHasCellState && a.weight_hr) {
          store<A>(all.state + row * all.h_stride + u, rounded_to<A, S>(dh));
          store_n<A>(static_cast<S*>(a.grad_aux) + p.at * a.state + u, dh, a.state - u);
        } else {
          cell_block(p, row, u, dh);
        }
      }
    };
    const auto fetch = [&](int64_t panel, int64_t r, Lines& lines) __attribute__((always_inline)) {
      constexpr int64_t per = kPlainWide * L;
      const int64_t u = panel * per, left = a.state - u;
      fetch_block(where(t, row0 + r), u, left < per ? left : per, lines);
    };
    for_each_tile<D, kPlainWide>(all.hh, all.packed_hh, panels.first, panels.last,
                                 all.now + row0 * all.g_stride, all.g_stride, count, fetch,
                                 run_state);
    place.meet();
    if constexpr (C::kHasCellState) {
      if (!a.weight_hr) return;
      const auto run_cell = [&](int64_t panel, int64_t r, const A* tile)
                                __attribute__((always_inline)) {
                                  const At p = where(t, row0 + r);
                                  for (int64_t v = 0; v < kPlainWide; ++v) {
                                    const int64_t u = (panel * kPlainWide + v) * L;
                                    if (u < a.hidden)
                                      cell_block(p, row0 + r, u, load<A>(tile + v * L));
                                  }
                                };
      for_each_tile<D, kPlainWide>(
          all.hr, all.packed_hr, projected.first, projected.last, all.state + row0 * all.h_stride,
          all.h_stride, count, [](int64_t, int64_t, Lines&) {}, run_cell);
      place.meet();
    }
  }

  // What is left after the first step of every row: the gradients of the initial states.
  void finish() {
    const auto run = [&](int64_t panel, int64_t r, const A* tile) __attribute__((always_inline)) {
      const int64_t row = batch.first + r;
      for (int64_t v = 0; v < kPlainWide; ++v) {
        const int64_t u = (panel * kPlainWide + v) * L;
        if (u >= a.state) break;
        const V dh = load<A>(tile + v * L) + load<A>(all.carry + row * all.h_stride + u);
        store_n<A>(static_cast<S*>(a.grad_h0) + row * a.state + u, dh, a.state - u);
      }
    };
    for_each_tile<D, kPlainWide>(
        all.hh, all.packed_hh, panels.first, panels.last, all.now + batch.first * all.g_stride,
        all.g_stride, batch.size(), [](int64_t, int64_t, Lines&) {}, run);
    if constexpr (C::kHasCellState) {
      each_own_row([&](int64_t row) {
        store_row<A>(static_cast<S*>(a.grad_c0) + row * a.hidden, all.cell + row * all.m_stride,
                     a.hidden);
      });
    }
  }

  template <class F>
  FASTSEQ_INLINE void each_own_row(const F& f) const {
    for (int64_t row = batch.first + place.unit; row < batch.last; row += place.plan.units) f(row);
  }

  static void load_or_zero(A* to, int64_t stride, const S* from, int64_t n) {
    fill_row(to, stride);
    if (from) load_row<A>(to, from, n);
  }

  void run() {
    const int64_t R = a.state, H = a.hidden;
    const S* const gh = static_cast<const S*>(a.grad_h_n);
    const S* const gc = static_cast<const S*>(a.grad_c_n);
    each_own_row([&](int64_t row) {
      fill_row(all.now + row * all.g_stride, all.g_stride);
      fill_row(all.next + row * all.g_stride, all.g_stride);
      load_or_zero(all.carry + row * all.h_stride, all.h_stride, gh ? gh + row * R : nullptr, R);
      if constexpr (C::kHasCellState) {
        load_or_zero(all.cell + row * all.m_stride, all.m_stride, gc ? gc + row * H : nullptr, H);
        if (a.weight_hr) fill_row(all.state + row * all.h_stride, all.h_stride);
      }
    });
    place.meet();
    int64_t before = 0;
    for (int64_t s = a.seq.steps - 1; s >= 0; --s) {
      const int64_t t = a.seq.at(s);
      const int64_t count = clamped(a.seq.active(t) - batch.first, 0, batch.size());
      // A row that has passed its first step keeps its gate gradients in both buffers.
      if (place.unit == 0) {
        for (int64_t row = batch.first + count; row < batch.first + before; ++row) {
          copy_row(all.next + row * all.g_stride, all.now + row * all.g_stride, all.g_stride);
        }
      }
      before = count;
      if (count == 0) continue;
      step(t, count);
      Item* const swap = all.now;
      all.now = all.next;
      all.next = swap;
    }
    finish();
  }
};

// Packs this member's share of the panels.
template <class S, class D = dot_t<S>>
void pack(const RecurrenceBackward& a, const Shared<D>& all, const Member& member) {
  const WeightView<S> w_hh{static_cast<const S*>(a.weight_hh), 0, 1, a.state};
  const WeightView<S> w_hr{static_cast<const S*>(a.weight_hr), 0, 1, a.hidden};
  const WeightView<S> w_ih{static_cast<const S*>(a.in.weight_ih), 0, 1, a.in.size};
  const Range mine = share(all.hh_panels + all.hr_panels + all.ih_panels, member.id, member.count);
  for (int64_t i = mine.first; i < mine.last; ++i) {
    const int64_t p = i - all.hh_panels, q = p - all.hr_panels;
    if (p < 0) {
      pack_panel<D>(all.hh, w_hh, i, all.packed_hh);
    } else if (q < 0) {
      pack_panel<D>(all.hr, w_hr, p, all.packed_hr);
    } else {
      pack_panel<D>(all.ih, w_ih, q, all.packed_ih);
    }
  }
}

template <class S>
struct Backward {
  using D = dot_t<S>;

  static int64_t team_bytes(const RecurrenceBackward& a) { return Shared<D>(a, nullptr).bytes; }

  static int64_t member_bytes(const RecurrenceBackward& a, int64_t members) {
    return LayerGradients<S>::bytes(a, members);
  }

  static void run(const RecurrenceBackward& a, const Member& member, char* team, char* own) {
    const Shared<D> all(a, team);
    pack<S>(a, all, member);
    wait(member.team->everyone, member.count);
    const RecurrencePlan plan = plan_of<D>(a, member.count);
    const Place place(plan, member);
    if (!place.idle) {
      const Range batch = batch_slice(a.seq, place.batch, plan.batches);
      const Range panels = share(all.hh_panels, place.unit, plan.units);
      const Range projected = share(all.hr_panels, place.unit, plan.units);
      with_cell(a.cell, [&](auto cell) {
        BackwardSlice<S, decltype(cell)> slice{a, all, place, batch, panels, projected};
        slice.run();
      });
    }
    if (!a.in.given) return;
    wait(member.team->everyone, member.count);
    LayerGradients<S>::run(a, all.packed_ih, member, own);
  }
};

template <class S>
constexpr BackwardTable table_of() {
  using B = Backward<S>;
  return {B::team_bytes, B::member_bytes, B::run};
}

}  // namespace

#if defined(FASTSEQ_BF16_ALONE)
const BackwardTable backward_table[kDTypes] = {{}, {}, table_of<BFloat16>(), {}};
#else
const BackwardTable backward_table[kDTypes] = {table_of<float>(), table_of<double>(),
                                               table_of<BFloat16>(), table_of<Half>()};
#endif

}  // namespace fastseq::FASTSEQ_CAPABILITY
