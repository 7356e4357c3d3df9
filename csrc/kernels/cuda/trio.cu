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

template <class S>
const char* direct(const Of<S, TrioForward>& a, device::Stream stream) {
  const Window<false> window(a.images, a.pool);
  const int64_t outputs = a.images.batch * a.images.channels * window.outputs();
  const auto kernel =
      a.pool.wide() ? trio_direct_forward<S, int32_t> : trio_direct_forward<S, uint8_t>;
  return device::launch(kernel, outputs, stream, a, Norm<S, 0>(a.lrn), window);
}
template <class S>
const char* direct(const Of<S, TrioBackward>& a, device::Stream stream) {
  const auto kernel =
      a.pool.wide() ? trio_direct_backward<S, int32_t> : trio_direct_backward<S, uint8_t>;
  return device::launch(kernel, a.images.numel(), stream, a, Norm<S, 0>(a.lrn),
                        Window<false>(a.images, a.pool));
}

// ---- NCHW

template <class S>
const char* planes(const Of<S, TrioForward>& a, device::Stream stream) {
  constexpr int64_t size = sizeof(accumulate_t<S>);
  const Images& s = a.images;
  const Window<false> window(s, a.pool);
  const int64_t room = device::kSharedLimit / (2 * kStage * size);
  const PlanesTile tile{choose_tile(window, smaller(room, PlanesTile::kThreads), 8, device::kWarp)};
  if (tile.oh == 0) return direct(a, stream);
  const int threads = static_cast<int>(divide_up(tile.inputs(), device::kWarp)) * device::kWarp;
  const int64_t tiles = s.batch * tile.down * tile.across;
  const Chunks chunks(tiles * threads, s.channels, a.lrn.size);
  const device::Grid grid{tiles * chunks.count, threads, 2 * kStage * size * tile.inputs()};
  return device::launch(trio_planes_forward<S>, grid, stream, a, Norm<S, 0>(a.lrn), window, tile,
                        chunks);
}
template <class S>
const char* planes(const Of<S, TrioBackward>& a, device::Stream stream) {
  using A = accumulate_t<S>;
  const Images& s = a.images;
  const int threads = ring_threads<A>(a.lrn.size);
  if (threads == 0) return direct(a, stream);
  const int64_t walks = s.batch * s.pixels();
  const Chunks chunks(walks, s.channels, a.lrn.size);
  const int64_t bytes = a.lrn.size * threads * static_cast<int64_t>(sizeof(A));
  return device::launch(trio_planes_backward<S>,
                        {divide_up(walks * chunks.count, threads), threads, bytes}, stream, a,
                        Norm<S, 0>(a.lrn), Window<false>(s, a.pool), chunks);
}

// Strips, where planes are neither tiny nor so wide that a block has no room for a row of outputs.
template <class S, int N>
const char* strips(const Of<S, TrioForward>& a, device::Stream stream) {
  constexpr int V = kPack<S>;
  const Window3 window(a.images, a.pool);
  const StripPlan plan = choose_band<V>(a.images, window, kBandMoves, 4 * N);
  if (!has_strips(a.images) || !plan.strips) return planes(a, stream);
  const device::Grid grid{plan.blocks(a.images), plan.threads,
                          strip_bytes<S, V>(plan.length) + BandPool<S>::bytes(plan.outputs)};
  return device::launch(trio_strip_forward<S, N>, grid, stream, a, Norm<S, N>(a.lrn), window, plan);
}
template <class S, int N>
const char* strips(const Of<S, TrioBackward>& a, device::Stream stream) {
  constexpr int V = kPack<S>;
  const Window3 window(a.images, a.pool);
  const StripPlan plan = gather_strips<V>(a.images, window, kStripPixels, 4 * N);
  if (!has_strips(a.images) || !plan.strips) return planes(a, stream);
  const device::Grid grid{
      plan.blocks(a.images), plan.threads,
      2 * strip_bytes<S, V>(plan.length) + ChosenStrip<S, kStripPixels>::bytes(plan.outputs)};
  return device::launch(trio_strip_backward<S, N>, grid, stream, a, Norm<S, N>(a.lrn), window,
                        plan);
}

// ---- channels_last

