// Local response normalization: which kernel runs.
#include "lrn_last.cuh"
#include "lrn_planes.cuh"
#include "lrn_strip.cuh"
#include "lrn_within.cuh"

namespace fastseq::cuda {
namespace {

template <class S, bool kWithin>
const char* direct(const LrnForward& a, device::Stream stream) {
  return device::launch(direct_forward<S, kWithin>, a.images.numel(), stream,
                        DirectForward<S>{.images = a.images,
                                         .x = static_cast<const S*>(a.x),
                                         .y = static_cast<S*>(a.y),
                                         .norm = Norm<S, 0>(a.lrn)});
}
template <class S, bool kWithin>
const char* direct(const LrnBackward& a, device::Stream stream) {
  return device::launch(direct_backward<S, kWithin>, a.images.numel(), stream,
                        DirectBackward<S>{.images = a.images,
                                          .grad_y = static_cast<const S*>(a.grad_y),
                                          .x = static_cast<const S*>(a.x),
                                          .grad_x = static_cast<S*>(a.grad_x),
                                          .norm = Norm<S, 0>(a.lrn)});
}

// ---- within a channel

// Larger windows than this are read straight from memory.
constexpr int64_t kLargestTileWindow = 64;

template <class S>
const char* within(const LrnForward& a, device::Stream stream) {
  using A = accumulate_t<S>;
  if (a.lrn.size > kLargestTileWindow) return direct<S, true>(a, stream);
  const Tile tile = largest_tile<A>(a.images, a.lrn.size, &Tile::forward_values);
  if (!tile.th) return direct<S, true>(a, stream);
  const int64_t bytes = tile.forward_values(a.lrn.size) * static_cast<int64_t>(sizeof(A));
  return with_size<S>(a.lrn, [&](auto size) {
    constexpr int N = decltype(size)::kValue;
    return device::launch(within_forward<S, N>, {tile.blocks(a.images), device::kBlock, bytes},
                          stream,
                          WithinForward<S, N>{.images = a.images,
                                              .x = static_cast<const S*>(a.x),
                                              .y = static_cast<S*>(a.y),
                                              .norm = Norm<S, N>(a.lrn),
                                              .tile = tile});
  });
}
template <class S>
const char* within(const LrnBackward& a, device::Stream stream) {
  using A = accumulate_t<S>;
  if (a.lrn.size > kLargestTileWindow) return direct<S, true>(a, stream);
  const Tile tile = largest_tile<A>(a.images, a.lrn.size, &Tile::backward_values);
  if (!tile.th) return direct<S, true>(a, stream);
  const int64_t bytes = tile.backward_values(a.lrn.size) * static_cast<int64_t>(sizeof(A));
  return with_size<S>(a.lrn, [&](auto size) {
    constexpr int N = decltype(size)::kValue;
    return device::launch(within_backward<S, N>, {tile.blocks(a.images), device::kBlock, bytes},
                          stream,
                          WithinBackward<S, N>{.images = a.images,
                                               .grad_y = static_cast<const S*>(a.grad_y),
                                               .x = static_cast<const S*>(a.x),
                                               .grad_x = static_cast<S*>(a.grad_x),
                                               .norm = Norm<S, N>(a.lrn),
                                               .tile = tile});
  });
}

// ---- across the channels of channels_last images

template <class S>
const char* last(const LrnForward& a, device::Stream stream) {
  constexpr int V = kPack<S>;
  if (a.lrn.size > kLongestLineWindow) return direct<S, false>(a, stream);
  const int64_t runs = device::kBlock + runs_for<V>(static_cast<int>(a.lrn.before())) +
                       runs_for<V>(static_cast<int>(a.lrn.after()));
  const device::Grid grid{divide_up(a.images.numel(), device::kBlock * V), device::kBlock,
                          Line<accumulate_t<S>, V>::bytes(runs)};
  return with_size<S>(a.lrn, [&](auto size) {
    constexpr int N = decltype(size)::kValue;
    return device::launch(last_forward<S, N>, grid, stream,
                          LastForward<S, N>{.images = a.images,
                                            .x = static_cast<const S*>(a.x),
                                            .y = static_cast<S*>(a.y),
                                            .norm = Norm<S, N>(a.lrn),
                                            .in_line = aligned(a.x, 16) && aligned(a.y, 16)});
  });
}
template <class S>
const char* last(const LrnBackward& a, device::Stream stream) {
  constexpr int V = kPack<S>;
  if (a.lrn.size > kLongestLineWindow) return direct<S, false>(a, stream);
  const LastBackwardTile<accumulate_t<S>, V> tile(static_cast<int>(a.lrn.before()),
                                                  static_cast<int>(a.lrn.after()), device::kBlock);
  const device::Grid grid{divide_up(a.images.numel(), device::kBlock * V), device::kBlock,
                          tile.bytes()};
  const bool in_line = aligned(a.x, 16) && aligned(a.grad_y, 16) && aligned(a.grad_x, 16);
  return with_size<S>(a.lrn, [&](auto size) {
    constexpr int N = decltype(size)::kValue;
    return device::launch(last_backward<S, N>, grid, stream,
                          LastBackward<S, N>{.images = a.images,
                                             .grad_y = static_cast<const S*>(a.grad_y),
                                             .x = static_cast<const S*>(a.x),
                                             .grad_x = static_cast<S*>(a.grad_x),
                                             .norm = Norm<S, N>(a.lrn),
                                             .in_line = in_line});
  });
}

// ---- across the channels of NCHW images: walks of single pixels, or strips where they serve

template <class S>
const char* planes(const LrnForward& a, device::Stream stream) {
  const int64_t walks = a.images.batch * a.images.pixels();
  const Chunks chunks(walks, a.images.channels, a.lrn.size);
  return device::launch(planes_forward<S>, walks * chunks.count, stream,
                        PlanesForward<S>{.images = a.images,
                                         .x = static_cast<const S*>(a.x),
                                         .y = static_cast<S*>(a.y),
                                         .norm = Norm<S, 0>(a.lrn),
                                         .chunks = chunks});
}
template <class S>
const char* planes(const LrnBackward& a, device::Stream stream) {
  const int threads = ring_threads<accumulate_t<S>>(a.lrn.size);
  if (threads == 0) return direct<S, false>(a, stream);
  const int64_t walks = a.images.batch * a.images.pixels();
  const Chunks chunks(walks, a.images.channels, a.lrn.size);
  return device::launch(planes_backward<S>,
                        {divide_up(walks * chunks.count, threads), threads,
                         ring_bytes<accumulate_t<S>>(a.lrn.size, threads)},
                        stream,
                        PlanesBackward<S>{.images = a.images,
                                          .grad_y = static_cast<const S*>(a.grad_y),
                                          .x = static_cast<const S*>(a.x),
                                          .grad_x = static_cast<S*>(a.grad_x),
                                          .norm = Norm<S, 0>(a.lrn),
                                          .chunks = chunks});
}

template <class S, int N>
const char* strips(const LrnForward& a, device::Stream stream) {
  constexpr int V = kPack<S>;
  const StripPlan plan = lrn_strips<V>(a.images, kStripPixels, N);
  return device::launch(strip_forward<S, N>,
                        {plan.blocks(a.images), plan.threads, 2 * strip_bytes<S, V>(plan.length)},
                        stream,
                        StripForward<S, N>{.images = a.images,
                                           .x = static_cast<const S*>(a.x),
                                           .y = static_cast<S*>(a.y),
                                           .norm = Norm<S, N>(a.lrn),
                                           .strips = plan});
}
template <class S, int N>
const char* strips(const LrnBackward& a, device::Stream stream) {
  constexpr int V = kPack<S>;
  const StripPlan plan = lrn_strips<V>(a.images, kStripPixels, N);
  return device::launch(strip_backward<S, N>,
                        {plan.blocks(a.images), plan.threads, 3 * strip_bytes<S, V>(plan.length)},
                        stream,
                        StripBackward<S, N>{.images = a.images,
                                            .grad_y = static_cast<const S*>(a.grad_y),
                                            .x = static_cast<const S*>(a.x),
                                            .grad_x = static_cast<S*>(a.grad_x),
                                            .norm = Norm<S, N>(a.lrn),
                                            .strips = plan});
}

// ---- the one dispatcher, of both directions

template <class S, class Block>
const char* run(const Block& a, device::Stream stream) {
  if (a.lrn.within_channel) return within<S>(a, stream);
  if (a.images.channels_last) return last<S>(a, stream);
  if (!has_strips(a.images)) return planes<S>(a, stream);
  return with_size<S>(a.lrn, [&](auto size) {
    constexpr int N = decltype(size)::kValue;
    if constexpr (N > 0) {
      return strips<S, N>(a, stream);
    } else {
      return planes<S>(a, stream);
    }
  });
}

template <class Block>
const char* run(DType dtype, const Block& a, void* stream) {
  if (a.images.numel() == 0) return nullptr;
  return with_dtype(dtype, [&](auto type) { return run<decltype(type)>(a, as_stream(stream)); });
}

}  // namespace

const char* lrn_forward(DType dtype, const LrnForward& a, void* stream) {
  return run(dtype, a, stream);
}

const char* lrn_backward(DType dtype, const LrnBackward& a, void* stream) {
  return run(dtype, a, stream);
}

}  // namespace fastseq::cuda
