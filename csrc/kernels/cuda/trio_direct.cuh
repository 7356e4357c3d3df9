// ReLU -> LRN -> max-pool for windows that no tile has room for, and for those of more than 256
// places: right, deterministic, and slow.
#pragma once

#include "trio_tile.cuh"

namespace fastseq::cuda {

// For windows that no tile has room for: a thread is an output and normalizes what it looks at.
template <class S, class O>
FASTSEQ_KERNEL_OF(device::kBlock, 3)
trio_direct_forward(Of<S, TrioForward> a, Norm<S, 0> norm, Window<false> window) {
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

template <class S, class O>
FASTSEQ_KERNEL_OF(device::kBlock, 3)
trio_direct_backward(Of<S, TrioBackward> a, Norm<S, 0> norm, Window<false> window) {
  direct_backward<S, false, Relu>(a, norm, chosen<S, O>(a, window));
}

}  // namespace fastseq::cuda
