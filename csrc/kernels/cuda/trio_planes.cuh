// ReLU -> LRN -> max-pool of NCHW images.
#pragma once

#include "lrn_strip.cuh"
#include "pool_strip.cuh"
#include "trio_tile.cuh"

namespace fastseq::cuda {

// The usual window and size: a block's strip is a band of rows (strip.cuh). LRN leaves y where x
// was in shared memory, and the pool finds it there.
template <class S, int N>
struct TrioStripForward {
  // Which 80 registers are enough for; sm_120 needs up to 128, and has one such block at a time.
  static constexpr bool kMore = device::kArchitecture / 100 == 12;
  static constexpr int kThreads = kMore ? 512 : 384, kBlocks = kMore ? 1 : 2, kMoves = 4;
  Images images;
  const S* x;
  S* y;
  uint8_t* offsets;  // may be null
  Norm<S, N> norm;
  Window3 window;
  Strips strips;
};

template <class S, int N>
FASTSEQ_KERNEL_FOR(TrioStripForward<S, N>)
trio_strip_forward(TrioStripForward<S, N> a) {
  constexpr int K = kPack<S>, kMoves = TrioStripForward<S, N>::kMoves, kAfter = (N - 1) / 2;
  const StripWalk walk(a.images, a.strips);
  const ForwardStages<N> stages(walk, a.images);
  const Band band(a.window, a.strips, walk);
  const auto x = band_of(a.x, a.images, walk, band);
  StripMover<const S, K, kMoves> in(x, stages.first + kAfter, 0);
  const BandPool<S> out(a.images, a.window, walk, band, a.y, a.offsets, stages.first,
                        strip_bytes<S, K>(a.strips.length));
  Ring<accumulate_t<S>, N> ring[kMoves];
  in.fetch(stages.first + kAfter, stages.from, stages.to);
  for (int c = stages.first; c < walk.to; c += K) {
    in.put(c + kAfter, stages.from, stages.to);
    device::sync();
    in.fetch(c + K + kAfter, stages.from, stages.to);
    normalize_stage<S, Relu>(in, in, x.length, a.norm, ring);
    device::sync();
    FASTSEQ_UNROLL(1) for (int k = 0; k < K; ++k) out.pool(k, in);
    device::sync();
    out.store(c, walk.from, walk.to);
  }
}

template <class S, int N>
struct TrioStripBackward {
  static constexpr int kThreads = 384, kBlocks = 2;
  Images images;
  const S* grad_y;
  const uint8_t* offsets;
  const S* x;
  S* grad_x;
  Norm<S, N> norm;
  Window3 window;
  Strips strips;
};

template <class S, int N>
FASTSEQ_KERNEL_FOR(TrioStripBackward<S, N>)
trio_strip_backward(TrioStripBackward<S, N> a) {
  const StripWalk walk(a.images, a.strips);
  const int64_t bytes = strip_bytes<S, kPack<S>>(a.strips.length);
  auto gradient = chosen_strip<S, kStripPixels>(a, walk, strip_begin<N>(walk), 2 * bytes);
  strip_backward_any<S, N, Relu>(a, walk, gradient, bytes);
}

// Any window, any size: a thread owns an input pixel of a tile and walks the channels, kStage of
// them between two barriers. Two stages alternate in shared memory: while one is pooled, the next
// is written.
constexpr int kStage = 4;

template <class S>
struct TrioPlanesForward {
  static constexpr int kThreads = 512, kBlocks = 2;
  Images images;
  const S* x;
  S* y;
  uint8_t* offsets;  // may be null
  Norm<S, 0> norm;
  Window<false> window;
  PoolTile tile;
  Chunks chunks;
};

template <class S>
FASTSEQ_KERNEL_FOR(TrioPlanesForward<S>)
trio_planes_forward(TrioPlanesForward<S> a) {
  using A = accumulate_t<S>;
  const Window<false>& window = a.window;
  const PoolTile& tile = a.tile;
  const TileCorner corner(window, tile, a.chunks.count, false);
  const int64_t C = a.images.channels, P = a.images.pixels();
  const int64_t first = corner.part * a.chunks.size;
  const int64_t last = smaller(first + a.chunks.size, C);
  const int me = device::thread_index(), inputs = tile.inputs(), outputs = tile.outputs();
  const int row = me / tile.iw, h = corner.h + row, w = corner.w + me - row * tile.iw;
  const bool inside = me < inputs && h >= 0 && h < window.height && w >= 0 && w < window.width;
  const device::Shared<A> ys(0, 2 * kStage * inputs);
  const S* const x =
      a.x + corner.image * C * P + (inside ? static_cast<int64_t>(h) * window.width + w : 0);
  int stage = 0;
  for (int64_t c = first; c < last; c += kStage, stage = kStage - stage) {
    if (inside) {
      for (int k = 0; k < kStage && c + k < last; ++k) {
        const A sum = squares_at<Relu>(x, c + k, a.images, a.norm.before(), a.norm.after());
        const A y = Math::relu(device::read(x + (c + k) * P)) * a.norm.factor(sum);
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
      device::store(a.y + index, best.value);
      if (a.offsets) device::store(a.offsets + index, best.place);
    }
  }
}

template <class S>
struct TrioPlanesBackward {
  Images images;
  const S* grad_y;
  const uint8_t* offsets;
  const S* x;
  S* grad_x;
  Norm<S, 0> norm;
  Window<false> window;
  Chunks chunks;
};

template <class S>
FASTSEQ_KERNEL_OF(device::kBlock, 2)
trio_planes_backward(TrioPlanesBackward<S> a) {
  planes_backward_any<Relu>(a, Chosen<S, const uint8_t*>{a.grad_y, a.offsets, a.window});
}

}  // namespace fastseq::cuda
