// Max-pooling of NCHW images by windows of 3 x 3 pixels, two apart, as part of a walk over a
// strip's planes. Forward: a strip is a band of rows, and each thread owns one output. Backward:
// gradients and places of the outputs that look at the strip are staged beside it, and a pixel
// takes its share from four of them, loaded whether they chose it or not.
#pragma once

#include "strip.cuh"

namespace fastseq::cuda {

using Window3 = Window<true>;

// A band of x: rows [top, top + height) of each plane, and the outputs that it pools.
struct Band {
  int first_output, outputs;  // of a plane
  int top, height;

  FASTSEQ_DEVICE Band(const Window3& window, const Strips& bands, const StripWalk& walk) {
    const int oh = walk.strip * bands.rows, rows = at_most(bands.rows, window.h.out - oh);
    first_output = oh * window.w.out;
    outputs = rows * window.w.out;
    top = at_least(window.h.start(oh), 0);
    height = at_most(window.h.start(oh + rows - 1) + 3, window.height) - top;
  }
};
template <class T>
FASTSEQ_DEVICE StripOf<T> band_of(T* tensor, const Images& images, const StripWalk& walk,
                                  const Band& band) {
  const int width = static_cast<int>(images.width);
  return {tensor, images.numel(),
          walk.image * images.channels * images.pixels() + int64_t{band.top} * width,
          images.pixels(), band.height * width};
}
// Outputs [first, first + count) of each plane, in a tensor of the outputs' size.
template <class T>
FASTSEQ_DEVICE StripOf<T> outputs_of(T* tensor, const Images& images, const StripWalk& walk,
                                     const Window3& window, int first, int count) {
  const int64_t planes = walk.image * images.channels;
  return {tensor, images.batch * images.channels * window.outputs(),
          planes * window.outputs() + first, window.outputs(), count};
}

// A thread's output of a band, and where the results of all of them go.
template <class S>
class BandPool {
 public:
  static constexpr int K = kPack<S>;

  // offsets: perhaps null; `first`: the first stage's plane; `shared`: an offset.
  FASTSEQ_DEVICE BandPool(const Images& images, const Window3& window, const StripWalk& walk,
                          const Band& band, S* y, uint8_t* offsets, int first, int64_t shared)
      : window_(window),
        mine_(device::thread_index() < band.outputs),
        saves_(offsets),
        y_(outputs_of(y, images, walk, window, band.first_output, band.outputs), first, shared),
        offsets_(outputs_of(offsets, images, walk, window, band.first_output, band.outputs), first,
                 shared + strip_bytes<S, K>(band.outputs)) {
    const int output = band.first_output + (mine_ ? device::thread_index() : 0);
    oh_ = output / window.w.out;
    ow_ = output - oh_ * window.w.out;
    corner_ = (window.h.start(oh_) - band.top) * window.width + window.w.start(ow_);
  }
  // Pools plane c + k of a band that `in` holds.
  template <class In>
  FASTSEQ_DEVICE void pool(int k, const In& in) const {
    if (!mine_) return;
    Best<accumulate_t<S>> best{-INFINITY, first_place(window_, oh_, ow_)};
    scan(window_, oh_, ow_, [&](int place, int i, int j) {
      best.offer(device::widen(in.get(k, corner_ + i * window_.width + j)), place);
    });
    y_.set(k, device::thread_index(), device::narrow<S>(best.value));
    if (saves_) {
      offsets_.set(k, device::thread_index(), static_cast<uint8_t>(best.place));
    }
  }
  FASTSEQ_DEVICE void store(int c, int from, int to) const {
    y_.store(c, from, to);
    if (saves_) offsets_.store(c, from, to);
  }
  static FASTSEQ_HD int64_t bytes(int outputs) {
    return strip_bytes<S, K>(outputs) + strip_bytes<uint8_t, K>(outputs);
  }

