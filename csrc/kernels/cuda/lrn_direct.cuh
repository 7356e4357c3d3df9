// LRN for windows that no other kernel has room for: a thread is an element and reads its whole
// window from memory, in either memory format. Right, deterministic, and slow.
#pragma once

#include "lrn_planes.cuh"

namespace fastseq::cuda {

// An element of a batch of images.
struct Element {
  int64_t image, channel, h, w;

  FASTSEQ_DEVICE Element(int64_t n, int64_t c, int64_t row, int64_t column)
      : image(n), channel(c), h(row), w(column) {}
  // Of an index.
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
  return window_sum<kWithin, A>(s, e, i, norm.before(), norm.after(),
                                [&](A sum, int64_t j, int64_t, int64_t, int64_t) {
                                  return add_square(sum, Input::of(device::read(x + j)));
                                });
}

template <class S>
struct DirectForward {
  Images images;
  const S* x;
  S* y;
  Norm<S, 0> norm;
};

template <class S, bool kWithin>
FASTSEQ_KERNEL direct_forward(DirectForward<S> a) {
  const int64_t i = device::thread();
  if (i >= a.images.numel()) return;
  const Element e(a.images, i);
  const auto sum = direct_squares<kWithin, Identity>(a.images, a.x, e, i, a.norm);
  device::store(a.y + i, device::read(a.x + i) * a.norm.factor(sum));
}

// The gradient of LRN's output in element e, whose index is i.
template <class A, class Source>
FASTSEQ_DEVICE A direct_gradient(const Source& source, const Images& s, const Element& e,
                                 int64_t i) {
  if (!s.channels_last) return source.pixel(s, e.image, e.h * s.width + e.w).gradient(e.channel);
  A g[1];
  source.template run<1>(s, i, g);
  return g[0];
}

// `a` is a DirectBackward, or the trio's.
template <bool kWithin, class Input, class Arguments, class Source>
FASTSEQ_DEVICE void direct_backward_any(const Arguments& a, const Source& source) {
  using A = decltype(a.norm.k);
  const int64_t i = device::thread();
  if (i >= a.images.numel()) return;
  const Element e(a.images, i);
  A gp = 0;
  const A sum = window_sum<kWithin, A>(
      a.images, e, i, a.norm.after(), a.norm.before(),
      [&](A total, int64_t j, int64_t h, int64_t w, int64_t c) {
        const Element at(e.image, c, h, w);
        A p, q;
        a.norm.factors(direct_squares<kWithin, Input>(a.images, a.x, at, j, a.norm), p, q);
        const A g = direct_gradient<A>(source, a.images, at, j);
        if (j == i) gp = g * p;
        return total + g * Input::of(device::read(a.x + j)) * q;
      });
  const A x_i = Input::of(device::read(a.x + i));
  device::store(a.grad_x + i, Input::gradient(x_i, a.norm.gradient(gp, x_i, sum)));
}

template <class S>
struct DirectBackward {
  Images images;
  const S* grad_y;
  const S* x;
  S* grad_x;
  Norm<S, 0> norm;
};

template <class S, bool kWithin>
FASTSEQ_KERNEL_OF(device::kBlock, sizeof(S) == 8 ? 2 : 3)  // three of doubles spill on sm_120
direct_backward(DirectBackward<S> a) {
  direct_backward_any<kWithin, Identity>(a, Given<S>{a.grad_y});
}

}  // namespace fastseq::cuda
