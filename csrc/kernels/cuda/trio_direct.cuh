// ReLU -> LRN -> max-pool for windows that no tile has room for, and for those of more than 256
// places: right, deterministic, and slow.
#pragma once

#include "trio_tile.cuh"

namespace fastseq::cuda {

// For windows that no tile has room for: a thread is an output and normalizes what it looks at.
template <class S>
struct TrioDirectForward {
  Images images;
  const S* x;
  S* y;
  AnyPlaces<void> offsets;  // may be null
  Norm<S, 0> norm;
  Window<false> window;
};

template <class S>
FASTSEQ_KERNEL_OF(device::kBlock, 3)
trio_direct_forward(TrioDirectForward<S> a) {
  using A = accumulate_t<S>;
  const Images& s = a.images;
  const Window<false>& window = a.window;
  Images out = s;
  out.height = window.h.out;
  out.width = window.w.out;
  const int64_t i = device::thread();
  if (i >= out.numel()) return;
  const Element e(out, i);
  const int oh = static_cast<int>(e.h), ow = static_cast<int>(e.w);
  Best<A> best{-INFINITY, first_place(window, oh, ow)};
  scan(window, oh, ow, [&](int place, int row, int column) {
    Element at = e;
    at.h = window.h.start(oh) + row;
    at.w = window.w.start(ow) + column;
    const int64_t j = at.image * s.channels * s.pixels() + at.channel * s.channel_stride() +
                      (at.h * s.width + at.w) * s.pixel_stride();
    const A factor = a.norm.factor(direct_squares<false, Relu>(s, a.x, at, j, a.norm));
    best.offer(device::round_to<S>(Math::relu(device::read(a.x + j)) * factor), place);
  });
  device::store(a.y + i, best.value);
  if (a.offsets.tensor) a.offsets.set(i, best.place);
}

template <class S>
struct TrioDirectBackward {
  Images images;
  const S* grad_y;
  AnyPlaces<const void> offsets;
  const S* x;
  S* grad_x;
  Norm<S, 0> norm;
  Window<false> window;
};

template <class S>
FASTSEQ_KERNEL_OF(device::kBlock, 3)
trio_direct_backward(TrioDirectBackward<S> a) {
  direct_backward_any<false, Relu>(a,
                                   Chosen<S, AnyPlaces<const void>>{a.grad_y, a.offsets, a.window});
}

}  // namespace fastseq::cuda