 private:
  const Window3& window_;
  bool mine_, saves_;
  int oh_, ow_, corner_;  // corner: of its window, in the band
  StripMover<S, K, 1> y_;
  StripMover<uint8_t, K, 1> offsets_;
};

// The outputs that look at a strip, from the first of them to the last. Where those of a strip's
// first row look at no other of its rows, they begin above its first pixel, not with their row; and
// likewise at its end.
struct Lookers {
  int first, count;

  FASTSEQ_DEVICE Lookers(const Window3& window, int pixel, int length) {
    const int end = pixel + length - 1, W = window.width, out = window.w.out;
    const int top = pixel / W, bottom = end / W;
    const int row = at_most(window.h.lowest(top), window.h.out - 1);
    const bool alone = bottom == top || window.h.lowest(top + 1) > row;
    first = row * out + (alone ? at_most(window.w.lowest(pixel - top * W), out - 1) : 0);
    const int last_row = window.h.highest(bottom);
    const bool last_alone = bottom == top || window.h.highest(bottom - 1) < last_row;
    const int last = last_row * out + (last_alone ? window.w.highest(end - bottom * W) : out - 1);
    count = at_least(last - first, 0) + 1;
  }
};

// The gradient of a pool's input, from staged outputs; as GivenStrip of lrn_strip.cuh.
template <class S, int kPixels>
class ChosenStrip {
 public:
  static constexpr int K = kPack<S>;

  // The strip has `length` pixels of each plane, from `pixel` on.
  FASTSEQ_DEVICE ChosenStrip(const Window3& window, const Lookers& lookers, int pixel, int length,
                             const StripOf<const S>& grad_y, const StripOf<const uint8_t>& offsets,
                             int first, int64_t shared)
      : grad_y_(grad_y, first, shared),
        offsets_(offsets, first, shared + strip_bytes<S, K>(lookers.count)) {
    FASTSEQ_UNROLL(kPixels) for (int v = 0; v < kPixels; ++v) {
      const int p = pixel + at_most(strip_pixel(v), length - 1), h = p / window.width,
                w = p - h * window.width;
      const int oh = window.h.lowest(h), ow = window.w.lowest(w);
      const int rows = window.h.highest(h) - oh, columns = window.w.highest(w) - ow;
      const int place = (h - window.h.start(oh)) * 3 + w - window.w.start(ow);
      const bool any = rows >= 0 && columns >= 0;
      at_[v] = any ? oh * window.w.out + ow - lookers.first : 0;
      down_[v] = any && rows > 0 ? window.w.out : 0;
      right_[v] = any && columns > 0 ? 1 : 0;
      // The output below is two pixels on: it would have chosen a place two rows up.
      places_[v] = byte(any, place) | byte(right_[v], place - 2) << 8 |
                   byte(down_[v], place - 6) << 16 | byte(down_[v] && right_[v], place - 8) << 24;
    }
  }
  FASTSEQ_DEVICE void fetch(int c, int from, int to) {
    grad_y_.fetch(c, from, to);
    offsets_.fetch(c, from, to);
  }
  FASTSEQ_DEVICE void put(int c, int from, int to) const {
    grad_y_.put(c, from, to);
    offsets_.put(c, from, to);
  }
  // Of the thread's pixel v in plane c + k: a sum in ascending order of the outputs.
  FASTSEQ_DEVICE accumulate_t<S> get(int k, int v) const {
    accumulate_t<S> g = 0;
    FASTSEQ_UNROLL(4) for (int i = 0; i < 4; ++i) {
      const int at = at_[v] + (i & 2 ? down_[v] : 0) + (i & 1 ? right_[v] : 0);
      const auto grad = device::widen(grad_y_.get(k, at));
      if (uint32_t{offsets_.get(k, at)} == (places_[v] >> 8 * i & 0xff)) g += grad;
    }
    return g;
  }
  static FASTSEQ_HD int64_t bytes(int outputs) {
    return strip_bytes<S, K>(outputs) + strip_bytes<uint8_t, K>(outputs);
  }

