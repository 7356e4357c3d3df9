// Max-pooling. Forward: a thread is one output (of V channels, if these are neighbours). Backward:
// a thread is one input pixel and gathers from the outputs that chose it, so that every gradient is
// written once, in a fixed order of sums. Neighbouring threads are neighbours in memory.
#include "pooling.h"

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

template <class S, class O, bool kFixed, int V, bool kLast>
FASTSEQ_KERNEL forward_kernel(Of<S, PoolForward> a, Window<kFixed> window, int64_t items) {
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

template <class S, class O, bool kFixed, int V, bool kLast>
FASTSEQ_KERNEL backward_kernel(Of<S, PoolBackward> a, Window<kFixed> window, int64_t items) {
  const int64_t i = device::thread();
  if (i >= items) return;
  const int64_t C = a.images.channels, stride = kLast ? C : 1;
  const Position at = locate<V, kLast>(i, C, window.height, window.width);
  accumulate_t<S> g[V];
  Gather<kFixed>(window, at.h, at.w)
      .template gradient<V>(static_cast<const S*>(a.grad_y), static_cast<const O*>(a.offsets),
                            at.plane * window.outputs() * stride + at.channel, stride, g);
  device::write<V>(static_cast<S*>(a.grad_x) + i * V, g);
}

// f(Constant<V>, Constant<kLast>): V channels at a time where memory allows.
template <class S, class F>
const char* with_layout(const Images& images, bool wide, bool in_line, const F& f) {
  if (!images.channels_last) return f(Constant<1>{}, Constant<0>{});
  if (in_line && !wide && images.channels % kPack<S> == 0) {
    return f(Constant<kPack<S>>{}, Constant<1>{});
  }
  return f(Constant<1>{}, Constant<1>{});
}

}  // namespace

const char* pool_forward(DType dtype, const PoolForward& a, void* stream) {
  if (const char* error = too_large(a.images, a.pool)) return error;
  const bool in_line = aligned(a.x, 16) && aligned(a.y, 16) && aligned(a.offsets, 16);
  const int64_t outputs = a.images.batch * a.images.channels * a.pool.h.out * a.pool.w.out;
  return with_dtype(dtype, [&](auto type) {
    using S = decltype(type);
    return with_window(a.pool, [&](auto offset, auto fixed) {
      constexpr bool kFixed = decltype(fixed)::kValue;
      constexpr bool kWide = sizeof(offset) > 1;
      return with_layout<S>(a.images, kWide, in_line, [&](auto pack, auto last) {
        constexpr int V = decltype(pack)::kValue;
        using O = decltype(offset);
        if constexpr (kWide && V > 1) {
          return "wide windows go one channel at a time";
        } else {
          return device::launch(forward_kernel<S, O, kFixed, V, decltype(last)::kValue>,
                                outputs / V, as_stream(stream), Of<S, PoolForward>(a),
                                Window<kFixed>(a.images, a.pool), outputs / V);
        }
      });
    });
  });
}

const char* pool_backward(DType dtype, const PoolBackward& a, void* stream) {
  if (const char* error = too_large(a.images, a.pool)) return error;
  const bool in_line = aligned(a.grad_y, 16) && aligned(a.offsets, 16) && aligned(a.grad_x, 16);
  const int64_t inputs = a.images.numel();
  return with_dtype(dtype, [&](auto type) {
    using S = decltype(type);
    return with_window(a.pool, [&](auto offset, auto fixed) {
      constexpr bool kFixed = decltype(fixed)::kValue;
      constexpr bool kWide = sizeof(offset) > 1;
      return with_layout<S>(a.images, kWide, in_line, [&](auto pack, auto last) {
        constexpr int V = decltype(pack)::kValue;
        using O = decltype(offset);
        if constexpr (kWide && V > 1) {
          return "wide windows go one channel at a time";
        } else {
          return device::launch(backward_kernel<S, O, kFixed, V, decltype(last)::kValue>,
                                inputs / V, as_stream(stream), Of<S, PoolBackward>(a),
                                Window<kFixed>(a.images, a.pool), inputs / V);
        }
      });
    });
  });
}

}  // namespace fastseq::cuda
