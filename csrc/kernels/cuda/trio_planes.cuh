// ReLU -> LRN -> max-pool of NCHW images.
#pragma once

#include "lrn_strip.cuh"
#include "pool_strip.cuh"
#include "trio_tile.cuh"

namespace fastseq::cuda {

// The usual window and size: a block's strip is a band of rows (strip.cuh). LRN leaves y where x
// was in shared memory, and the pool finds it there.
template <class S, int N>
FASTSEQ_KERNEL_OF(device::kBlock, device::kArchitecture / 100 == 12 ? 2 : 3)
trio_strip_forward(Of<S, TrioForward> a, Norm<S, N> norm, Window3 window, StripPlan plan) {
  constexpr int K = kPack<S>, kAfter = (N - 1) / 2;
  const StripWalk walk(a.images, plan);
  const ForwardStages<N> stages(walk, a.images);
  const Band band(window, plan, walk);
  const auto x = band_of(static_cast<const S*>(a.x), a.images, walk, band);
  const auto of = [&](auto* tensor) {
    return outputs_of(tensor, a.images, walk, window, band.first_output, band.outputs);
  };
  StripMover<const S, K, kBandMoves> in(x, stages.first + kAfter, 0);
  const BandPool<S> out(window, band, of(static_cast<S*>(a.y)),
                        of(static_cast<uint8_t*>(a.offsets)), stages.first,
                        strip_bytes<S, K>(plan.length));
  Ring<accumulate_t<S>, N> ring[kBandMoves];
  in.fetch(stages.first + kAfter, stages.from, stages.to);
  for (int c = stages.first; c < walk.to; c += K) {
    in.put(c + kAfter, stages.from, stages.to);
    device::sync();
    in.fetch(c + K + kAfter, stages.from, stages.to);
    normalize_stage<S, Relu>(in, x.length, norm, ring,
                             [&](int k, int pixel, S value) { in.set(k, pixel, value); });
    device::sync();
    FASTSEQ_UNROLL(1) for (int k = 0; k < K; ++k) {
      out.pool(k, [&](int i) { return device::widen(in.get(k, i)); });
    }
    device::sync();
    out.store(c, walk.from, walk.to);
  }
}

template <class S, int N>
FASTSEQ_KERNEL_OF(device::kBlock, 3)
trio_strip_backward(Of<S, TrioBackward> a, Norm<S, N> norm, Window3 window, StripPlan plan) {
  const StripWalk walk(a.images, plan);
  const int64_t bytes = strip_bytes<S, kPack<S>>(plan.length);
  auto gradient =
      chosen_strip<S, kStripPixels>(a, window, plan, walk, strip_begin<N>(walk), 2 * bytes);
  strip_backward<S, N, Relu>(a, norm, plan, walk, gradient, bytes);
}

// Any window, any size: a thread owns an input pixel of a tile and walks the channels, kStage of
// them between two barriers. Two stages alternate in shared memory: while one is pooled, the next
// is written.
struct PlanesTile : PoolTile {
  static constexpr int kThreads = 512, kBlocks = 2;
};
constexpr int kStage = 4;

template <class S>
FASTSEQ_KERNEL_FOR(PlanesTile)
trio_planes_forward(Of<S, TrioForward> a, Norm<S, 0> norm, Window<false> window, PlanesTile tile,
                    Chunks chunks) {
  using A = accumulate_t<S>;
  const TileCorner corner(window, tile, chunks.count, false);
  const int64_t C = a.images.channels, P = a.images.pixels();
  const int64_t first = corner.part * chunks.size;
  const int64_t last = smaller(first + chunks.size, C);
  const int me = device::thread_index(), inputs = tile.inputs(), outputs = tile.outputs();
  const int row = me / tile.iw, h = corner.h + row, w = corner.w + me - row * tile.iw;
  const bool inside = me < inputs && h >= 0 && h < window.height && w >= 0 && w < window.width;
  const device::Shared<A> ys(0, 2 * kStage * inputs);
  const S* const x = static_cast<const S*>(a.x) + corner.image * C * P +
                     (inside ? static_cast<int64_t>(h) * window.width + w : 0);
  int stage = 0;
  for (int64_t c = first; c < last; c += kStage, stage = kStage - stage) {
    if (inside) {
      for (int k = 0; k < kStage && c + k < last; ++k) {
        const A sum = squares_at<Relu>(x, c + k, a.images, norm.before, norm.after);
        const A y = Math::relu(device::read(x + (c + k) * P)) * norm.factor(sum);
        ys.set((stage + k) * inputs + me, device::round_to<S>(y));
      }
    }
    device::sync();
    for (int item = me; item < kStage * outputs; item += device::block_size()) {
      const int k = item / outputs;
      Best<A> best;
      int64_t index;
      if (c + k >= last || !pool_tile(window, tile, corner, ys, item - k * outputs, 1,
                                      (stage + k) * inputs, best, index)) {
        continue;
      }
      index += (corner.image * C + c + k) * window.outputs();
      device::store(static_cast<S*>(a.y) + index, best.value);
      if (a.offsets) device::store(static_cast<uint8_t*>(a.offsets) + index, best.place);
    }
  }
}

template <class S>
FASTSEQ_KERNEL_OF(device::kBlock, 2)
trio_planes_backward(Of<S, TrioBackward> a, Norm<S, 0> norm, Window<false> window, Chunks chunks) {
  planes_backward_any<S, Relu>(a, norm, chunks, chosen<S, uint8_t>(a, window));
}

}  // namespace fastseq::cuda
