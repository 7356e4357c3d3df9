// ReLU -> LRN -> max-pool: a block owns a tile of outputs of one image. It normalizes the inputs
// that these look at once, keeps the result in shared memory, and pools there. What is pooled is
// rounded to S first, so that the trio equals its three ops in a row to the last bit.
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
// A row of a tile costs `edge` pixels more than it holds: cache lines that it shares with others.
template <bool kFixed>
PoolTile choose_tile(const Window<kFixed>& window, int64_t most, int64_t edge) {
  PoolTile best{};
  int64_t least = 0;
  const auto span = [](const Side<kFixed>& side, int64_t outputs) {
    return (outputs - 1) * side.stride() + (side.kernel() - 1) * int64_t{side.dilation()} + 1;
  };
  for (int ow = 1; ow <= window.w.out && span(window.w, ow) * span(window.h, 1) <= most; ++ow) {
    int oh = 1;
    while (oh < window.h.out && span(window.w, ow) * span(window.h, oh + 1) <= most) ++oh;
    const int64_t ih = span(window.h, oh), iw = span(window.w, ow);
    const int64_t down = divide_up(window.h.out, oh), across = divide_up(window.w.out, ow);
    const int64_t cost = down * across * (ih * (iw + edge) + 64);
    if (best.oh && cost >= least) continue;
    least = cost;
    best = {oh, ow, static_cast<int>(ih), static_cast<int>(iw), down, across};
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

// NCHW: a thread owns an input pixel and walks the channels, kStage of them between two barriers.
// Two stages alternate in shared memory: while one is pooled, the next is written.
struct PlanesTile : PoolTile {
  static constexpr int kThreads = 512, kBlocks = 2;
};
constexpr int kStage = 4;

template <class S, class O, bool kFixed, int N>
FASTSEQ_KERNEL_FOR(PlanesTile)
trio_planes_forward(Of<S, TrioForward> a, Norm<S, N> norm, Window<kFixed> window, PlanesTile tile,
                    Chunks chunks) {
  using A = accumulate_t<S>;
  constexpr int kBefore = N / 2, kAfter = N ? (N - 1) / 2 : 0;
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
  Ring<A, N ? N : 1> ring;
  A next[kStage], one[1];
  const auto fetch = [&](int64_t c) {
    FASTSEQ_UNROLL(kStage) for (int k = 0; k < kStage; ++k) {
      channel<1, Relu>(x, c + k + kAfter, a.images, one);
      next[k] = one[0];
    }
  };
  if (inside) {
    FASTSEQ_UNROLL(kBefore + kAfter + 1) for (int j = 0; j < kBefore + kAfter; ++j) {
      channel<1, Relu>(x, first - kBefore + j, a.images, one);
      ring.push(one[0]);
    }
    fetch(first);
  }
  int stage = 0;
  for (int64_t c = first; c < last; c += kStage, stage = kStage - stage) {
    if (inside) {
      FASTSEQ_UNROLL(kStage) for (int k = 0; k < kStage; ++k) {
        ring.push(next[k]);
        if (c + k >= last) continue;
        A sum;
        if constexpr (N == 0) {
          sum = squares_at<Relu>(x, c + k, a.images, norm.before, norm.after);
        } else {
          sum = ring.squares();
        }
        ys.set((stage + k) * inputs + me,
               device::round_to<S>(ring.value[kBefore] * norm.factor(sum)));
      }
      fetch(c + kStage);
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
      if (a.offsets) device::store(static_cast<O*>(a.offsets) + index, best.place);
    }
  }
}

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

template <class S, class O, bool kFixed, int N>
FASTSEQ_KERNEL trio_last_forward(Of<S, TrioForward> a, Norm<S, N> norm, Window<kFixed> window,
                                 PoolTile tile, LastTile last) {
  using A = accumulate_t<S>;
  const int before = N ? N / 2 : static_cast<int>(norm.before);
  const int after = N ? (N - 1) / 2 : static_cast<int>(norm.after);
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
  const S* const x = static_cast<const S*>(a.x) + corner.image * C * a.images.pixels();
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
    if constexpr (N > 0) {
      Ring<A, N> ring;
      FASTSEQ_UNROLL(N) for (int j = 0; j < N - 1; ++j) ring.push(xs.get(p * pitch + j));
      FASTSEQ_UNROLL(N) for (int u = 0; u < here; ++u) {
        ring.push(xs.get(p * pitch + u + N - 1));
        const A y = ring.value[N / 2] * norm.factor(ring.squares());
        xs.set(p * pitch + u, device::round_to<S>(y));
      }
    } else {
      for (int u = 0; u < here; ++u) {
        A sum = 0;
        for (int j = 0; j <= before + after; ++j) {
          sum = add_square(sum, xs.get(p * pitch + u + j));
        }
        const A y = xs.get(p * pitch + u + before) * norm.factor(sum);
        xs.set(p * pitch + u, device::round_to<S>(y));
      }
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
    device::store(static_cast<S*>(a.y) + index, best.value);
    if (a.offsets) device::store(static_cast<O*>(a.offsets) + index, best.place);
  }
}

// For windows that no tile has room for: a thread is an output and normalizes what it looks at.
template <class S, class O, bool kFixed>
FASTSEQ_KERNEL_OF(device::kBlock, 3)
trio_direct_forward(Of<S, TrioForward> a, Norm<S, 0> norm, Window<kFixed> window) {
  using A = accumulate_t<S>;
  const Images& s = a.images;
  Images out = s;
  out.height = window.h.out;
  out.width = window.w.out;
  const int64_t i = device::thread();
  if (i >= out.numel()) return;
  const S* const x = static_cast<const S*>(a.x);
  const Element e(out, i);
  const int oh = static_cast<int>(e.h), ow = static_cast<int>(e.w);
  Best<A> best{-INFINITY, first_place(window, oh, ow)};
  scan(window, oh, ow, [&](int place, int row, int column) {
    Element at = e;
    at.h = window.h.start(oh) + row;
    at.w = window.w.start(ow) + column;
    const int64_t j = at.image * s.channels * s.pixels() + at.channel * s.channel_stride() +
                      (at.h * s.width + at.w) * s.pixel_stride();
    const A factor = norm.factor(direct_squares<false, Relu>(s, x, at, j, norm));
    best.offer(device::round_to<S>(Math::relu(device::read(x + j)) * factor), place);
  });
  device::store(static_cast<S*>(a.y) + i, best.value);
  if (a.offsets) device::store(static_cast<O*>(a.offsets) + i, best.place);
}

}  // namespace fastseq::cuda
