// Max-pooling: which kernel runs, and those for all that neither strips (pool_strip.cuh) nor rows
// (pool_rows.cuh) serve.
// Forward: a thread is one output (of V channels, if these are neighbours). Backward: a thread is
// one input pixel and gathers from the outputs that chose it, so that every gradient is written
// once, in a fixed order of sums. Neighbouring threads are neighbours in memory.
#include "pool_rows.cuh"

namespace fastseq::cuda {
namespace {

// A thread's images: NCHW gives it one pixel of one plane, channels_last V channels of one pixel.
struct Position {
  int64_t plane;    // where its image, and its channels in it, start: in planes, or in images
  int64_t channel;  // channels_last only
  int h, w;
};

template <int V, bool kLast>
FASTSEQ_DEVICE Position locate(int64_t i, int64_t channels, int height, int width) {
  Position at{0, 0, 0, 0};
  if constexpr (kLast) {
    const int64_t groups = channels / V, rest = device::divide(i, groups);
    at.channel = (i - rest * groups) * V;
    i = rest;
  }
  const int64_t row = device::divide(i, width);
  at.w = static_cast<int>(i - row * width);
  at.plane = device::divide(row, height);
  at.h = static_cast<int>(row - at.plane * height);
  return at;
}

template <class S, class O, int V, bool kLast>
FASTSEQ_KERNEL forward_kernel(Of<S, PoolForward> a, Window<false> window, int64_t items) {
  using A = accumulate_t<S>;
  const int64_t i = device::thread();
  if (i >= items) return;
  const int64_t C = a.images.channels, stride = kLast ? C : 1;
  const Position at = locate<V, kLast>(i, C, window.h.out, window.w.out);
  const int64_t corner =
      static_cast<int64_t>(window.h.start(at.h)) * window.width + window.w.start(at.w);
  const S* const x =
      static_cast<const S*>(a.x) + (at.plane * a.images.pixels() + corner) * stride + at.channel;
  const int first = first_place(window, at.h, at.w);
  Best<A> best[V];
  FASTSEQ_UNROLL(V) for (int v = 0; v < V; ++v) best[v].place = first;
  scan(window, at.h, at.w, [&](int p, int row, int column) {
    A x_p[V];
    device::read<V>(x + (static_cast<int64_t>(row) * window.width + column) * stride, x_p);
    FASTSEQ_UNROLL(V) for (int v = 0; v < V; ++v) best[v].offer(x_p[v], p);
  });
  A value[V];
  int place[V];
  FASTSEQ_UNROLL(V) for (int v = 0; v < V; ++v) value[v] = best[v].value, place[v] = best[v].place;
  device::write<V>(static_cast<S*>(a.y) + i * V, value);
  if (a.offsets) device::write<V>(static_cast<O*>(a.offsets) + i * V, place);
}

template <class S, class O, int V, bool kLast>
FASTSEQ_KERNEL backward_kernel(Of<S, PoolBackward> a, Window<false> window, int64_t items) {
  const int64_t i = device::thread();
  if (i >= items) return;
  const int64_t C = a.images.channels, stride = kLast ? C : 1;
  const Position at = locate<V, kLast>(i, C, window.height, window.width);
  accumulate_t<S> g[V];
  Gather<false>(window, at.h, at.w)
      .template gradient<V>(static_cast<const S*>(a.grad_y), static_cast<const O*>(a.offsets),
                            at.plane * window.outputs() * stride + at.channel, stride, g);
  device::write<V>(static_cast<S*>(a.grad_x) + i * V, g);
}

// A walk over planes finds its pixels' places once: it pays from some planes on.
constexpr int64_t kLeastPlanes = 16;

// f(offset type, Constant<V>, Constant<kLast>): V channels at a time where memory allows. The usual
// window has strips and rows; what these cannot serve goes with all other windows.
template <class S, class F>
const char* with_layout(const Images& images, const PoolWindow& pool, bool in_line, const F& f) {
  if (pool.wide()) {
    if (images.channels_last) return f(int32_t{}, Constant<1>{}, Constant<1>{});
    return f(int32_t{}, Constant<1>{}, Constant<0>{});
  }
  if (!images.channels_last) return f(uint8_t{}, Constant<1>{}, Constant<0>{});
  const bool packs = in_line && images.channels % kPack<S> == 0;
  if (!packs) return f(uint8_t{}, Constant<1>{}, Constant<1>{});
  return f(uint8_t{}, Constant<kPack<S>>{}, Constant<1>{});
}

template <class S>
const char* forward(const Of<S, PoolForward>& a, device::Stream stream) {
  constexpr int V = kPack<S>;
  const bool in_line = aligned(a.x, 16) && aligned(a.y, 16) && aligned(a.offsets, 16);
  if constexpr (sizeof(S) < 8) {
    const Window3 window(a.images, a.pool);
    if (is_fixed(a.pool) && has_strips(a.images)) {
      const StripPlan plan = choose_band<V>(a.images, window, kBandMoves, kLeastPlanes);
      const device::Grid grid{plan.blocks(a.images), plan.threads,
                              strip_bytes<S, V>(plan.length) + BandPool<S>::bytes(plan.outputs)};
      if (plan.strips) return device::launch(pool_strip_forward<S>, grid, stream, a, window, plan);
    }
    if (is_fixed(a.pool) && has_rows(a.images)) {
      const bool flat = !in_line || a.images.channels % V;
      const RowPlan plan = choose_rows(a.images, window.w.out, window.h.out, !flat,
                                       flat ? pool_rows_needs<S, true> : pool_rows_needs<S, false>);
      const auto kernel = flat ? pool_rows_forward<S, true> : pool_rows_forward<S, false>;
      if (plan.threads) {
        return device::launch(kernel, plan.grid(a.images), stream, a, window, plan);
      }
    }
  }
  const int64_t outputs = a.images.batch * a.images.channels * a.pool.h.out * a.pool.w.out;
  return with_layout<S>(a.images, a.pool, in_line, [&](auto offset, auto v, auto last) {
    constexpr int kV = decltype(v)::kValue;
    const Window<false> window(a.images, a.pool);
    return device::launch(forward_kernel<S, decltype(offset), kV, decltype(last)::kValue != 0>,
                          outputs / kV, stream, a, window, outputs / kV);
  });
}

template <class S>
const char* backward(const Of<S, PoolBackward>& a, device::Stream stream) {
  constexpr int V = kPack<S>;
  const bool in_line = aligned(a.grad_y, 16) && aligned(a.offsets, 16) && aligned(a.grad_x, 16);
  if constexpr (sizeof(S) < 8) {
    const Window3 window(a.images, a.pool);
    if (is_fixed(a.pool) && has_strips(a.images)) {
      const StripPlan plan = gather_strips<V>(a.images, window, kGatherPixels, kLeastPlanes);
      const device::Grid grid{
          plan.blocks(a.images), plan.threads,
          strip_bytes<S, V>(plan.length) + ChosenStrip<S, kGatherPixels>::bytes(plan.outputs)};
      if (plan.strips) return device::launch(pool_strip_backward<S>, grid, stream, a, window, plan);
    }
    if (is_fixed(a.pool) && has_rows(a.images)) {
      const bool flat = !in_line || a.images.channels % V;
      const RowPlan plan =
          choose_rows(a.images, pairs(window.w, window.width), pairs(window.h, window.height),
                      !flat, flat ? pool_quads_needs<S, true> : pool_quads_needs<S, false>);
      const auto kernel = flat ? pool_rows_backward<S, true> : pool_rows_backward<S, false>;
      if (plan.threads) {
        return device::launch(kernel, plan.grid(a.images), stream, a, window, plan);
      }
    }
  }
  const int64_t inputs = a.images.numel();
  return with_layout<S>(a.images, a.pool, in_line, [&](auto offset, auto v, auto last) {
    constexpr int kV = decltype(v)::kValue;
    const Window<false> window(a.images, a.pool);
    return device::launch(backward_kernel<S, decltype(offset), kV, decltype(last)::kValue != 0>,
                          inputs / kV, stream, a, window, inputs / kV);
  });
}

}  // namespace

const char* pool_forward(DType dtype, const PoolForward& a, void* stream) {
  if (a.images.numel() == 0) return nullptr;
  if (const char* error = too_large(a.images, a.pool)) return error;
  return with_dtype(dtype, [&](auto type) {
    return forward(Of<decltype(type), PoolForward>(a), as_stream(stream));
  });
}

const char* pool_backward(DType dtype, const PoolBackward& a, void* stream) {
  if (a.images.numel() == 0) return nullptr;
  if (const char* error = too_large(a.images, a.pool)) return error;
  return with_dtype(dtype, [&](auto type) {
    return backward(Of<decltype(type), PoolBackward>(a), as_stream(stream));
  });
}

}  // namespace fastseq::cuda