 private:
  // An output's choice among nine places; where there is no output, none of these.
  FASTSEQ_DEVICE static uint32_t byte(bool there, int place) {
    return there ? static_cast<uint32_t>(place) : 0xff;
  }
  StripMover<const S, K, 1> grad_y_;
  StripMover<const uint8_t, K, 1> offsets_;
  int at_[kPixels], down_[kPixels], right_[kPixels];
  uint32_t places_[kPixels];
};

// The ChosenStrip of a kernel's arguments.
template <class S, int kPixels, class Arguments>
FASTSEQ_DEVICE ChosenStrip<S, kPixels> chosen_strip(const Arguments& a, const StripWalk& walk,
                                                    int first, int64_t shared) {
  const int pixel = walk.strip * a.strips.length;
  const int length = at_most(a.strips.length, static_cast<int>(a.images.pixels()) - pixel);
  const Lookers lookers(a.window, pixel, length);
  return {a.window,
          lookers,
          pixel,
          length,
          outputs_of(a.grad_y, a.images, walk, a.window, lookers.first, lookers.count),
          outputs_of(a.offsets, a.images, walk, a.window, lookers.first, lookers.count),
          first,
          shared};
}

template <class S>
struct PoolStripForward {
  static constexpr int kThreads = 512, kBlocks = 2, kMoves = 4;
  Images images;  // of x
  const S* x;
  S* y;
  uint8_t* offsets;  // may be null
  Window3 window;
  Strips strips;
};

template <class S>
FASTSEQ_KERNEL_FOR(PoolStripForward<S>)
pool_strip_forward(PoolStripForward<S> a) {
  constexpr int K = kPack<S>;
  const StripWalk walk(a.images, a.strips);
  const Band band(a.window, a.strips, walk);
  StripMover<const S, K, PoolStripForward<S>::kMoves> in(band_of(a.x, a.images, walk, band),
                                                         walk.from, 0);
  const BandPool<S> out(a.images, a.window, walk, band, a.y, a.offsets, walk.from,
                        strip_bytes<S, K>(a.strips.length));
  in.fetch(walk.from, walk.from, walk.to);
  for (int c = walk.from; c < walk.to; c += K) {
    in.put(c, walk.from, walk.to);
    device::sync();
    in.fetch(c + K, walk.from, walk.to);
    FASTSEQ_UNROLL(1) for (int k = 0; k < K; ++k) out.pool(k, in);
    device::sync();
    out.store(c, walk.from, walk.to);
  }
}

template <class S>
struct PoolStripBackward {
  static constexpr int kThreads = 512, kBlocks = 2, kPixels = 4;
  Images images;  // of x
  const S* grad_y;
  const uint8_t* offsets;
  S* grad_x;
  Window3 window;
  Strips strips;
};

template <class S>
FASTSEQ_KERNEL_FOR(PoolStripBackward<S>)
pool_strip_backward(PoolStripBackward<S> a) {
  constexpr int K = kPack<S>, kPixels = PoolStripBackward<S>::kPixels;
  const StripWalk walk(a.images, a.strips);
  const auto grad_x = strip_of(a.grad_x, a.images, a.strips, walk);
  const StripMover<S, K, kPixels> out(grad_x, walk.from, 0);
  auto gradient = chosen_strip<S, kPixels>(a, walk, walk.from, strip_bytes<S, K>(a.strips.length));
  gradient.fetch(walk.from, walk.from, walk.to);
  for (int c = walk.from; c < walk.to; c += K) {
    gradient.put(c, walk.from, walk.to);
    device::sync();
    gradient.fetch(c + K, walk.from, walk.to);
    FASTSEQ_UNROLL(1) for (int k = 0; k < K; ++k) {
      FASTSEQ_UNROLL(kPixels) for (int v = 0; v < kPixels; ++v) {
        if (strip_pixel(v) >= grad_x.length) continue;
        out.set(k, strip_pixel(v), device::narrow<S>(gradient.get(k, v)));
      }
    }
    device::sync();
    out.store(c, walk.from, walk.to);
  }
}

}  // namespace fastseq::cuda
