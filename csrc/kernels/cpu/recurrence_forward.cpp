// The forward time loop on a CPU: h_t from x_t and h_{t-1}, for all steps of a slice.
//
// One step is one sweep over the panels of W_hh: a register tile of W_hh h_{t-1}, then the cell on
// that tile. With a projection a second sweep makes h_t = W_hr m_t of the cell's output m_t. The
// input product is made for a chunk of steps at a time, into scratch that is still in cache when
// the recurrence reads it.
#include "forward_rows.h"
#include "recurrence_table.h"

namespace fastseq::FASTSEQ_CAPABILITY {
namespace {

template <class C>
constexpr bool kGated = C::kGates > 1;
template <class C>
constexpr int64_t kWideOf = kGated<C> ? C::kGates : kPlainWide;

template <class S, class C>
struct ForwardSlice : ForwardRows<S> {
  using Rows = ForwardRows<S>;
  using Rows::a, Rows::all, Rows::place, Rows::batch, Rows::panels, Rows::projected, Rows::chunk,
      Rows::chunk_row, Rows::options, Rows::L;
  using typename Rows::A, typename Rows::D, typename Rows::Item, typename Rows::V;
  static constexpr int64_t kTileRow = kWideOf<C> * L;

  const C cell;
  // Members with kBeside do what the options ask for. The plain layer has copies without all that:
  // its questions alone would cost a twentieth of a small layer's time.
  const bool beside = a.extra.any();

  // h before the step, for L units from u on.
  template <bool kBeside>
  FASTSEQ_INLINE V state_before_step(const Spot& p, int64_t u) const {
    if constexpr (kBeside) return options.before_step(p, u);
    return load<A>(all.now + p.row * all.h_stride + u);
  }

  FASTSEQ_INLINE void cell_block(const Spot& p, int64_t u, const A* rec, const A* in) {
    if constexpr (kCopies) {
      if (__builtin_expect(!beside, 1)) return cell_block_of<false>(p, u, rec, in);
    }
    cell_block_beside(p, u, rec, in);
  }
  __attribute__((noinline)) void cell_block_beside(const Spot& p, int64_t u, const A* rec,
                                                   const A* in) {
    cell_block_of<true>(p, u, rec, in);
  }

  // The cell for L units from u on. rec: the recurrent product, one vector per gate; in: the
  // input's, or null if `pre` has it.
  template <bool kBeside>
  FASTSEQ_INLINE void cell_block_of(const Spot& p, int64_t u, const A* rec, const A* in) {
    const int64_t H = a.hidden, n = H - u;
    V x[C::kGates], r[C::kGates], cache[C::kCached + 1], c{}, h;
    if (in) {
      for (int g = 0; g < C::kGates; ++g) x[g] = load<A>(in + g * L);
    } else {
      const S* const pre = static_cast<const S*>(a.pre) + p.at * C::kGates * H + u;
      for (int g = 0; g < C::kGates; ++g) x[g] = load_n<A>(pre + g * H, n);
    }
    for (int g = 0; g < C::kGates; ++g) r[g] = load<A>(rec + g * L);
    if constexpr (C::kSplitsGates) {
      if (a.bias_hn) r[2] += load_n<A>(static_cast<const S*>(a.bias_hn) + u, n);
    }
    A* const c_state = C::kHasCellState ? all.cell + p.row * all.m_stride + u : nullptr;
    V c_prev{}, h_prev{}, zone;
    const V* zoned = nullptr;
    if constexpr (C::kHasCellState) {
      c_prev = load<A>(c_state);
      if constexpr (kBeside) zoned = options.zone_of_c(p, u, zone);
    }
    if constexpr (C::kHasDirectPath) h_prev = state_before_step<kBeside>(p, u);
    cell.template forward<VecMath>(x, r, h_prev, c_prev, zoned, cache, c, h);
    if constexpr (C::kHasCellState) {
      if (a.cells) store_n<A>(static_cast<A*>(a.cells) + p.at * H + u, c, n);
      if constexpr (kBeside) {
        options.keep_output(p, u, cache[3], c);
        c = options.next_c(p, u, c);
      }
      store<A>(c_state, c);
    }
    if (a.gates) {
      S* const gates = static_cast<S*>(a.gates) + p.at * C::kCached * H + u;
      for (int g = 0; g < C::kCached; ++g) store_n<A>(gates + g * H, cache[g], n);
    }
    if (!C::kHasCellState || !kBeside || !a.extra.norm_c) store_output<kBeside>(p, u, h);
  }