template <class S>
const char* last(const Of<S, TrioForward>& a, device::Stream stream) {
  const Images& s = a.images;
  const Window<false> window(s, a.pool);
  constexpr int shift = 5, group = 1 << shift;
  const LastTile tile{group, shift, divide_up(s.channels, group)};
  const int64_t bytes =
      static_cast<int64_t>(sizeof(accumulate_t<S>)) * tile.pitch(a.lrn.before(), a.lrn.after()) +
      static_cast<int64_t>(sizeof(int64_t));
  const PoolTile pool =
      choose_tile(window, smaller(device::kSharedLimit / bytes, device::kBlock), 0, device::kBlock);
  if (pool.oh == 0) return direct(a, stream);
  const device::Grid grid{s.batch * pool.down * pool.across * tile.groups, device::kBlock,
                          bytes * pool.inputs()};
  return device::launch(trio_last_forward<S>, grid, stream, a, Norm<S, 0>(a.lrn), window, pool,
                        tile);
}
template <class S>
const char* last(const Of<S, TrioBackward>& a, device::Stream stream) {
  const Images& s = a.images;
  const LastBackwardTile<accumulate_t<S>, kLastRun> tile(
      static_cast<int>(a.lrn.before()), static_cast<int>(a.lrn.after()), device::kBlock);
  const device::Grid grid{divide_up(s.numel(), device::kBlock * kLastRun), device::kBlock,
                          tile.bytes()};
  const bool in_line =
      aligned(a.x, 16) && aligned(a.grad_y, 16) && aligned(a.grad_x, 16) && aligned(a.offsets, 16);
  return device::launch(trio_last_backward<S>, grid, stream, a, Norm<S, 0>(a.lrn),
                        Window<false>(s, a.pool), in_line);
}

// Rows, where a block has room for all channels of three pixels.
template <class S, int N>
const char* rows(const Of<S, TrioForward>& a, device::Stream stream) {
  if (!has_rows(a.images)) return last(a, stream);
  const Window3 window(a.images, a.pool);
  const bool flat = a.images.channels % kPack<S> || !aligned(a.x, 16) || !aligned(a.y, 16) ||
                    !aligned(a.offsets, 16);
  const RowPlan plan = choose_rows(a.images, window.w.out, window.h.out, false,
                                   flat ? trio_rows_needs<S, true> : trio_rows_needs<S, false>);
  if (!plan.threads) return last(a, stream);
  const auto kernel = flat ? trio_rows_forward<S, N, true> : trio_rows_forward<S, N, false>;
  return device::launch(kernel, plan.grid(a.images), stream, a, Norm<S, N>(a.lrn), window, plan);
}
template <class S, int N>
const char* rows(const Of<S, TrioBackward>& a, device::Stream stream) {
  if (!has_rows(a.images)) return last(a, stream);
  const Window3 window(a.images, a.pool);
  const bool flat = a.images.channels % kPack<S> || !aligned(a.x, 16) || !aligned(a.grad_y, 16) ||
                    !aligned(a.grad_x, 16) || !aligned(a.offsets, 16);
  const RowPlan plan =
      choose_rows(a.images, pairs(window.w, window.width), pairs(window.h, window.height), false,
                  flat ? trio_quads_needs<S, true> : trio_quads_needs<S, false>);
  if (!plan.threads) return last(a, stream);
  const auto kernel = flat ? trio_rows_backward<S, N, true> : trio_rows_backward<S, N, false>;
  return device::launch(kernel, plan.grid(a.images), stream, a, Norm<S, N>(a.lrn), window, plan);
}

// ---- the one dispatcher, of both directions

template <class S, class Block>
const char* run(const Of<S, Block>& a, device::Stream stream) {
  if constexpr (sizeof(S) == 8) {
    return direct(a, stream);
  } else {
    const bool last_ = a.images.channels_last;
    if (a.pool.wide() || (last_ && a.lrn.size > kLongestLineWindow)) return direct(a, stream);
    if (a.lrn.size == kUsual && is_fast(a.lrn.beta) && is_fixed(a.pool)) {
      return last_ ? rows<S, kUsual>(a, stream) : strips<S, kUsual>(a, stream);
    }
    return last_ ? last(a, stream) : planes(a, stream);
  }
}

template <class Block>
const char* run(DType dtype, const Block& a, void* stream) {
  if (a.images.numel() == 0) return nullptr;
  if (const char* error = too_large(a.images, a.pool)) return error;
  return with_dtype(
      dtype, [&](auto type) { return run(Of<decltype(type), Block>(a), as_stream(stream)); });
}

}  // namespace

const char* trio_forward(DType dtype, const TrioForward& a, void* stream) {
  return run(dtype, a, stream);
}

const char* trio_backward(DType dtype, const TrioBackward& a, void* stream) {
  return run(dtype, a, stream);
}

}  // namespace fastseq::cuda
