// The forward time loop on a CPU: h_t from x_t and h_{t-1}, for all steps of a slice.
//
// One step is one sweep over the panels of W_hh: a register tile of W_hh h_{t-1}, then the cell on
// that tile. With a projection a second sweep makes h_t = W_hr m_t of the cell's output m_t. The
// input product is made for a chunk of steps at a time, into scratch that is still in cache when
// the recurrence reads it.
#include "recurrence_common.h"
#include "recurrence_table.h"

namespace fastseq::FASTSEQ_CAPABILITY {
namespace {

template <class C>
constexpr bool kGated = C::kGates > 1;
template <class C>
constexpr int64_t kWideOf = kGated<C> ? C::kGates : kPlainWide;

// Rows of a chunk: so many fill tiles well, and their products stay in the L2 cache.
constexpr int64_t kChunkBytes = 384 << 10;
constexpr int64_t kChunkRows = 192;

PanelShape gate_shape(const RecurrenceForward& a, int64_t inner) {
  const int64_t gates = gates_of(a.cell);
  return {a.hidden, inner, gates > 1 ? gates : kPlainWide, gates > 1};
}
PanelShape hr_shape(const RecurrenceForward& a) { return {a.state, a.hidden, kPlainWide, false}; }

// The team's scratch.
template <class D>
struct Shared {
  using A = typename D::Sum;
  using Item = typename D::Item;
  PanelShape hh, ih, hr;
  int64_t hh_panels, ih_panels, hr_panels;
  Item *packed_hh, *packed_ih, *packed_hr;
  A* bias;           // [panel][tile row]
  Item *now, *next;  // h_{t-1} and h_t  [B, h_stride]
  A* cell;           // c                [B, m_stride]
  Item* mid;         // m before the projection [B, m_stride]
  int64_t h_stride, m_stride, bytes;

  Shared(const RecurrenceForward& a, char* base) {
    Block block{base};
    const bool lstm = a.cell == Cell::kLstm;
    hh = gate_shape(a, a.state);
    ih = gate_shape(a, a.in.size);
    hr = hr_shape(a);
    hh_panels = panel_count<D>(hh);
    ih_panels = a.in.given ? hh_panels : 0;
    hr_panels = a.weight_hr ? panel_count<D>(hr) : 0;
    packed_hh = block.take<Item>(packed_size<D>(hh));
    packed_ih = block.take<Item>(a.in.given ? packed_size<D>(ih) : 0);
    packed_hr = block.take<Item>(a.weight_hr ? packed_size<D>(hr) : 0);
    bias = block.take<A>(ih_panels * hh.wide * lanes_of<A>);
    h_stride = padded<Item>(a.state);
    m_stride = padded<A>(a.hidden);
    now = block.take<Item>(a.seq.batch * h_stride);
    next = block.take<Item>(a.seq.batch * h_stride);
    cell = block.take<A>(lstm ? a.seq.batch * m_stride : 0);
    mid = block.take<Item>(a.weight_hr ? a.seq.batch * m_stride : 0);
    bytes = block.used;
  }
};

template <class D>
RecurrencePlan plan_of(const RecurrenceForward& a, int64_t members) {
  int64_t panels = panel_count<D>(gate_shape(a, a.state));
  if (a.weight_hr && panel_count<D>(hr_shape(a)) < panels) panels = panel_count<D>(hr_shape(a));
  return plan_recurrence(a.cell, a.seq.batch, a.hidden, a.state, panels, members);
}

// A member's scratch: the input of a chunk, and its product with W_ih.
template <class D>
struct Chunk {
  using A = typename D::Sum;
  typename D::Item* x;  // [rows, x_stride]
  A* product;           // [panel][rows][tile row]
  int64_t rows, x_stride, bytes;

