// Max-pooling: which kernel runs, and those for all that neither strips (pool_strip.cuh) nor rows
// (pool_rows.cuh) serve.
// Forward: a thread is one output (of V channels, if these are neighbours). Backward: a thread is
// one input pixel and gathers from the outputs that chose it, so that every gradient is written
// once, in a fixed order of sums. Neighbouring threads are neighbours in memory.
#include "pool_rows.cuh"

namespace fastseq::cuda {
namespace {

// How memory goes: plane by plane, pixel by pixel with V channels at a time, or, for what is rare,
// either way.
enum class Layout { kPlanes, kPixels, kEither };

template <Layout kLayout>
FASTSEQ_DEVICE bool is_last(const Images& images) {
  if constexpr (kLayout == Layout::kEither) return images.channels_last;
  return kLayout == Layout::kPixels;
}

// A thread's images: NCHW gives it one pixel of one plane, channels_last V channels of one pixel.
struct Position {
  int64_t plane;    // where its image, and its channels in it, start: in planes, or in images
  int64_t channel;  // channels_last only
  int h, w;
};

template <int V>
FASTSEQ_DEVICE Position locate(int64_t i, int64_t channels, int height, int width, bool last) {
  Position at{0, 0, 0, 0};
  if (last) {
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

template <class S, class Places>
struct PoolAnyForward {
  Images images;  // of x
  const S* x;
  S* y;
  Places offsets;  // may be null
  Window<false> window;
  int64_t items;  // threads that have one
};

template <class S, class Places, int V, Layout kLayout>
FASTSEQ_KERNEL pool_any_forward(PoolAnyForward<S, Places> a) {
  const Window<false>& window = a.window;
  const int64_t i = device::thread();
  if (i >= a.items) return;
  const bool last = is_last<kLayout>(a.images);
  const int64_t C = a.images.channels, stride = last ? C : 1;
  const Position at = locate<V>(i, C, window.h.out, window.w.out, last);
  const int64_t corner =
      static_cast<int64_t>(window.h.start(at.h)) * window.width + window.w.start(at.w);
  const S* const x = a.x + (at.plane * a.images.pixels() + corner) * stride + at.channel;
  const int first = first_place(window, at.h, at.w);
  Best<accumulate_t<S>> best[V];
  FASTSEQ_UNROLL(V) for (int v = 0; v < V; ++v) best[v].place = first;
  scan(window, at.h, at.w, [&](int p, int row, int column) {
    accumulate_t<S> x_p[V];
    device::read<V>(x + (static_cast<int64_t>(row) * window.width + column) * stride, x_p);
    FASTSEQ_UNROLL(V) for (int v = 0; v < V; ++v) best[v].offer(x_p[v], p);
  });
  accumulate_t<S> value[V];
  int place[V];
  FASTSEQ_UNROLL(V) for (int v = 0; v < V; ++v) value[v] = best[v].value, place[v] = best[v].place;
  device::write<V>(a.y + i * V, value);
  write_places<V>(a.offsets, i * V, place);
}

template <class S, class Places>
struct PoolAnyBackward {
  Images images;  // of x
  const S* grad_y;
  Places offsets;
  S* grad_x;
  Window<false> window;
  int64_t items;  // threads that have one
};

template <class S, class Places, int V, Layout kLayout>
FASTSEQ_KERNEL pool_any_backward(PoolAnyBackward<S, Places> a) {
  const int64_t i = device::thread();
  if (i >= a.items) return;
  const bool last = is_last<kLayout>(a.images);
  const int64_t C = a.images.channels, stride = last ? C : 1;
  const Position at = locate<V>(i, C, a.window.height, a.window.width, last);
  const int64_t outputs = at.plane * a.window.outputs() * stride + at.channel;
  accumulate_t<S> g[V];
  const Gather<false> gather(a.window, at.h, at.w);
  gather.template gradient<V>(a.grad_y, a.offsets, outputs, stride, g);
  device::write<V>(a.grad_x + i * V, g);
}

// A walk over planes finds its pixels' places once: it pays from some planes on.
constexpr int64_t kLeastPlanes = 16;

// Any window, and the usual one where strips and rows do not serve: V channels at a time where
// memory allows.
template <class S, class Places, int V, Layout kLayout>
const char* any(const PoolForward& a, const Places& offsets, device::Stream stream) {
  const int64_t items = a.images.batch * a.images.channels * a.pool.h.out * a.pool.w.out / V;
  return device::launch(pool_any_forward<S, Places, V, kLayout>, items, stream,
                        PoolAnyForward<S, Places>{.images = a.images,
                                                  .x = static_cast<const S*>(a.x),
                                                  .y = static_cast<S*>(a.y),
                                                  .offsets = offsets,
                                                  .window = Window<false>(a.images, a.pool),
                                                  .items = items});
}
template <class S, class Places, int V, Layout kLayout>
const char* any(const PoolBackward& a, const Places& offsets, device::Stream stream) {
  const int64_t items = a.images.numel() / V;
  return device::launch(pool_any_backward<S, Places, V, kLayout>, items, stream,
                        PoolAnyBackward<S, Places>{.images = a.images,
                                                   .grad_y = static_cast<const S*>(a.grad_y),
                                                   .offsets = offsets,
                                                   .grad_x = static_cast<S*>(a.grad_x),
                                                   .window = Window<false>(a.images, a.pool),
                                                   .items = items});
}
// Void: of Block's offsets, const or not.
template <class S, class Void, class Block>
const char* any(const Block& a, Void* offsets, bool in_line, device::Stream stream) {
  using Bytes = std::conditional_t<std::is_const_v<Void>, const uint8_t*, uint8_t*>;
  const auto bytes = static_cast<Bytes>(offsets);
  const bool last = a.images.channels_last, packs = in_line && a.images.channels % kPack<S> == 0;
  if (!a.pool.wide() && !last) return any<S, Bytes, 1, Layout::kPlanes>(a, bytes, stream);
  if (!a.pool.wide() && packs) return any<S, Bytes, kPack<S>, Layout::kPixels>(a, bytes, stream);
  const AnyPlaces<Void> places{offsets, a.pool.wide()};
  return any<S, AnyPlaces<Void>, 1, Layout::kEither>(a, places, stream);
}

// Where the usual window has strips.
template <class S>
StripPlan strips(const PoolForward& a, const Window3& window) {
  using Kernel = PoolStripForward<S>;
  if (!is_fixed(a.pool) || !has_strips(a.images)) return {};
  return choose_band<kPack<S>>(a.images, window, {Kernel::kMoves, Kernel::kThreads}, kLeastPlanes);
}
template <class S>
StripPlan strips(const PoolBackward& a, const Window3& window) {
  using Kernel = PoolStripBackward<S>;
  if (!is_fixed(a.pool) || !has_strips(a.images)) return {};
  return gather_strips<kPack<S>>(a.images, window, {Kernel::kPixels, Kernel::kThreads},
                                 kLeastPlanes);
}
// And where it has rows.
template <class S>
RowPlan rows(const PoolForward& a, const Window3& window, bool flat) {
  if (!is_fixed(a.pool) || !has_rows(a.images)) return {};
  return choose_rows(a.images, window.w.out, window.h.out, !flat,
                     flat ? pool_rows_needs<S, true> : pool_rows_needs<S, false>);
}
template <class S>
RowPlan rows(const PoolBackward& a, const Window3& window, bool flat) {
  if (!is_fixed(a.pool) || !has_rows(a.images)) return {};
  return choose_rows(a.images, pairs(window.w, window.width), pairs(window.h, window.height), !flat,
                     flat ? pool_quads_needs<S, true> : pool_quads_needs<S, false>);
}

template <class S>
const char* forward(const PoolForward& a, device::Stream stream) {
  constexpr int V = kPack<S>;
  const Images& s = a.images;
  const auto* const x = static_cast<const S*>(a.x);
  auto* const y = static_cast<S*>(a.y);
  const bool in_line = aligned(x, 16) && aligned(y, 16) && aligned(a.offsets, 16);
  if constexpr (sizeof(S) < 8) {
    const Window3 window(s, a.pool);
    auto* const offsets = static_cast<uint8_t*>(a.offsets);
    if (const StripPlan plan = strips<S>(a, window); plan.count) {
      const int64_t bytes = strip_bytes<S, V>(plan.length) + BandPool<S>::bytes(plan.outputs);
      return device::launch(
          pool_strip_forward<S>, {plan.blocks(s), plan.threads, bytes}, stream,
          PoolStripForward<S>{
              .images = s, .x = x, .y = y, .offsets = offsets, .window = window, .strips = plan});
    }
    const bool flat = !in_line || s.channels % V;
    if (const RowPlan plan = rows<S>(a, window, flat); plan.threads) {
      const auto kernel = flat ? pool_rows_forward<S, true> : pool_rows_forward<S, false>;
      return device::launch(
          kernel, plan.grid(s), stream,
          PoolRowsForward<S>{
              .images = s, .x = x, .y = y, .offsets = offsets, .window = window, .cuts = plan});
    }
  }
  return any<S>(a, a.offsets, in_line, stream);
}

template <class S>
const char* backward(const PoolBackward& a, device::Stream stream) {
  constexpr int V = kPack<S>;
  const Images& s = a.images;
  const auto* const grad_y = static_cast<const S*>(a.grad_y);
  auto* const grad_x = static_cast<S*>(a.grad_x);
  const bool in_line = aligned(grad_y, 16) && aligned(a.offsets, 16) && aligned(grad_x, 16);
  if constexpr (sizeof(S) < 8) {
    const Window3 window(s, a.pool);
    const auto* const offsets = static_cast<const uint8_t*>(a.offsets);
    if (const StripPlan plan = strips<S>(a, window); plan.count) {
      using Kernel = PoolStripBackward<S>;
      const int64_t bytes =
          strip_bytes<S, V>(plan.length) + ChosenStrip<S, Kernel::kPixels>::bytes(plan.outputs);
      return device::launch(pool_strip_backward<S>, {plan.blocks(s), plan.threads, bytes}, stream,
                            Kernel{.images = s,
                                   .grad_y = grad_y,
                                   .offsets = offsets,
                                   .grad_x = grad_x,
                                   .window = window,
                                   .strips = plan});
    }
    const bool flat = !in_line || s.channels % V;
    if (const RowPlan plan = rows<S>(a, window, flat); plan.threads) {
      const auto kernel = flat ? pool_rows_backward<S, true> : pool_rows_backward<S, false>;
      return device::launch(kernel, plan.grid(s), stream,
                            PoolRowsBackward<S>{.images = s,
                                                .grad_y = grad_y,
                                                .offsets = offsets,
                                                .grad_x = grad_x,
                                                .window = window,
                                                .cuts = plan});
    }
  }
  return any<S>(a, a.offsets, in_line, stream);
}

}  // namespace

const char* pool_forward(DType dtype, const PoolForward& a, void* stream) {
  if (a.images.numel() == 0) return nullptr;
  if (const char* error = too_large(a.images, a.pool)) return error;
  return with_dtype(dtype,
                    [&](auto type) { return forward<decltype(type)>(a, as_stream(stream)); });
}

const char* pool_backward(DType dtype, const PoolBackward& a, void* stream) {
  if (a.images.numel() == 0) return nullptr;
  if (const char* error = too_large(a.images, a.pool)) return error;
  return with_dtype(dtype,
                    [&](auto type) { return backward<decltype(type)>(a, as_stream(stream)); });
}

}  // namespace fastseq::cuda
