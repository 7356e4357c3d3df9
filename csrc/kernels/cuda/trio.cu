// ReLU -> LRN -> max-pool: which kernel runs. The usual trio, AlexNet's and GoogLeNet's, has
// kernels of its own: windows of 3 x 3, two apart, over LRN of five channels. Others share one for
// each memory format, and windows of more than 256 places go without any tile.
#include "trio_direct.cuh"
#include "trio_last.cuh"
#include "trio_planes.cuh"
#include "trio_rows.cuh"

namespace fastseq::cuda {
namespace {

constexpr int kUsual = 5;

// Whether all tensors begin where 16 bytes do.
bool in_line(const TrioForward& a) {
  return aligned(a.x, 16) && aligned(a.y, 16) && aligned(a.offsets, 16);
}
bool in_line(const TrioBackward& a) {
  return aligned(a.x, 16) && aligned(a.grad_y, 16) && aligned(a.grad_x, 16) &&
         aligned(a.offsets, 16);
}

template <class S>
const char* direct(const TrioForward& a, device::Stream stream) {
  const Window<false> window(a.images, a.pool);
  const int64_t outputs = a.images.batch * a.images.channels * window.outputs();
  return device::launch(trio_direct_forward<S>, outputs, stream,
                        TrioDirectForward<S>{.images = a.images,
                                             .x = static_cast<const S*>(a.x),
                                             .y = static_cast<S*>(a.y),
                                             .offsets = {a.offsets, a.pool.wide()},
                                             .norm = Norm<S, 0>(a.lrn),
                                             .window = window});
}
template <class S>
const char* direct(const TrioBackward& a, device::Stream stream) {
  return device::launch(trio_direct_backward<S>, a.images.numel(), stream,
                        TrioDirectBackward<S>{.images = a.images,
                                              .grad_y = static_cast<const S*>(a.grad_y),
                                              .offsets = {a.offsets, a.pool.wide()},
                                              .x = static_cast<const S*>(a.x),
                                              .grad_x = static_cast<S*>(a.grad_x),
                                              .norm = Norm<S, 0>(a.lrn),
                                              .window = Window<false>(a.images, a.pool)});
}

// ---- NCHW

template <class S>
const char* planes(const TrioForward& a, device::Stream stream) {
  using Kernel = TrioPlanesForward<S>;
  constexpr int64_t size = sizeof(accumulate_t<S>);
  const Images& s = a.images;
  const Window<false> window(s, a.pool);
  const int64_t room = device::kSharedLimit / (2 * kStage * size);
  const PoolTile tile = choose_tile(window, smaller(room, Kernel::kThreads), 8, device::kWarp);
  if (tile.oh == 0) return direct<S>(a, stream);
  const auto threads = static_cast<int>(whole_warps(tile.inputs()));
  const int64_t tiles = s.batch * tile.down * tile.across;
  const Chunks chunks(tiles * threads, s.channels, a.lrn.size);
  const device::Grid grid{tiles * chunks.count, threads, 2 * kStage * size * tile.inputs()};
  return device::launch(trio_planes_forward<S>, grid, stream,
                        Kernel{.images = s,
                               .x = static_cast<const S*>(a.x),
                               .y = static_cast<S*>(a.y),
                               .offsets = static_cast<uint8_t*>(a.offsets),
                               .norm = Norm<S, 0>(a.lrn),
                               .window = window,
                               .tile = tile,
                               .chunks = chunks});
}
template <class S>
const char* planes(const TrioBackward& a, device::Stream stream) {
  using A = accumulate_t<S>;
  const Images& s = a.images;
  const int threads = ring_threads<A>(a.lrn.size);
  if (threads == 0) return direct<S>(a, stream);
  const int64_t walks = s.batch * s.pixels();
  const Chunks chunks(walks, s.channels, a.lrn.size);
  const device::Grid grid{divide_up(walks * chunks.count, threads), threads,
                          ring_bytes<A>(a.lrn.size, threads)};
  return device::launch(trio_planes_backward<S>, grid, stream,
                        TrioPlanesBackward<S>{.images = s,
                                              .grad_y = static_cast<const S*>(a.grad_y),
                                              .offsets = static_cast<const uint8_t*>(a.offsets),
                                              .x = static_cast<const S*>(a.x),
                                              .grad_x = static_cast<S*>(a.grad_x),
                                              .norm = Norm<S, 0>(a.lrn),
                                              .window = Window<false>(s, a.pool),
                                              .chunks = chunks});
}

// Strips, where planes are neither tiny nor so wide that a block has no room for a row of outputs.
template <class S, int N>
const char* strips(const TrioForward& a, device::Stream stream) {
  using Kernel = TrioStripForward<S, N>;
  constexpr int V = kPack<S>;
  if (!has_strips(a.images)) return planes<S>(a, stream);
  const Window3 window(a.images, a.pool);
  const StripPlan plan =
      choose_band<V>(a.images, window, {Kernel::kMoves, Kernel::kThreads}, 4 * N);
  if (!plan.count) return planes<S>(a, stream);
  const device::Grid grid{plan.blocks(a.images), plan.threads,
                          strip_bytes<S, V>(plan.length) + BandPool<S>::bytes(plan.outputs)};
  return device::launch(trio_strip_forward<S, N>, grid, stream,
                        Kernel{.images = a.images,
                               .x = static_cast<const S*>(a.x),
                               .y = static_cast<S*>(a.y),
                               .offsets = static_cast<uint8_t*>(a.offsets),
                               .norm = Norm<S, N>(a.lrn),
                               .window = window,
                               .strips = plan});
}
template <class S, int N>
const char* strips(const TrioBackward& a, device::Stream stream) {
  using Kernel = TrioStripBackward<S, N>;
  constexpr int V = kPack<S>;
  if (!has_strips(a.images)) return planes<S>(a, stream);
  const Window3 window(a.images, a.pool);
  const StripPlan plan =
      gather_strips<V>(a.images, window, {kStripPixels, Kernel::kThreads}, 4 * N);
  if (!plan.count) return planes<S>(a, stream);
  const device::Grid grid{
      plan.blocks(a.images), plan.threads,
      2 * strip_bytes<S, V>(plan.length) + ChosenStrip<S, kStripPixels>::bytes(plan.outputs)};
  return device::launch(trio_strip_backward<S, N>, grid, stream,
                        Kernel{.images = a.images,
                               .grad_y = static_cast<const S*>(a.grad_y),
                               .offsets = static_cast<const uint8_t*>(a.offsets),
                               .x = static_cast<const S*>(a.x),
                               .grad_x = static_cast<S*>(a.grad_x),
                               .norm = Norm<S, N>(a.lrn),
                               .window = window,
                               .strips = plan});
}

// ---- channels_last

template <class S>
const char* last(const TrioForward& a, device::Stream stream) {
  const Images& s = a.images;
  const Window<false> window(s, a.pool);
  constexpr int shift = 5, group = 1 << shift;
  const LastTile channels{group, shift, divide_up(s.channels, group)};
  const int64_t bytes = static_cast<int64_t>(sizeof(accumulate_t<S>)) *
                            channels.pitch(a.lrn.before(), a.lrn.after()) +
                        static_cast<int64_t>(sizeof(int64_t));
  const PoolTile tile =
      choose_tile(window, smaller(device::kSharedLimit / bytes, device::kBlock), 0, device::kBlock);
  if (tile.oh == 0) return direct<S>(a, stream);
  const device::Grid grid{s.batch * tile.down * tile.across * channels.groups, device::kBlock,
                          bytes * tile.inputs()};
  return device::launch(trio_last_forward<S>, grid, stream,
                        TrioLastForward<S>{.images = s,
                                           .x = static_cast<const S*>(a.x),
                                           .y = static_cast<S*>(a.y),
                                           .offsets = static_cast<uint8_t*>(a.offsets),
                                           .norm = Norm<S, 0>(a.lrn),
                                           .window = window,
                                           .tile = tile,
                                           .last = channels});
}
template <class S>
const char* last(const TrioBackward& a, device::Stream stream) {
  const Images& s = a.images;
  const LastBackwardTile<accumulate_t<S>, kLastRun> tile(
      static_cast<int>(a.lrn.before()), static_cast<int>(a.lrn.after()), device::kBlock);
  const device::Grid grid{divide_up(s.numel(), device::kBlock * kLastRun), device::kBlock,
                          tile.bytes()};
  return device::launch(trio_last_backward<S>, grid, stream,
                        TrioLastBackward<S>{.images = s,
                                            .grad_y = static_cast<const S*>(a.grad_y),
                                            .offsets = static_cast<const uint8_t*>(a.offsets),
                                            .x = static_cast<const S*>(a.x),
                                            .grad_x = static_cast<S*>(a.grad_x),
                                            .norm = Norm<S, 0>(a.lrn),
                                            .window = Window<false>(s, a.pool),
                                            .in_line = in_line(a)});
}

// Rows, where a block has room for all channels of three pixels.
template <class S, int N>
const char* rows(const TrioForward& a, device::Stream stream) {
  if (!has_rows(a.images)) return last<S>(a, stream);
  const Window3 window(a.images, a.pool);
  const bool flat = a.images.channels % kPack<S> || !in_line(a);
  const RowPlan plan = choose_rows(a.images, window.w.out, window.h.out, false,
                                   flat ? trio_rows_needs<S, true> : trio_rows_needs<S, false>);
  if (!plan.threads) return last<S>(a, stream);
  const auto kernel = flat ? trio_rows_forward<S, N, true> : trio_rows_forward<S, N, false>;
  return device::launch(kernel, plan.grid(a.images), stream,
                        TrioRowsForward<S, N>{.images = a.images,
                                              .x = static_cast<const S*>(a.x),
                                              .y = static_cast<S*>(a.y),
                                              .offsets = static_cast<uint8_t*>(a.offsets),
                                              .norm = Norm<S, N>(a.lrn),
                                              .window = window,
                                              .cuts = plan});
}
template <class S, int N>
const char* rows(const TrioBackward& a, device::Stream stream) {
  if (!has_rows(a.images)) return last<S>(a, stream);
  const Window3 window(a.images, a.pool);
  const bool flat = a.images.channels % kPack<S> || !in_line(a);
  const RowPlan plan =
      choose_rows(a.images, pairs(window.w, window.width), pairs(window.h, window.height), false,
                  flat ? trio_quads_needs<S, true> : trio_quads_needs<S, false>);
  if (!plan.threads) return last<S>(a, stream);
  const auto kernel = flat ? trio_rows_backward<S, N, true> : trio_rows_backward<S, N, false>;
  return device::launch(kernel, plan.grid(a.images), stream,
                        TrioRowsBackward<S, N>{.images = a.images,
                                               .grad_y = static_cast<const S*>(a.grad_y),
                                               .offsets = static_cast<const uint8_t*>(a.offsets),
                                               .x = static_cast<const S*>(a.x),
                                               .grad_x = static_cast<S*>(a.grad_x),
                                               .norm = Norm<S, N>(a.lrn),
                                               .window = window,
                                               .cuts = plan});
}

// ---- the one dispatcher, of both directions

template <class S, class Block>
const char* run(const Block& a, device::Stream stream) {
  if constexpr (sizeof(S) == 8) {
    return direct<S>(a, stream);
  } else {
    const bool is_last = a.images.channels_last;
    if (a.pool.wide() || (is_last && a.lrn.size > kLongestLineWindow)) return direct<S>(a, stream);
    if (a.lrn.size == kUsual && is_fast(a.lrn.beta) && is_fixed(a.pool)) {
      return is_last ? rows<S, kUsual>(a, stream) : strips<S, kUsual>(a, stream);
    }
    return is_last ? last<S>(a, stream) : planes<S>(a, stream);
  }
}

template <class Block>
const char* run(DType dtype, const Block& a, void* stream) {
  if (a.images.numel() == 0) return nullptr;
  if (const char* error = too_large(a.images, a.pool)) return error;
  return with_dtype(dtype, [&](auto type) { return run<decltype(type)>(a, as_stream(stream)); });
}

}  // namespace

const char* trio_forward(DType dtype, const TrioForward& a, void* stream) {
  return run(dtype, a, stream);
}

const char* trio_backward(DType dtype, const TrioBackward& a, void* stream) {
  return run(dtype, a, stream);
}

}  // namespace fastseq::cuda