  Chunk(const RecurrenceForward& a, int64_t batch_rows, int64_t panels, char* base) {
    Block block{base};
    const int64_t panel_row = gate_shape(a, 1).wide * lanes_of<A>;
    const int64_t row_bytes = (panels > 0 ? panels : 1) * panel_row * sizeof(A);
    rows = clamped(kChunkBytes / row_bytes, kBlockRows, kChunkRows);
    if (rows < batch_rows) rows = batch_rows;  // a step at least
    if (rows > a.seq.steps * batch_rows) rows = a.seq.steps * batch_rows;
    x_stride = padded<typename D::Item>(a.in.size);
    x = block.take<typename D::Item>(a.in.given ? rows * x_stride : 0);
    product = block.take<A>(a.in.given ? panels * rows * panel_row : 0);
    bytes = block.used;
  }
};

template <class S, class C>
struct ForwardSlice {
  using D = dot_t<S>;
  using A = typename D::Sum;
  using Item = typename D::Item;
  using V = Vec<A>;
  static constexpr int64_t L = lanes_of<A>;
  static constexpr int64_t kTileRow = kWideOf<C> * L;

  const RecurrenceForward& a;
  Shared<D> all;
  const Place& place;
  const Range batch, panels, projected;  // rows, and panels of W_hh and of W_hr
  Chunk<D> chunk;
  int64_t chunk_end = 0, chunk_row = 0;  // first step beyond the chunk; where the next step starts

