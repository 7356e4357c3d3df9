// LRN across the channels of NCHW images, for windows of N channels: a block walks over its strip's
// planes, and a thread owns kStripPixels of its pixels, a block apart. What their windows hold
// stays in registers, so that x is read once; the planes to come are on their way while one is
// computed.
#pragma once

#include "lrn.h"
#include "strip.cuh"

namespace fastseq::cuda {

constexpr int kStripPixels = 2;

template <class S>
using Planes = StripMover<const S, kPack<S>, kStripPixels>;
template <class S>
using PlanesOut = StripMover<S, kPack<S>, kStripPixels>;

// Blocks on a multiprocessor that a kernel's registers are for: as many as go without spills.
// Turing rounds to bfloat16 by many instructions.
constexpr int kStripBlocks = device::kArchitecture / 100 == 7 ? 2 : 3;

// Forward: a walk's first stage, which fills the ring with what is before its first channel, or
// with zeros, and the planes that it reads.
template <int N>
struct ForwardStages {
  static constexpr int kBefore = N / 2, kAfter = (N - 1) / 2;
  int first, from, to;

  FASTSEQ_DEVICE ForwardStages(const StripWalk& walk, const Images& images)
      : first(walk.from - (walk.from ? N - 1 : kAfter)),
        from(at_least(walk.from - kBefore, 0)),
        to(at_most(walk.to + kAfter, static_cast<int>(images.channels))) {}
};

// Normalizes a stage's planes, which may be left where they were. `in` is N / 2 planes ahead.
template <class S, class Input, int N, int R, class In, class Out>
FASTSEQ_DEVICE void normalize_stage(const In& in, const Out& out, int length,
                                    const Norm<S, N>& norm, Ring<accumulate_t<S>, N> (&ring)[R]) {
  using A = accumulate_t<S>;
  FASTSEQ_UNROLL(1) for (int k = 0; k < kPack<S>; ++k) {
    FASTSEQ_UNROLL(R) for (int v = 0; v < R; ++v) {
      const int pixel = strip_pixel(v);
      if (pixel >= length) continue;
      ring[v].push(Input::of(A(device::widen(in.get(k, pixel)))));
      const A y = ring[v].value[N / 2] * norm.factor(ring[v].squares());
      out.set(k, pixel, device::narrow<S>(y));
    }
  }
}

template <class S, int N>
struct StripForward {
  Images images;
  const S* x;
  S* y;
  Norm<S, N> norm;
  Strips strips;
};

template <class S, int N>
FASTSEQ_KERNEL_OF(device::kBlock, kStripBlocks)
strip_forward(StripForward<S, N> a) {
  constexpr int K = kPack<S>, kAfter = (N - 1) / 2;
  const StripWalk walk(a.images, a.strips);
  const ForwardStages<N> stages(walk, a.images);
  const auto x = strip_of(a.x, a.images, a.strips, walk);
  const auto y = strip_of(a.y, a.images, a.strips, walk);
  Planes<S> in(x, stages.first + kAfter, 0);
  PlanesOut<S> out(y, stages.first, strip_bytes<S, K>(a.strips.length));
  Ring<accumulate_t<S>, N> ring[kStripPixels];
  in.fetch(stages.first + kAfter, stages.from, stages.to);
  for (int c = stages.first; c < walk.to; c += K) {
    in.put(c + kAfter, stages.from, stages.to);
    device::sync();
    in.fetch(c + K + kAfter, stages.from, stages.to);
    normalize_stage<S, Identity>(in, out, x.length, a.norm, ring);
    device::sync();
    out.store(c, walk.from, walk.to);
  }
}

// The gradient of LRN's output as a tensor of its own.
template <class S>
class GivenStrip {
 public:
  FASTSEQ_DEVICE GivenStrip(const StripOf<const S>& grad_y, int first, int64_t shared)
      : planes_(grad_y, first, shared) {}
  FASTSEQ_DEVICE void fetch(int c, int from, int to) { planes_.fetch(c, from, to); }
  FASTSEQ_DEVICE void put(int c, int from, int to) const { planes_.put(c, from, to); }
  FASTSEQ_DEVICE accumulate_t<S> get(int k, int v) const {
    return device::widen(planes_.get(k, strip_pixel(v)));
  }

