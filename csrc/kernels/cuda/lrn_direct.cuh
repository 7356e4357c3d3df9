// LRN for windows that no other kernel has room for: a thread is an element and reads its whole
// window from memory, in either memory format. Right, deterministic, and slow.
#pragma once

#include "lrn_planes.cuh"

namespace fastseq::cuda {

// An element of a batch of images.
struct Element {
  int64_t image, channel, h, w;

  FASTSEQ_DEVICE Element(const Images& s, int64_t i) {
    const int64_t inner = s.channels_last ? s.channels : s.pixels(),
                  rest = device::divide(i, inner);
    int64_t pixel = i - rest * inner;
    channel = pixel;
    image = device::divide(rest, s.channels_last ? s.pixels() : s.channels);
    if (s.channels_last) {
      pixel = rest - image * s.pixels();
    } else {
      channel = rest - image * s.channels;
    }
    h = device::divide(pixel, s.width);
    w = pixel - h * s.width;
  }
};

// The sum of f(index) over the window [-before, after] around element e, whose index is i. Within a
// channel a row is summed first, as the tiled kernels do.
template <bool kWithin, class A, class F>
FASTSEQ_DEVICE A window_sum(const Images& s, const Element& e, int64_t i, int64_t before,
                            int64_t after, const F& f) {
  A sum = 0;
  if constexpr (kWithin) {
    const int64_t step = s.pixel_stride();
    for (int64_t h = larger(e.h - before, 0); h <= smaller(e.h + after, s.height - 1); ++h) {
      A row = 0;
      for (int64_t w = larger(e.w - before, 0); w <= smaller(e.w + after, s.width - 1); ++w) {
        row = f(row, i + ((h - e.h) * s.width + w - e.w) * step, h, w, e.channel);
      }
      sum += row;
    }
  } else {
    const int64_t step = s.channel_stride();
    const int64_t last = smaller(e.channel + after, s.channels - 1);
    for (int64_t c = larger(e.channel - before, 0); c <= last; ++c) {
      sum = f(sum, i + (c - e.channel) * step, e.h, e.w, c);
    }
  }
  return sum;
}

template <bool kWithin, class Input, class S>
FASTSEQ_DEVICE accumulate_t<S> direct_squares(const Images& s, const S* x, const Element& e,
                                              int64_t i, const Norm<S, 0>& norm) {
  using A = accumulate_t<S>;
  return window_sum<kWithin, A>(s, e, i, norm.before, norm.after,
                                [&](A sum, int64_t j, int64_t, int64_t, int64_t) {
                                  return add_square(sum, Input::of(device::read(x + j)));
                                });
}

template <class S, bool kWithin>
FASTSEQ_KERNEL direct_forward(Of<S, LrnForward> a, Norm<S, 0> norm) {
  const int64_t i = device::thread();
  if (i >= a.images.numel()) return;
  const S* const x = static_cast<const S*>(a.x);
  const auto sum = direct_squares<kWithin, Identity>(a.images, x, Element(a.images, i), i, norm);
  device::store(static_cast<S*>(a.y) + i, device::read(x + i) * norm.factor(sum));
}

template <class S, bool kWithin, class Input, class Source, class Block>
FASTSEQ_DEVICE void direct_backward(const Block& a, const Norm<S, 0>& norm, const Source& source) {
  using A = accumulate_t<S>;
  const int64_t i = device::thread();
  if (i >= a.images.numel()) return;
  const Images& s = a.images;
  const Element e(s, i);
  const S* const x = static_cast<const S*>(a.x);
  const auto gradient = [&](const Element& at, int64_t j) {
    A g[1];
    if (s.channels_last) {
      source.template run<1>(s, j, g);
    } else {
      source.template at<1>(s, at.image, at.h * s.width + at.w)(at.channel, g);
    }
    return g[0];
  };
  const A sum = window_sum<kWithin, A>(
      s, e, i, norm.after, norm.before, [&](A total, int64_t j, int64_t h, int64_t w, int64_t c) {
        Element at = e;
        at.h = h, at.w = w, at.channel = c;
        A p, q;
        norm.factors(direct_squares<kWithin, Input>(s, x, at, j, norm), p, q);
        return total + gradient(at, j) * Input::of(device::read(x + j)) * q;
      });
  const A p = norm.factor(direct_squares<kWithin, Input>(s, x, e, i, norm));
  const A x_i = Input::of(device::read(x + i));
  device::store(static_cast<S*>(a.grad_x) + i,
                Input::gradient(x_i, norm.gradient(gradient(e, i) * p, x_i, sum)));
}

}  // namespace fastseq::cuda
