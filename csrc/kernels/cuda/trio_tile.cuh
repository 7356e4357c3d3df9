// What the rooms of the trio share. ReLU -> LRN -> max-pool forward: a block owns a tile of outputs
// of one image, normalizes the inputs that these look at once, keeps the result in shared memory,
// and pools there. What is pooled is rounded to S first, so that the trio equals its three ops in a
// row to the last bit. Backward is LRN's own, which gathers its gradient from the outputs that
// chose a pixel and reads x through the ReLU.
#pragma once

#include "lrn_direct.cuh"
#include "pooling.h"

namespace fastseq::cuda {

// A tile of oh x ow outputs and the ih x iw inputs under it; an image has down x across of them.
struct PoolTile {
  int oh, ow, ih, iw;
  int64_t down, across;

  FASTSEQ_HD int inputs() const { return ih * iw; }
  FASTSEQ_HD int outputs() const { return oh * ow; }
};

// The tile of at most so many inputs that costs least in all; oh = 0 if even one output needs more.
// A tile costs what it loads, `edge` pixels a row included (cache lines that it shares with
// others), and its threads, of which some idle: they come in teams of `team`.
template <bool kFixed>
PoolTile choose_tile(const Window<kFixed>& window, int64_t most, int64_t edge, int64_t team) {
  PoolTile best{};
  int64_t least = 0;
  const auto span = [](const Side<kFixed>& side, int64_t outputs) {
    return (outputs - 1) * side.stride() + (side.kernel() - 1) * int64_t{side.dilation()} + 1;
  };
  for (int oh = 1; oh <= window.h.out && span(window.h, oh) * span(window.w, 1) <= most; ++oh) {
    for (int ow = 1; ow <= window.w.out && span(window.h, oh) * span(window.w, ow) <= most; ++ow) {
      const int64_t ih = span(window.h, oh), iw = span(window.w, ow);
      const int64_t down = divide_up(window.h.out, oh), across = divide_up(window.w.out, ow);
      const int64_t cost = down * across * (ih * (iw + edge) + divide_up(ih * iw, team) * team);
      if (best.oh && cost >= least) continue;
      least = cost;
      best = {oh, ow, static_cast<int>(ih), static_cast<int>(iw), down, across};
    }
  }
  return best;
}

// A block's tile of one image: its first output, the input under that, and which part of the
// channels it does.
struct TileCorner {
  int64_t image, part;
  int oh, ow, h, w;

  template <bool kFixed>
  FASTSEQ_DEVICE TileCorner(const Window<kFixed>& window, const PoolTile& tile, int64_t parts,
                            bool parts_first) {
    int64_t i = device::block_index(), rest;
    if (parts_first) {
      rest = device::divide(i, parts);
      part = i - rest * parts;
      i = rest;
    }
    rest = device::divide(i, tile.across);
    ow = static_cast<int>(i - rest * tile.across) * tile.ow;
    i = rest;
    rest = device::divide(i, tile.down);
    oh = static_cast<int>(i - rest * tile.down) * tile.oh;
    image = rest;
    if (!parts_first) {
      image = device::divide(rest, parts);
      part = rest - image * parts;
    }
    h = window.h.start(oh);
    w = window.w.start(ow);
  }
};

// Pools output `o` of a tile whose normalized inputs lie in shared memory, pixel p at p * pitch
// + at. False: the image has no such output.
template <class A, bool kFixed>
FASTSEQ_DEVICE bool pool_tile(const Window<kFixed>& window, const PoolTile& tile,
                              const TileCorner& corner, const device::Shared<A>& ys, int o,
                              int pitch, int at, Best<A>& best, int64_t& index) {
  const int row = o / tile.ow, column = o - row * tile.ow;
  const int oh = corner.oh + row, ow = corner.ow + column;
  if (oh >= window.h.out || ow >= window.w.out) return false;
  best = Best<A>{-INFINITY, first_place(window, oh, ow)};
  const int top = row * window.h.stride(), left = column * window.w.stride();
  scan(window, oh, ow, [&](int place, int i, int j) {
    best.offer(ys.get(((top + i) * tile.iw + left + j) * pitch + at), place);
  });
  index = static_cast<int64_t>(oh) * window.w.out + ow;
  return true;
}

// The gradient of LRN's output in one pixel's channels, gathered through the pool.
template <class S, class Places>
struct ChosenPixel {
  const S* grad_y;
  Places offsets;
  Gather<false> gather;
  int64_t first, outputs;  // of the image's first plane; of a plane

  FASTSEQ_DEVICE accumulate_t<S> gradient(int64_t c) const {
    accumulate_t<S> g[1];
    gather.template gradient<1>(grad_y, offsets, first + c * outputs, 1, g);
    return g[0];
  }
};

// As Given of lrn_planes.cuh. Places: const uint8_t*, or AnyPlaces.
template <class S, class Places>
struct Chosen {
  const S* grad_y;
  Places offsets;
  const Window<false>& window;

  FASTSEQ_DEVICE ChosenPixel<S, Places> pixel(const Images& images, int64_t image,
                                              int64_t p) const {
    const int64_t h = device::divide(p, window.width), w = p - h * window.width;
    const int64_t outputs = window.outputs();
    return {grad_y, offsets, Gather<false>(window, static_cast<int>(h), static_cast<int>(w)),
            image * images.channels * outputs, outputs};
  }
  // Neighbours of one pixel have neighbouring outputs.
  template <int V>
  FASTSEQ_DEVICE static bool in_one(const Images& images) {
    return images.channels % V == 0;
  }
  template <int V>
  FASTSEQ_DEVICE void run(const Images& images, int64_t element, accumulate_t<S> (&g)[V]) const {
    const int64_t C = images.channels;
    const int64_t rest = device::divide(element, C), row = device::divide(rest, window.width);
    const int64_t image = device::divide(row, window.height);
    const Gather<false> gather(window, static_cast<int>(row - image * window.height),
                               static_cast<int>(rest - row * window.width));
    const int64_t base = image * window.outputs() * C + element - rest * C;
    gather.template gradient<V>(grad_y, offsets, base, C, g);
  }
};

}  // namespace fastseq::cuda