 private:
  Planes<S> planes_;
};

// Plane m is where t is computed; the gradient of plane m - before is complete then. Shared memory
// holds x from 0 on, the result from `out_at` on. `gradient` is a GivenStrip or one like it, whose
// first stage is strip_begin().
template <int N>
FASTSEQ_DEVICE int strip_begin(const StripWalk& walk) {
  constexpr int kAfter = (N - 1) / 2;
  return walk.from - kAfter - (walk.from ? N - 1 : 0);
}

// `a` is a StripBackward, or the trio's.
template <class S, int N, class Input, class Arguments, class Gradient>
FASTSEQ_DEVICE void strip_backward_any(const Arguments& a, const StripWalk& walk,
                                       Gradient& gradient, int64_t out_at) {
  using A = accumulate_t<S>;
  constexpr int K = kPack<S>, kBefore = N / 2, kAfter = (N - 1) / 2;
  const int C = static_cast<int>(a.images.channels), from = walk.from, to = walk.to;
  const int first = strip_begin<N>(walk);
  const auto x = strip_of(a.x, a.images, a.strips, walk);
  const auto grad_x = strip_of(a.grad_x, a.images, a.strips, walk);
  Planes<S> in(x, first + kAfter, 0);
  PlanesOut<S> out(grad_x, first - kBefore, out_at);
  Ring<A, N> x_ring[kStripPixels], t_ring[kStripPixels];
  Ring<A, kBefore + 1> gp_ring[kStripPixels];
  const int x_from = at_least(from - (N - 1), 0), x_to = at_most(to + N - 1, C);
  const int g_from = at_least(from - kAfter, 0), g_to = at_most(to + kBefore, C);
  in.fetch(first + kAfter, x_from, x_to);
  gradient.fetch(first, g_from, g_to);
  for (int m = first; m < to + kBefore; m += K) {
    in.put(m + kAfter, x_from, x_to);
    gradient.put(m, g_from, g_to);
    device::sync();
    in.fetch(m + K + kAfter, x_from, x_to);
    gradient.fetch(m + K, g_from, g_to);
    FASTSEQ_UNROLL(1) for (int k = 0; k < K; ++k) {
      const bool inside = m + k >= 0 && m + k < C;
      FASTSEQ_UNROLL(kStripPixels) for (int v = 0; v < kStripPixels; ++v) {
        const int pixel = strip_pixel(v);
        if (pixel >= x.length) continue;
        const A g = gradient.get(k, v);
        A p, q;
        x_ring[v].push(Input::of(A(device::widen(in.get(k, pixel)))));
        a.norm.factors(x_ring[v].squares(), p, q);
        // Outside, where q may be infinite, they count as zeros.
        t_ring[v].push(inside ? g * x_ring[v].value[kBefore] * q : A(0));
        gp_ring[v].push(g * p);
        const A x_d = x_ring[v].value[0];
        const A dx = a.norm.gradient(gp_ring[v].value[0], x_d, t_ring[v].sum());
        out.set(k, pixel, device::narrow<S>(Input::gradient(x_d, dx)));
      }
    }
    device::sync();
    out.store(m - kBefore, from, to);
  }
}

template <class S, int N>
struct StripBackward {
  Images images;
  const S* grad_y;
  const S* x;
  S* grad_x;
  Norm<S, N> norm;
  Strips strips;
};

template <class S, int N>
FASTSEQ_KERNEL_OF(device::kBlock, kStripBlocks)
strip_backward(StripBackward<S, N> a) {
  const StripWalk walk(a.images, a.strips);
  const int64_t bytes = strip_bytes<S, kPack<S>>(a.strips.length);
  GivenStrip<S> gradient(strip_of(a.grad_y, a.images, a.strips, walk), strip_begin<N>(walk), bytes);
  strip_backward_any<S, N, Identity>(a, walk, gradient, 2 * bytes);
}

}  // namespace fastseq::cuda