  // The cell's output: the hidden state, unless it is projected.
  template <bool kBeside>
  FASTSEQ_INLINE void store_output(const Spot& p, int64_t u, V h) {
    if (C::kHasCellState && a.weight_hr) {
      store<A>(all.mid + p.row * all.m_stride + u, h);
    } else {
      store_state<kBeside>(p, u, h);
    }
  }

  // What cell_block will read and write for n units from u on.
  FASTSEQ_INLINE void fetch_block(int64_t at, int64_t u, int64_t n, Lines& lines) const {
    const int64_t H = a.hidden;
    if (a.pre) {
      for (int g = 0; g < C::kGates; ++g) {
        lines.add(static_cast<const S*>(a.pre) + (at * C::kGates + g) * H + u, n);
      }
    }
    if (a.gates) {
      for (int g = 0; g < C::kCached; ++g) {
        lines.add(static_cast<S*>(a.gates) + (at * C::kCached + g) * H + u, n);
      }
    }
    if (C::kHasCellState && a.cells) lines.add(static_cast<A*>(a.cells) + at * H + u, n);
    if (!a.weight_hr) lines.add(static_cast<S*>(a.y) + at * a.state + u, n);
  }

  template <bool kBeside>
  FASTSEQ_INLINE void store_state(const Spot& p, int64_t u, V h) {
    const int64_t R = a.state;
    if constexpr (kBeside) h = options.zoned(p, u, h);
    V kept = rounded_to<A, S>(h);
    store_n<A>(static_cast<S*>(a.y) + p.at * R + u, kept, R - u);
    if constexpr (kBeside) kept = options.next_h(p, u, kept);
    store<A>(all.next + p.row * all.h_stride + u, kept);
  }

  __attribute__((noinline)) void store_state_beside(const Spot& p, int64_t u, const A* h) {
    store_state<true>(p, u, load<A>(h));
  }

  // The cell for a whole row whose recurrent product is normalized first.
  void normed_row(const Spot& p) {
    options.template normed_row<C>(
        p, [&](int64_t u, const A* product) { cell_block_beside(p, u, product, nullptr); },
        [&](int64_t u, V h) { store_output<true>(p, u, h); });
  }

  void step(int64_t t, int64_t count) {
    const int64_t row0 = batch.first, at0 = a.seq.offset(t);
    const auto row_of = [&](int64_t row) __attribute__((always_inline)) {
      return a.seq.order ? a.seq.row(t, row0 + row) : at0 + row0 + row;
    };
    const auto spot = [&](int64_t row) __attribute__((always_inline)) {
      const int64_t b = row0 + row;
      return Spot{t, b, row_of(row), beside && a.extra.resets_after(a.seq, t, b)};
    };
    const A* const from = a.in.given ? chunk.product + chunk_row * kTileRow : nullptr;
    const auto run_cell = [&](int64_t panel, int64_t row,
                              const A* tile) __attribute__((always_inline)) {
      const A* const in =
          from ? from + ((panel - panels.first) * chunk.rows + row) * kTileRow : nullptr;
      const Spot p = spot(row);
      if (a.extra.norm_hh) {
        options.template keep_product<C>(p, panel, tile);
      } else if constexpr (kGated<C>) {
        cell_block(p, panel * L, tile, in);
      } else {
        for (int64_t v = 0; v < kPlainWide; ++v) {
          const int64_t u = (panel * kPlainWide + v) * L;
          if (u < a.hidden) cell_block(p, u, tile + v * L, in ? in + v * L : nullptr);
        }
      }
    };
    const auto fetch_cell = [&](int64_t panel, int64_t row, Lines& lines)
                                __attribute__((always_inline)) {
                                  const int64_t per = outputs_per_panel<D>(all.hh), u = panel * per;
                                  const int64_t n = a.hidden - u < per ? a.hidden - u : per;
                                  fetch_block(row_of(row), u, n, lines);
                                };
    for_each_tile<D, kWideOf<C>>(all.hh, all.packed_hh, panels.first, panels.last,
                                 all.now + row0 * all.h_stride, all.h_stride, count, fetch_cell,
                                 run_cell);
    place.meet();
    if (a.extra.norm_hh) {
      for (int64_t row = place.unit; row < count; row += place.plan.units) normed_row(spot(row));
      place.meet();
    }
    if (!C::kHasCellState || !a.weight_hr) return;
    const auto run_projection = [&](int64_t panel, int64_t row, const A* tile) {
      for (int64_t v = 0; v < kPlainWide; ++v) {
        const int64_t u = (panel * kPlainWide + v) * L;
        if (u >= a.state) break;
        if (!kCopies || beside) {
          store_state_beside(spot(row), u, tile + v * L);
        } else {
          store_state<false>(spot(row), u, load<A>(tile + v * L));
        }
      }
    };
    sweep_tiles<D, kPlainWide>(all.hr, all.packed_hr, projected.first, projected.last,
                               all.mid + row0 * all.m_stride, all.m_stride, count, run_projection);
    place.meet();
  }

