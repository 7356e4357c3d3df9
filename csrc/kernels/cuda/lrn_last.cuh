// LRN across the channels of channels_last images. In memory, pixel follows pixel: a window is a
// stretch of one line of elements, cut where its pixel ends. A block owns a piece of that line and
// keeps it, with the windows' halo, in shared memory as runs of V = 16 bytes of S; a thread owns a
// run. N: the window's size, 0: any.
#pragma once

#include "lrn_planes.cuh"

namespace fastseq::cuda {

// A line of runs in shared memory, with a gap after each so that a warp's runs lie in different
// banks. Run 0 is the block's first; those of the halo before it are negative.
template <class A, int V>
class Line {
 public:
  FASTSEQ_DEVICE Line(int64_t offset, int lead, int runs)
      : lead_(lead), memory_(offset, runs * (V + 1)) {}
  // Element i of a run; i may lie outside [0, V), in a neighbour.
  FASTSEQ_DEVICE A get(int run, int i) const { return memory_.get(place(run, i)); }
  FASTSEQ_DEVICE void set(int run, int i, A x) const { memory_.set(place(run, i), x); }
  static int64_t bytes(int64_t runs) { return runs * (V + 1) * static_cast<int64_t>(sizeof(A)); }

 private:
  static constexpr int kShift = V == 8 ? 3 : V == 4 ? 2 : 1;
  FASTSEQ_DEVICE int place(int run, int i) const {
    return (run + lead_) * (V + 1) + i + (i >> kShift);
  }
  int lead_;
  device::Shared<A> memory_;
};

// Runs that n elements take.
template <int V>
FASTSEQ_HD int runs_for(int n) {
  return (n + V - 1) / V;
}

// A run of the line of all elements, as Input reads it; beyond its ends, zeros.
template <int V, class Input, class S>
FASTSEQ_DEVICE void run_of(const S* p, int64_t e, int64_t elements, bool in_line,
                           accumulate_t<S> (&out)[V]) {
  if (in_line && e >= 0 && e + V <= elements) {
    device::read<V>(p + e, out);
    FASTSEQ_UNROLL(V) for (int i = 0; i < V; ++i) out[i] = Input::of(out[i]);
  } else {
    FASTSEQ_UNROLL(V) for (int i = 0; i < V; ++i) {
      out[i] = e + i >= 0 && e + i < elements ? Input::of(device::read(p + e + i)) : 0;
    }
  }
}
template <int V, class S>
FASTSEQ_DEVICE void write_run(S* p, int64_t e, int64_t elements, bool in_line,
                              const accumulate_t<S> (&x)[V]) {
  if (in_line && e + V <= elements) {
    device::write<V>(p + e, x);
  } else {
    FASTSEQ_UNROLL(V) for (int i = 0; i < V; ++i) {
      if (e + i < elements) device::store(p + e + i, x[i]);
    }
  }
}

// The sums over the windows [i - before, i + after] of a run's elements, the first of which is
// channel c; add(sum, value) adds.
template <int N, int V, class A, class Add>
FASTSEQ_DEVICE void window_sums(const Line<A, V>& line, int run, int64_t c, int64_t channels,
                                int before, int after, const Add& add, A (&sums)[V]) {
  if constexpr (N > 0) {
    // Each value is read once. What lies in another pixel counts as a zero: lanes do not part.
    A values[V + N - 1];
    FASTSEQ_UNROLL(V + N - 1) for (int i = 0; i < V + N - 1; ++i) {
      values[i] = line.get(run, i - before);
    }
    if (channels % V == 0) {  // a run lies in one pixel
      FASTSEQ_UNROLL(V + N - 1) for (int i = 0; i < V + N - 1; ++i) {
        if (c + i < before || c + i - before >= channels) values[i] = 0;
      }
      FASTSEQ_UNROLL(V) for (int i = 0; i < V; ++i) {
        sums[i] = 0;
        FASTSEQ_UNROLL(N) for (int j = 0; j < N; ++j) sums[i] = add(sums[i], values[i + j]);
      }
      return;
    }
    FASTSEQ_UNROLL(V) for (int i = 0; i < V; ++i) {
      sums[i] = 0;
      FASTSEQ_UNROLL(N) for (int j = 0; j < N; ++j) {
        const bool inside = c + j >= before && c + j - before < channels;
        sums[i] = add(sums[i], inside ? values[i + j] : A(0));
      }
      if (++c == channels) c = 0;
    }
  } else {
    FASTSEQ_UNROLL(V) for (int i = 0; i < V; ++i) {
      const int from = c < before ? static_cast<int>(-c) : -before;
      const int to = c + after < channels ? after : static_cast<int>(channels - 1 - c);
      sums[i] = 0;
      FASTSEQ_UNROLL(1) for (int j = from; j <= to; ++j) {
        sums[i] = add(sums[i], line.get(run, i + j));
      }
      if (++c == channels) c = 0;
    }
  }
}

FASTSEQ_DEVICE int64_t remainder(int64_t i, int64_t d) { return i - device::divide(i, d) * d; }

template <class S, int N>
struct LastForward {
  Images images;
  const S* x;
  S* y;
  Norm<S, N> norm;
  bool in_line;  // both begin where 16 bytes do
};

template <class S, int N>
FASTSEQ_KERNEL last_forward(LastForward<S, N> a) {
  using A = accumulate_t<S>;
  constexpr int V = kPack<S>;
  const int before = static_cast<int>(a.norm.before()), after = static_cast<int>(a.norm.after());
  const int threads = device::block_size(), me = device::thread_index();
  const int lead = runs_for<V>(before), tail = runs_for<V>(after);
  const int64_t E = a.images.numel(), C = a.images.channels;
  const int64_t start = device::block_index() * threads * V, own = start + me * V;
  const Line<A, V> line(0, lead, lead + threads + tail);
  A x[V], sums[V];
  const auto stage = [&](int run) {
    run_of<V, Identity>(a.x, start + run * V, E, a.in_line, x);
    FASTSEQ_UNROLL(V) for (int i = 0; i < V; ++i) line.set(run, i, x[i]);
  };
  for (int run = me; run < lead + tail; run += threads) {
    stage(run < lead ? run - lead : run - lead + threads);
  }
  stage(me);
  device::sync();
  if (own >= E) return;
  window_sums<N>(line, me, remainder(own, C), C, before, after, AddSquare{}, sums);
  FASTSEQ_UNROLL(V) for (int i = 0; i < V; ++i) x[i] *= a.norm.factor(sums[i]);
  write_run<V>(a.y, own, E, a.in_line, x);
}

// Shared memory of a block: x with the halo of t's windows, and t with that of the gradient's.
template <class A, int V>
struct LastBackwardTile {
  int before, after, x_lead, x_runs, t_lead, t_tail, t_runs;

