// ReLU -> LRN -> max-pool of channels_last images, any window and any size.
#pragma once

#include "lrn_last.cuh"
#include "trio_tile.cuh"

namespace fastseq::cuda {

// channels_last: a block does `group` channels (a power of two) of its tile. Channels are
// neighbours when x is loaded and when y is written; in between a thread walks one pixel's channels
// and leaves y where x was. The odd pitch of a pixel keeps both free of bank conflicts.
struct LastTile {
  int group, shift;  // group = 1 << shift
  int64_t groups;

  FASTSEQ_HD int pitch(int64_t before, int64_t after) const {
    return (group + static_cast<int>(before + after)) | 1;
  }
};

template <class S>
struct TrioLastForward {
  Images images;
  const S* x;
  S* y;
  uint8_t* offsets;  // may be null
  Norm<S, 0> norm;
  Window<false> window;
  PoolTile tile;
  LastTile last;
};

template <class S>
FASTSEQ_KERNEL trio_last_forward(TrioLastForward<S> a) {
  using A = accumulate_t<S>;
  const Window<false>& window = a.window;
  const PoolTile& tile = a.tile;
  const LastTile& last = a.last;
  const int before = static_cast<int>(a.norm.before()), after = static_cast<int>(a.norm.after());
  const TileCorner corner(window, tile, last.groups, true);
  const int64_t C = a.images.channels, c0 = corner.part * last.group;
  const int me = device::thread_index(), threads = device::block_size(), inputs = tile.inputs();
  const int pitch = last.pitch(before, after), width = last.group + before + after;
  // Where in the image each pixel of the tile is; -1: outside.
  const device::Shared<int64_t> pixels(0, inputs);
  const device::Shared<A> xs(static_cast<int64_t>(sizeof(int64_t)) * inputs, inputs * pitch);
  for (int p = me; p < inputs; p += threads) {
    const int row = p / tile.iw, h = corner.h + row, w = corner.w + p - row * tile.iw;
    const bool inside = h >= 0 && h < window.height && w >= 0 && w < window.width;
    pixels.set(p, inside ? static_cast<int64_t>(h) * window.width + w : -1);
  }
  device::sync();
  const S* const x = a.x + corner.image * C * a.images.pixels();
  const int p_step = threads / width, i_step = threads - p_step * width;
  for (int p = me / width, i = me - p * width; p < inputs;) {
    const int64_t pixel = pixels.get(p), c = c0 + i - before;
    const bool inside = pixel >= 0 && c >= 0 && c < C;
    xs.set(p * pitch + i, inside ? Math::relu(device::read(x + pixel * C + c)) : A(0));
    p += p_step;
    i += i_step;
    if (i >= width) i -= width, ++p;
  }
  device::sync();
  const int here = static_cast<int>(smaller(last.group, C - c0));
  for (int p = me; p < inputs; p += threads) {
    if (pixels.get(p) < 0) continue;
    for (int u = 0; u < here; ++u) {
      A sum = 0;
      for (int j = 0; j <= before + after; ++j) sum = add_square(sum, xs.get(p * pitch + u + j));
      const A y = xs.get(p * pitch + u + before) * a.norm.factor(sum);
      xs.set(p * pitch + u, device::round_to<S>(y));
    }
  }
  device::sync();
  for (int item = me; item < tile.outputs() << last.shift; item += threads) {
    const int u = item & (last.group - 1);
    Best<A> best;
    int64_t index;
    if (u >= here ||
        !pool_tile(window, tile, corner, xs, item >> last.shift, pitch, u, best, index)) {
      continue;
    }
    index = (corner.image * window.outputs() + index) * C + c0 + u;
    device::store(a.y + index, best.value);
    if (a.offsets) device::store(a.offsets + index, best.place);
  }
}

// Neighbouring channels of a thread. Any window costs much code for each: two are enough.
constexpr int kLastRun = 2;

template <class S>
struct TrioLastBackward {
  Images images;
  const S* grad_y;
  const uint8_t* offsets;
  const S* x;
  S* grad_x;
  Norm<S, 0> norm;
  Window<false> window;
  bool in_line;  // all begin where 16 bytes do
};

template <class S>
FASTSEQ_KERNEL_OF(device::kBlock, 2)
trio_last_backward(TrioLastBackward<S> a) {
  last_backward_any<0, kLastRun, Relu>(a, Chosen<S, const uint8_t*>{a.grad_y, a.offsets, a.window});
}

}  // namespace fastseq::cuda
