// The backward time loop on a CPU: back-propagation through time for a slice.
//
// It runs the steps in the opposite order. The gradient of h_t is W_hh^T (gate gradients of the
// step after) + grad_y_t + what the cell passes on directly, so one step is one sweep over panels
// of W_hh^T with the cell's backward in the epilogue. With a projection the first sweep ends at the
// gradient of h_t, and a second one takes it through W_hr^T to the cell.
// Gate gradients of all steps are written out; the gradients of the input, the weights and the
// biases are large products over them, made at the end (layer_gradients.h).
#include "backward_rows.h"
#include "layer_gradients.h"
#include "recurrence_table.h"

namespace fastseq::FASTSEQ_CAPABILITY {
namespace {

template <class S, class C>
struct BackwardSlice : BackwardRows<S> {
  using Rows = BackwardRows<S>;
  using Rows::a, Rows::all, Rows::place, Rows::batch, Rows::panels, Rows::projected, Rows::beside,
      Rows::options, Rows::L;
  using typename Rows::A, typename Rows::D, typename Rows::Item, typename Rows::V;

  const C cell;

  // Members with kBeside do what the options ask for; the plain layer has copies without (see
  // forward).

  // n units of the state before a step, from unit u on.
  template <bool kBeside, class E>
  FASTSEQ_INLINE V before(const At& p, int64_t u, int64_t width, const E* stored,
                          const void* initial, const void* by) const {
    const int64_t place = a.seq.place(p.row) * width + u, n = width - u;
    if (kBeside && p.replaced) return options.replacing(by, place, n);
    return p.previous < 0 ? load_n<A>(static_cast<const S*>(initial) + place, n)
                          : load_n<A>(stored + p.previous * width + u, n);
  }

  // The gradient of h_t for L units from u on: recurrent product, direct path, grad_y.
  template <bool kBeside>
  FASTSEQ_INLINE V state_gradient(const At& p, int64_t u, V product) {
    const int64_t R = a.state, n = R - u;
    A* const carry = all.carry + p.row * all.h_stride + u;
    V dh = this->template from_later<kBeside>(p.row, u, product);
    if constexpr (kBeside) dh = options.cut_h(p, u, dh);
    if (a.grad_y) dh += load_n<A>(static_cast<const S*>(a.grad_y) + p.at * R + u, n);
    V past{};  // the cell
    if constexpr (kBeside) past = options.kept(p, u, dh);
    store<A>(carry, past);
    return kBeside ? dh - past : dh;
  }

  // The cell's backward for L units from u on, given the gradient of its output; with a layer norm
  // of c, of c and o (by extra_o) instead.
  template <bool kBeside>
  FASTSEQ_INLINE void cell_block(const At& p, int64_t u, V dh, V extra_c = V{}, V extra_o = V{}) {
    const int64_t H = a.hidden, n = H - u;
    V cache[C::kCached + 1], extra[C::kCached + 1];
    for (int g = 0; g < C::kCached; ++g) {
      const int64_t i = (p.at * C::kCached + g) * H + u;
      cache[g] = load_n<A>(static_cast<const S*>(a.gates) + i, n);
      extra[g] = a.grad_gates ? load_n<A>(static_cast<const S*>(a.grad_gates) + i, n) : V{};
    }
    V h{}, h_prev{}, c{}, c_prev{}, dc{}, direct{}, dx[C::kGates], dr[C::kGates], zone;
    const V* zoned = nullptr;
    if constexpr (C::kCached == 0) {
      h = load_n<A>(static_cast<const S*>(a.y) + p.at * H + u, n);
    }
    if constexpr (C::kHasDirectPath) {
      h_prev = before<kBeside>(p, u, H, static_cast<const S*>(a.y), a.h0, a.extra.reset_h);
    }
    if constexpr (C::kHasCellState) {
      const A* const cells = static_cast<const A*>(a.cells);
      c = load_n<A>(cells + p.at * H + u, n);
      c_prev = before<kBeside>(p, u, H, cells, a.c0, a.extra.reset_c);
      dc = load<A>(all.cell + p.row * all.m_stride + u);
      if constexpr (kBeside) dc = options.cut_c(p, u, dc);
      if (a.grad_cells) {
        dc += load_n<A>(static_cast<const A*>(a.grad_cells) + p.at * H + u, n);
      }
      if constexpr (kBeside) zoned = options.zone_of_c(p, u, zone);
      if (kBeside && a.extra.norm_c) {
        dc += extra_c;
        extra[3] += extra_o;
      }
    }
    cell.template backward<VecMath>(cache, h, c, h_prev, c_prev, dh, extra, zoned, dx, dr, dc,
                                    direct);
    S* const grad_pre = static_cast<S*>(a.grad_pre) + p.inner * C::kGates * H + u;
    Item* const next = all.next + p.row * all.g_stride + u;
    for (int g = 0; g < C::kGates; ++g) {
      store_n<A>(grad_pre + g * H, dx[g], n);
      if (kBeside && a.extra.norm_hh) {
        store<A>(options.side_of(p.row) + g * all.m_stride + u, dr[g]);
      } else {
        store_n<A>(next + g * H, dr[g], n);
      }
    }
    if constexpr (C::kSplitsGates) {
      store_n<A>(static_cast<S*>(a.grad_aux) + p.inner * H + u, dr[2], n);
    }
    if constexpr (C::kHasCellState) store<A>(all.cell + p.row * all.m_stride + u, dc);
    if constexpr (C::kHasDirectPath) {
      A* const carry = all.carry + p.row * all.h_stride + u;
      store<A>(carry, kBeside ? options.with_kept(direct, carry) : direct);
    }
  }