  // The cell for L units from u on, of batch row `row`, whose step is stored at row `at`.
  // rec: the recurrent product, one vector per gate; in: the input's, or null if `pre` has it.
  FASTSEQ_INLINE void cell_block(int64_t at, int64_t row, int64_t u, const A* rec, const A* in) {
    const int64_t H = a.hidden, n = H - u;
    V x[C::kGates], r[C::kGates], cache[C::kCached + 1], c{}, h;
    if (in) {
      for (int g = 0; g < C::kGates; ++g) x[g] = load<A>(in + g * L);
    } else {
      const S* const pre = static_cast<const S*>(a.pre) + at * C::kGates * H + u;
      for (int g = 0; g < C::kGates; ++g) x[g] = load_n<A>(pre + g * H, n);
    }
    for (int g = 0; g < C::kGates; ++g) r[g] = load<A>(rec + g * L);
    if constexpr (C::kSplitsGates) {
      if (a.bias_hn) r[2] += load_n<A>(static_cast<const S*>(a.bias_hn) + u, n);
    }
    A* const c_state = C::kHasCellState ? all.cell + row * all.m_stride + u : nullptr;
    V c_prev{}, h_prev{};
    if constexpr (C::kHasCellState) c_prev = load<A>(c_state);
    if constexpr (C::kHasDirectPath) h_prev = load<A>(all.now + row * all.h_stride + u);
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
      store<A>(all.mid + row * all.m_stride + u, h);
    } else {
      store_state(at, row, u, h);
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

  FASTSEQ_INLINE void store_state(int64_t at, int64_t row, int64_t u, V h) {
    const V kept = rounded_to<A, S>(h);
    store_n<A>(static_cast<S*>(a.y) + at * a.state + u, kept, a.state - u);
    store<A>(all.next + row * all.h_stride + u, kept);
  }

  FASTSEQ_INLINE int64_t active(int64_t t) const {
    return clamped(a.seq.active(t) - batch.first, 0, batch.size());
  }

  // The input product of the steps from s on, as many as the chunk holds.
  void fill_chunk(int64_t s) {
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
    add_product<D, kWideOf<C>>(all.ih, all.packed_ih, panels.first, panels.last, chunk.x,
                               chunk.x_stride, rows, chunk.product, chunk.rows);
    chunk_end = s;
    chunk_row = 0;
  }

  void step(int64_t t, int64_t count) {
    const int64_t at0 = a.seq.offset(t) + batch.first, row0 = batch.first;
    const A* const from = a.in.given ? chunk.product + chunk_row * kTileRow : nullptr;
    const auto run_cell = [&](int64_t panel, int64_t row,
                              const A* tile) __attribute__((always_inline)) {
      const A* const in =
          from ? from + ((panel - panels.first) * chunk.rows + row) * kTileRow : nullptr;
      if constexpr (kGated<C>) {
        cell_block(at0 + row, row0 + row, panel * L, tile, in);
      } else {
        for (int64_t v = 0; v < kPlainWide; ++v) {
          const int64_t u = (panel * kPlainWide + v) * L;
          if (u < a.hidden) {
            cell_block(at0 + row, row0 + row, u, tile + v * L, in ? in + v * L : nullptr);
          }
        }
      }
    };
    const auto fetch_cell = [&](int64_t panel, int64_t row, Lines& lines)
                                __attribute__((always_inline)) {
                                  const int64_t per = outputs_per_panel<D>(all.hh), u = panel * per;
                                  const int64_t n = a.hidden - u < per ? a.hidden - u : per;
                                  fetch_block(at0 + row, u, n, lines);
                                };
    for_each_tile<D, kWideOf<C>>(all.hh, all.packed_hh, panels.first, panels.last,
                                 all.now + row0 * all.h_stride, all.h_stride, count, fetch_cell,
                                 run_cell);
    place.meet();
    if (!C::kHasCellState || !a.weight_hr) return;
    const auto run_projection = [&](int64_t panel, int64_t row,
                                    const A* tile) __attribute__((always_inline)) {
      for (int64_t v = 0; v < kPlainWide; ++v) {
        const int64_t u = (panel * kPlainWide + v) * L;
        if (u < a.state) {
          store_state(at0 + row, row0 + row, u, load<A>(tile + v * L));
        }
      }
    };
    for_each_tile<D, kPlainWide>(
        all.hr, all.packed_hr, projected.first, projected.last, all.mid + row0 * all.m_stride,
        all.m_stride, count, [](int64_t, int64_t, Lines&) {}, run_projection);
    place.meet();
  }

  // Rows are shared among the members of a group where whole rows are moved.
  template <class F>
  FASTSEQ_INLINE void each_own_row(const F& f) const {
    for (int64_t row = batch.first + place.unit; row < batch.last; row += place.plan.units) f(row);
  }

  void run() {
    const int64_t R = a.state, H = a.hidden;
    each_own_row([&](int64_t row) {
      Item* const h = all.now + row * all.h_stride;
      fill_row(h, all.h_stride);
      load_items<D>(h, static_cast<const S*>(a.h0) + row * R, R);
      // A row that has not started yet, or has ended, holds its state in both buffers.
      copy_row(all.next + row * all.h_stride, h, all.h_stride);
      if constexpr (C::kHasCellState) {
        load_row<A>(all.cell + row * all.m_stride, static_cast<const S*>(a.c0) + row * H, H);
        if (a.weight_hr) fill_row(all.mid + row * all.m_stride, all.m_stride);
      }
    });
    place.meet();
    int64_t before = 0;  // rows that took part in the step before
    for (int64_t s = 0; s < a.seq.steps; ++s) {
      const int64_t t = a.seq.at(s), count = active(t);
      if (place.unit == 0) {
        for (int64_t row = batch.first + count; row < batch.first + before; ++row) {
          copy_row(all.next + row * all.h_stride, all.now + row * all.h_stride, all.h_stride);
        }
      }
      before = count;
      if (count == 0) continue;
      if (a.in.given && s >= chunk_end) fill_chunk(s);
      step(t, count);
      chunk_row += count;
      Item* const swap = all.now;
      all.now = all.next;
      all.next = swap;
    }
    each_own_row([&](int64_t row) {
      S* const h_n = static_cast<S*>(a.h_n) + row * R;
      const Item* const h = all.now + row * all.h_stride;
      for (int64_t i = 0; i < R; i += L) store_n<A>(h_n + i, load<A>(h + i), R - i);
      if constexpr (C::kHasCellState) {
        store_row<A>(static_cast<S*>(a.c_n) + row * H, all.cell + row * all.m_stride, H);
      }
    });
  }
};

// Packs this member's share of the panels and the biases.
template <class S, class D = dot_t<S>>
void pack(const RecurrenceForward& a, const Shared<D>& all, const Member& member) {
  using A = typename D::Sum;
  constexpr int64_t L = lanes_of<A>;
  const int64_t H = a.hidden, R = a.state, I = a.in.size;
  const WeightView<S> w_hh{static_cast<const S*>(a.weight_hh), H * R, R, 1};
  const WeightView<S> w_ih{static_cast<const S*>(a.in.weight_ih), H * I, I, 1};
  const WeightView<S> w_hr{static_cast<const S*>(a.weight_hr), 0, H, 1};
  const auto bias_of = [&](int64_t panel) {
    A* const to = all.bias + panel * all.hh.wide * L;
    for (int64_t v = 0; v < all.hh.wide; ++v) {
      const int64_t u = all.hh.gated ? panel * L : (panel * all.hh.wide + v) * L;
      const int64_t at = all.hh.gated ? v * H + u : u;
      const bool split = a.cell == Cell::kGru && v == 2;  // that one is added inside the cell
      Vec<A> sum{};
      if (a.bias_ih && u < H) sum += load_n<A>(static_cast<const S*>(a.bias_ih) + at, H - u);
      if (a.bias_hh && u < H && !split) {
        sum += load_n<A>(static_cast<const S*>(a.bias_hh) + at, H - u);
      }
      store<A>(to + v * L, sum);
    }
  };
  const Range mine = share(all.hh_panels + all.ih_panels + all.hr_panels, member.id, member.count);
  for (int64_t i = mine.first; i < mine.last; ++i) {
    int64_t p = i;
    if (p < all.hh_panels) {
      pack_panel<D>(all.hh, w_hh, p, all.packed_hh);
      continue;
    }
    p -= all.hh_panels;
    if (p < all.ih_panels) {
      pack_panel<D>(all.ih, w_ih, p, all.packed_ih);
      bias_of(p);
    } else {
      pack_panel<D>(all.hr, w_hr, p - all.ih_panels, all.packed_hr);
    }
  }
}

template <class S>
struct Forward {
  using D = dot_t<S>;