  void run() {
    place.each_own_row(batch, [&](int64_t row) { this->start_row(row); });
    place.meet();
    for (int64_t s = 0; s < a.seq.steps; ++s) {
      const int64_t t = a.seq.at(s), count = this->active(t);
      if (count == 0) continue;
      if (a.in.given && s >= this->chunk_end) this->template fill_chunk<kWideOf<C>>(s);
      step(t, count);
      chunk_row += count;
      Item* const swap = all.now;
      all.now = all.next;
      all.next = swap;
    }
    place.each_own_row(batch, [&](int64_t row) { this->end_row(row); });
  }
};

template <class S>
struct Forward {
  using D = dot_t<S>;

  static int64_t team_bytes(const RecurrenceForward& a) { return Shared<D>(a, nullptr).bytes; }

  static int64_t packed_bytes(const RecurrenceForward& a) {
    return Shared<D>(a, nullptr).weight_bytes;
  }
  static void pack_into(RecurrenceForward a, void* to) {
    a.packed = to;
    pack<S>(a, Shared<D>(a, nullptr), Member{nullptr, 0, 1});
  }

  static int64_t member_bytes(const RecurrenceForward& a, int64_t members) {
    const RecurrencePlan plan = plan_of<D>(a, members);
    const int64_t rows = widest_slice(a.seq, plan.batches);
    // Shares of panels differ by one, and the fewer panels, the more rows a chunk has.
    const int64_t panels = panel_count<D>(gate_shape(a, a.state)), least = panels / plan.units;
    const int64_t few = Chunk<D>(a, rows, least, nullptr).bytes;
    const int64_t many = Chunk<D>(a, rows, least + 1, nullptr).bytes;
    return few > many ? few : many;
  }

  static void run(const RecurrenceForward& a, const Member& member, char* team, char* own) {
    const Shared<D> all(a, team);
    if (!a.packed) {
      pack<S>(a, all, member);
      wait(member.team->everyone, member.count);
    }
    const RecurrencePlan plan = plan_of<D>(a, member.count);
    const Place place(plan, member);
    if (place.idle) return;
    const Range batch = batch_slice(a.seq, place.batch, plan.batches);
    const Range panels = share(all.hh_panels, place.unit, plan.units);
    const Range projected = share(all.hr_panels, place.unit, plan.units);
    with_loop_cell(a.cell, [&](auto cell) {
      ForwardSlice<S, decltype(cell)> slice{
          {a, all, place, batch, panels, projected, Chunk<D>(a, batch.size(), panels.size(), own)},
          cell};
      slice.run();
    });
  }
};

template <class S>
constexpr ForwardTable table_of() {
  using F = Forward<S>;
  return {F::team_bytes, F::member_bytes, F::run, F::packed_bytes, F::pack_into};
}

}  // namespace

#if defined(FASTSEQ_BF16_ALONE)
const ForwardTable forward_table[kDTypes] = {{}, {}, table_of<BFloat16>(), {}};
#else
const ForwardTable forward_table[kDTypes] = {table_of<float>(), table_of<double>(),
                                             table_of<BFloat16>(), table_of<Half>()};
#endif

}  // namespace fastseq::FASTSEQ_CAPABILITY
