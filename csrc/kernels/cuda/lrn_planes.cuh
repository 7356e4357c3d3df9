// LRN across the channels of NCHW images for windows of any size: a thread owns a pixel, walks a
// chunk of the channels, and reads the window again for every one of them.
#pragma once

#include "lrn.h"

namespace fastseq::cuda {

// One walk: a pixel of one image, channels [first, last).
struct Walk {
  int64_t image, pixel, first, last;
};

// How the channels are cut so that the walks fill the machine; a cut costs a halo of the window.
struct Chunks {
  int64_t size, count;

  Chunks(int64_t walks, int64_t channels, int64_t window) {
    const int64_t least = 4 * window > 16 ? 4 * window : 16;
    const int64_t wanted = walks > 0 ? divide_up(kFull, walks) : 1;
    const int64_t most = channels / least > 1 ? channels / least : 1;
    count = wanted < most ? wanted : most;
    size = channels > 0 ? divide_up(channels, count) : 1;
    count = divide_up(channels, size);
  }
};

FASTSEQ_DEVICE bool begin(const Images& images, const Chunks& chunks, Walk& walk) {
  const int64_t columns = images.pixels(), i = device::thread();
  if (i >= images.batch * chunks.count * columns) return false;
  const int64_t rest = device::divide(i, columns);
  walk.pixel = i - rest * columns;
  walk.image = device::divide(rest, chunks.count);
  walk.first = (rest - walk.image * chunks.count) * chunks.size;
  walk.last = walk.first + chunks.size;
  if (walk.last > images.channels) walk.last = images.channels;
  return true;
}

// The sum of squares around channel c, straight from memory.
template <class Input, class S>
FASTSEQ_DEVICE accumulate_t<S> squares_at(const S* x, int64_t c, const Images& images,
                                          int64_t before, int64_t after) {
  const int64_t from = c > before ? c - before : 0, stride = images.channel_stride();
  const int64_t to = c + after < images.channels ? c + after : images.channels - 1;
  accumulate_t<S> sum = 0;
  for (int64_t j = from; j <= to; ++j) {
    sum = add_square(sum, Input::of(device::read(x + j * stride)));
  }
  return sum;
}

template <class S>
struct PlanesForward {
  Images images;
  const S* x;
  S* y;
  Norm<S, 0> norm;
  Chunks chunks;
};

template <class S>
FASTSEQ_KERNEL planes_forward(PlanesForward<S> a) {
  Walk walk;
  if (!begin(a.images, a.chunks, walk)) return;
  const int64_t P = a.images.pixels(), start = walk.image * a.images.channels * P + walk.pixel;
  const S* const x = a.x + start;
  S* const y = a.y + start;
  for (int64_t c = walk.first; c < walk.last; ++c) {
    const auto sum = squares_at<Identity>(x, c, a.images, a.norm.before(), a.norm.after());
    device::store(y + c * P, device::read(x + c * P) * a.norm.factor(sum));
  }
}

// The gradient of LRN's output in one pixel's channels.
template <class S>
struct GivenPixel {
  const S* first;
  int64_t stride;

  FASTSEQ_DEVICE accumulate_t<S> gradient(int64_t c) const {
    return device::read(first + c * stride);
  }
};

// Where the gradient of LRN's output comes from: a tensor of its own (here), or through the trio's
// pool. pixel(...) is for a walk over planes, run<V>(...) for neighbours in channels_last memory.
template <class S>
struct Given {
  const S* grad_y;

  FASTSEQ_DEVICE GivenPixel<S> pixel(const Images& images, int64_t image, int64_t p) const {
    return {grad_y + image * images.channels * images.pixels() + p, images.pixels()};
  }
  // Whether V neighbours can be asked for at once.
  template <int V>
  FASTSEQ_DEVICE static bool in_one(const Images&) {
    return true;
  }
  template <int V>
  FASTSEQ_DEVICE void run(const Images&, int64_t element, accumulate_t<S> (&g)[V]) const {
    device::read<V>(grad_y + element, g);
  }
};

// For any size: t of the last n channels lies in shared memory, a column for every thread. `a` is a
// PlanesBackward, or the trio's.
template <class Input, class Arguments, class Source>
FASTSEQ_DEVICE void planes_backward_any(const Arguments& a, const Source& source) {
  using A = decltype(a.norm.k);
  const int before = static_cast<int>(a.norm.before()), after = static_cast<int>(a.norm.after());
  const int n = before + after + 1, width = device::block_size();
  Walk walk;
  if (!begin(a.images, a.chunks, walk)) return;
  const int64_t C = a.images.channels, P = a.images.pixels();
  const int64_t start = walk.image * C * P + walk.pixel;
  const auto* const x = a.x + start;
  auto* const grad_x = a.grad_x + start;
  const auto pixel = source.pixel(a.images, walk.image, walk.pixel);
  const device::Shared<A> ring(0, n * width);
  int slot = 0;
  for (int64_t m = walk.first - after; m < walk.last + before; ++m) {
    A p, q, t = 0;
    if (m >= 0 && m < C) {
      a.norm.factors(squares_at<Input>(x, m, a.images, before, after), p, q);
      t = pixel.gradient(m) * Input::of(device::read(x + m * P)) * q;
    }
    ring.set(slot * width + device::thread_index(), t);
    slot = slot + 1 == n ? 0 : slot + 1;
    const int64_t d = m - before;
    if (d < walk.first) continue;
    A sum = 0;
    for (int j = 0, from = slot; j < n; ++j, from = from + 1 == n ? 0 : from + 1) {
      sum += ring.get(from * width + device::thread_index());
    }
    p = a.norm.factor(squares_at<Input>(x, d, a.images, before, after));
    const A x_d = Input::of(device::read(x + d * P));
    const A dx = a.norm.gradient(pixel.gradient(d) * p, x_d, sum);
    device::store(grad_x + d * P, Input::gradient(x_d, dx));
  }
}

template <class S>
struct PlanesBackward {
  Images images;
  const S* grad_y;
  const S* x;
  S* grad_x;
  Norm<S, 0> norm;
  Chunks chunks;
};

template <class S>
FASTSEQ_KERNEL planes_backward(PlanesBackward<S> a) {
  planes_backward_any<Identity>(a, Given<S>{a.grad_y});
}

// Threads of a block that has a ring of n values for each; 0: not even a warp has room.
template <class A>
int ring_threads(int64_t n) {
  for (int threads = device::kBlock; threads >= device::kWarp; threads /= 2) {
    if (n <= device::kSharedLimit / (threads * static_cast<int64_t>(sizeof(A)))) return threads;
  }
  return 0;
}
template <class A>
int64_t ring_bytes(int64_t n, int threads) {
  return n * threads * static_cast<int64_t>(sizeof(A));
}

}  // namespace fastseq::cuda