  // The cell's backward for a whole row, through the layer norms of c and of the product.
  void normed_row(const At& p) {
    options.template normed_row<C>(
        p, [&](int64_t u, V dh, V d_c, V d_o)
               __attribute__((always_inline)) { cell_block<true>(p, u, dh, d_c, d_o); });
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
      lines.add(static_cast<S*>(a.grad_pre) + (p.inner * C::kGates + g) * H + u, n);
    }
    if constexpr (C::kSplitsGates) {
      lines.add(static_cast<S*>(a.grad_aux) + p.inner * H + u, n);
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

  // The gradient of the cell's output goes to the cell, or waits for the rest of its row.
  template <bool kBeside>
  FASTSEQ_INLINE void run_cell(const At& p, int64_t u, V dh) {
    if (kBeside && a.extra.norm_hh) {
      store<A>(options.output_of(p.row) + u, dh);
    } else {
      cell_block<kBeside>(p, u, dh);
    }
  }

  // From the gradient of h on, for L units from u on.
  template <bool kBeside>
  FASTSEQ_INLINE void run_state(const At& p, int64_t u, V product) {
    const V dh = state_gradient<kBeside>(p, u, product);
    if (C::kHasCellState && a.weight_hr) {
      store<A>(all.state + p.row * all.h_stride + u, rounded_to<A, S>(dh));
      store_n<A>(static_cast<S*>(a.grad_aux) + p.inner * a.state + u, dh, a.state - u);
    } else {
      run_cell<kBeside>(p, u, dh);
    }
  }
  // Out of line, with their vectors in memory.
  __attribute__((noinline)) void run_state_beside(const At& p, int64_t u, const A* product) {
    run_state<true>(p, u, load<A>(product));
  }
  __attribute__((noinline)) void run_cell_beside(const At& p, int64_t u, const A* dh) {
    run_cell<true>(p, u, load<A>(dh));
  }

  // first: no step was done yet, so that W_hh^T would be multiplied with zeros.
  void step(int64_t t, int64_t count, bool first) {
    const int64_t row0 = batch.first;
    PanelShape hh = all.hh;
    if (first) hh.inner = 0;
    const auto run_tile = [&](int64_t panel, int64_t r, const A* tile)
                              __attribute__((always_inline)) {
                                const At p = this->where(t, row0 + r);
                                for (int64_t v = 0; v < kPlainWide; ++v) {
                                  const int64_t u = (panel * kPlainWide + v) * L;
                                  if (u >= a.state) break;
                                  if (!kCopies || __builtin_expect(beside, 0)) {
                                    run_state_beside(p, u, tile + v * L);
                                  } else {
                                    run_state<false>(p, u, load<A>(tile + v * L));
                                  }
                                }
                              };
    const auto fetch = [&](int64_t panel, int64_t r, Lines& lines) __attribute__((always_inline)) {
      constexpr int64_t per = kPlainWide * L;
      const int64_t u = panel * per, left = a.state - u;
      fetch_block(this->where(t, row0 + r), u, left < per ? left : per, lines);
    };
    for_each_tile<D, kPlainWide>(hh, all.packed_hh, panels.first, panels.last,
                                 all.now + row0 * all.g_stride, all.g_stride, count, fetch,
                                 run_tile);
    place.meet();
    if (C::kHasCellState && a.weight_hr) {
      const auto run_output = [&](int64_t panel, int64_t r, const A* tile) {
        const At p = this->where(t, row0 + r);
        for (int64_t v = 0; v < kPlainWide; ++v) {
          const int64_t u = (panel * kPlainWide + v) * L;
          if (u >= a.hidden) break;
          run_cell_beside(p, u, tile + v * L);
        }
      };
      sweep_tiles<D, kPlainWide>(all.hr, all.packed_hr, projected.first, projected.last,
                                 all.state + row0 * all.h_stride, all.h_stride, count, run_output);
      place.meet();
    }
    if (a.extra.norm_hh) {
      for (int64_t r = place.unit; r < count; r += place.plan.units)
        normed_row(this->where(t, row0 + r));
      place.meet();
    }
  }

  void run() {
    place.each_own_row(batch, [&](int64_t row) { this->start_row(row); });
    place.meet();
    int64_t before = 0;
    bool first = true;
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
      step(t, count, first);
      first = false;
      Item* const swap = all.now;
      all.now = all.next;
      all.next = swap;
    }
    this->finish();
  }
};

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
      with_loop_cell(a.cell, [&](auto cell) {
        BackwardSlice<S, decltype(cell)> slice{{a, all, place, batch, panels, projected}, cell};
        slice.run();
      });
    }
    if (!LayerGradients<S>::any(a)) return;
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