  static int64_t team_bytes(const RecurrenceForward& a) { return Shared<D>(a, nullptr).bytes; }

  static int64_t member_bytes(const RecurrenceForward& a, int64_t members) {
    const RecurrencePlan plan = plan_of<D>(a, members);
    int64_t rows = 0;
    for (int64_t i = 0; i < plan.batches; ++i) {
      const int64_t n = batch_slice(a.seq, i, plan.batches).size();
      rows = n > rows ? n : rows;
    }
    // Shares of panels differ by one, and the fewer panels, the more rows a chunk has.
    const int64_t panels = panel_count<D>(gate_shape(a, a.state)), least = panels / plan.units;
    const int64_t few = Chunk<D>(a, rows, least, nullptr).bytes;
    const int64_t many = Chunk<D>(a, rows, least + 1, nullptr).bytes;
    return few > many ? few : many;
  }

  static void run(const RecurrenceForward& a, const Member& member, char* team, char* own) {
    const Shared<D> all(a, team);
    pack<S>(a, all, member);
    wait(member.team->everyone, member.count);
    const RecurrencePlan plan = plan_of<D>(a, member.count);
    const Place place(plan, member);
    if (place.idle) return;
    const Range batch = batch_slice(a.seq, place.batch, plan.batches);
    const Range panels = share(all.hh_panels, place.unit, plan.units);
    const Range projected = share(all.hr_panels, place.unit, plan.units);
    with_cell(a.cell, [&](auto cell) {
      ForwardSlice<S, decltype(cell)> slice{
          a, all, place, batch, panels, projected, Chunk<D>(a, batch.size(), panels.size(), own)};
      slice.run();
    });
  }
};

template <class S>
constexpr ForwardTable table_of() {
  using F = Forward<S>;
  return {F::team_bytes, F::member_bytes, F::run};
}

}  // namespace

#if defined(FASTSEQ_BF16_ALONE)
const ForwardTable forward_table[kDTypes] = {{}, {}, table_of<BFloat16>(), {}};
#else
const ForwardTable forward_table[kDTypes] = {table_of<float>(), table_of<double>(),
                                             table_of<BFloat16>(), table_of<Half>()};
#endif

}  // namespace fastseq::FASTSEQ_CAPABILITY