  FASTSEQ_HD LastBackwardTile(int before_, int after_, int threads)
      : before(before_), after(after_), t_lead(runs_for<V>(after_)), t_tail(runs_for<V>(before_)) {
    x_lead = t_lead + runs_for<V>(before);
    t_runs = t_lead + threads + t_tail;
    x_runs = x_lead + threads + t_tail + runs_for<V>(after);
  }
  FASTSEQ_HD int64_t t_offset() const {
    return static_cast<int64_t>(x_runs) * (V + 1) * static_cast<int64_t>(sizeof(A));
  }
  int64_t bytes() const { return t_offset() + Line<A, V>::bytes(t_runs); }
};

// `a` is a LastBackward, or the trio's.
template <int N, int V, class Input, class Arguments, class Source>
FASTSEQ_DEVICE void last_backward_any(const Arguments& a, const Source& source) {
  using A = decltype(a.norm.k);
  const int threads = device::block_size(), me = device::thread_index();
  const LastBackwardTile<A, V> tile(static_cast<int>(a.norm.before()),
                                    static_cast<int>(a.norm.after()), threads);
  const int64_t E = a.images.numel(), C = a.images.channels;
  const int64_t start = device::block_index() * threads * V, own = start + me * V;
  const Line<A, V> xs(0, tile.x_lead, tile.x_runs);
  const Line<A, V> ts(tile.t_offset(), tile.t_lead, tile.t_runs);
  A x[V], gp[V], g[V];
  const auto stage = [&](int run) {
    run_of<V, Input>(a.x, start + run * V, E, a.in_line, x);
    FASTSEQ_UNROLL(V) for (int i = 0; i < V; ++i) xs.set(run, i, x[i]);
  };
  const auto gradient = [&](int run) {
    const int64_t e = start + run * V;
    if (a.in_line && source.template in_one<V>(a.images) && e >= 0 && e + V <= E) {
      source.template run<V>(a.images, e, g);
    } else {
      FASTSEQ_UNROLL(V) for (int i = 0; i < V; ++i) {
        A one[1] = {0};
        if (e + i >= 0 && e + i < E) source.template run<1>(a.images, e + i, one);
        g[i] = one[0];
      }
    }
  };
  for (int i = me; i < tile.x_runs - threads; i += threads) {
    stage(i < tile.x_lead ? i - tile.x_lead : i - tile.x_lead + threads);
  }
  stage(me);
  // t of the halo's runs, and last of the thread's own. The first gradients are on their way before
  // the barrier.
  const int halo = tile.t_lead + tile.t_tail;
  for (int i = me;; i += threads) {
    const int run = i >= halo ? me : i < tile.t_lead ? i - tile.t_lead : i - tile.t_lead + threads;
    const int64_t e = start + run * V;
    gradient(run);
    if (i == me) device::sync();
    A sums[V];
    // Of a run before the first element only zeros are used; its channel need not be right.
    window_sums<N>(xs, run, e > 0 ? remainder(e, C) : 0, C, tile.before, tile.after, AddSquare{},
                   sums);
    FASTSEQ_UNROLL(V) for (int j = 0; j < V; ++j) {
      A p, q;
      a.norm.factors(sums[j], p, q);
      gp[j] = g[j] * p;
      ts.set(run, j, g[j] * xs.get(run, j) * q);
    }
    if (i >= halo) break;
  }
  device::sync();

  if (own >= E) return;
  A sums[V], out[V];
  window_sums<N>(ts, me, remainder(own, C), C, tile.after, tile.before, Add{}, sums);
  FASTSEQ_UNROLL(V) for (int i = 0; i < V; ++i) {
    out[i] = Input::gradient(x[i], a.norm.gradient(gp[i], x[i], sums[i]));
  }
  write_run<V>(a.grad_x, own, E, a.in_line, out);
}

template <class S, int N>
struct LastBackward {
  Images images;
  const S* grad_y;
  const S* x;
  S* grad_x;
  Norm<S, N> norm;
  bool in_line;  // all begin where 16 bytes do
};

template <class S, int N>
FASTSEQ_KERNEL last_backward(LastBackward<S, N> a) {
  last_backward_any<N, kPack<S>, Identity>(a, Given<S>{a.grad_y});
}

// Larger windows than this are read straight from memory: their halo outgrows the block's own part.
constexpr int64_t kLongestLineWindow = 128;

}  // namespace fastseq::cuda
