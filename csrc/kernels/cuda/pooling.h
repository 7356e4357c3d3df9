// The arithmetic of max-pooling, for all its kernels: which place wins, and which outputs an input
// pixel finds its gradient in.
#pragma once

#include "common.h"

namespace fastseq::cuda {

// How a window steps along one side. kFixed: kernel 3, stride 2, dilation 1, of which the compiler
// then knows.
template <bool kFixed>
struct Steps {
  int kernel_, stride_, dilation_;

  explicit Steps(const PoolSide& s)
      : kernel_(static_cast<int>(s.kernel)),
        stride_(static_cast<int>(s.stride)),
        dilation_(static_cast<int>(s.dilation)) {}
  FASTSEQ_HD int kernel() const { return kernel_; }
  FASTSEQ_HD int stride() const { return stride_; }
  FASTSEQ_HD int dilation() const { return dilation_; }
};
template <>
struct Steps<true> {
  explicit Steps(const PoolSide&) {}
  static FASTSEQ_HD int kernel() { return 3; }
  static FASTSEQ_HD int stride() { return 2; }
  static FASTSEQ_HD int dilation() { return 1; }
};

// PoolSide in 32 bits, for index arithmetic in every thread.
template <bool kFixed>
struct Side : Steps<kFixed> {
  int padding, out;

  explicit Side(const PoolSide& s)
      : Steps<kFixed>(s), padding(static_cast<int>(s.padding)), out(static_cast<int>(s.out)) {}

  using Steps<kFixed>::kernel;
  using Steps<kFixed>::stride;
  using Steps<kFixed>::dilation;
  FASTSEQ_HD int start(int o) const { return o * stride() - padding; }
  FASTSEQ_HD int first(int o) const {
    const int s = start(o);
    return s >= 0 ? 0 : (-s + dilation() - 1) / dilation();
  }
  FASTSEQ_HD int last(int o, int pixels) const {
    const int room = pixels - start(o);
    const int fit = room <= 0 ? 0 : (room + dilation() - 1) / dilation();
    return fit < kernel() ? fit : kernel();
  }
  FASTSEQ_HD int lowest(int p) const {
    const int reach = p + padding - (kernel() - 1) * dilation();
    return reach <= 0 ? 0 : (reach + stride() - 1) / stride();
  }
  FASTSEQ_HD int highest(int p) const {
    const int o = (p + padding) / stride();
    return o < out ? o : out - 1;
  }
  // The place at which output o looks at pixel p, or -1. o is in [lowest(p), highest(p)].
  FASTSEQ_HD int place(int o, int p) const {
    const int distance = p - start(o);
    if (dilation() == 1) return distance;
    return distance % dilation() ? -1 : distance / dilation();
  }
  // Pixels that so many neighbouring outputs look at, holes included.
  FASTSEQ_HD int span(int outputs) const {
    return (outputs - 1) * stride() + (kernel() - 1) * dilation() + 1;
  }
};

template <bool kFixed>
struct Window {
  Side<kFixed> h, w;
  int height, width;  // of the input

  Window(const Images& images, const PoolWindow& pool)
      : h(pool.h),
        w(pool.w),
        height(static_cast<int>(images.height)),
        width(static_cast<int>(images.width)) {}

  FASTSEQ_HD int64_t outputs() const { return static_cast<int64_t>(h.out) * w.out; }
};

inline bool is_fixed(const PoolWindow& pool) {
  const auto fixed = [](const PoolSide& s) {
    return s.kernel == 3 && s.stride == 2 && s.dilation == 1;
  };
  return fixed(pool.h) && fixed(pool.w);
}

// Null, or why the window cannot be computed with in 32 bits; torch has the same limit.
inline const char* too_large(const Images& images, const PoolWindow& pool) {
  constexpr int64_t limit = int64_t{1} << 30;
  const auto large = [](const PoolSide& s, int64_t pixels) {
    return pixels >= limit || s.kernel >= limit || s.stride >= limit || s.dilation >= limit ||
           pixels + 2 * s.padding + s.kernel * s.dilation >= limit || s.out * s.stride >= limit;
  };
  if (large(pool.h, images.height) || large(pool.w, images.width) || pool.places() >= limit) {
    return "max-pooling needs images and windows of fewer than 2^30 pixels along each side";
  }
  return nullptr;
}

// The largest value so far and its place. Of equal values the first counts, of several NaN the
// last.
template <class A>
struct Best {
  A value = -INFINITY;
  int place = 0;  // to begin with, first_place()

  FASTSEQ_DEVICE void offer(A v, int at) {
    if (v > value || v != v) {
      value = v;
      place = at;
    }
  }
};

// Offers the places of output (oh, ow) that lie inside the image, in row-major order: take(place,
// row, column) for each, the latter counted from the window's start.
template <bool kFixed, class Take>
FASTSEQ_DEVICE void scan(const Window<kFixed>& window, int oh, int ow, const Take& take) {
  const int h0 = window.h.first(oh), h1 = window.h.last(oh, window.height);
  const int w0 = window.w.first(ow), w1 = window.w.last(ow, window.width);
  if constexpr (kFixed) {  // unrolled, so that all nine loads are under way at once
    FASTSEQ_UNROLL(3) for (int i = 0; i < 3; ++i) {
      FASTSEQ_UNROLL(3) for (int j = 0; j < 3; ++j) {
        if (i >= h0 && i < h1 && j >= w0 && j < w1) take(i * 3 + j, i, j);
      }
    }
  } else {
    for (int i = h0; i < h1; ++i) {
      for (int j = w0; j < w1; ++j) {
        take(i * window.w.kernel() + j, i * window.h.dilation(), j * window.w.dilation());
      }
    }
  }
}
template <bool kFixed>
FASTSEQ_DEVICE int first_place(const Window<kFixed>& window, int oh, int ow) {
  return window.h.first(oh) * window.w.kernel() + window.w.first(ow);
}

// A tensor of places, of windows that may have more than 256 of them. T: void, or const void.
template <class T>
struct AnyPlaces {
  T* tensor;  // may be null
  bool wide;  // of int32; else of bytes

  FASTSEQ_DEVICE int get(int64_t i) const {
    if (wide) return device::read(static_cast<const int32_t*>(tensor) + i);
    return device::read(static_cast<const uint8_t*>(tensor) + i);
  }
  FASTSEQ_DEVICE void set(int64_t i, int place) const {
    if (wide) {
      device::store(static_cast<int32_t*>(tensor) + i, place);
    } else {
      device::store(static_cast<uint8_t*>(tensor) + i, place);
    }
  }
};

// V neighbours of a tensor of places; of AnyPlaces one.
template <int V>
FASTSEQ_DEVICE void read_places(const uint8_t* places, int64_t at, int (&out)[V]) {
  device::read<V>(places + at, out);
}
template <int V>
FASTSEQ_DEVICE void read_places(const AnyPlaces<const void>& places, int64_t at, int (&out)[V]) {
  static_assert(V == 1);
  out[0] = places.get(at);
}
template <int V>
FASTSEQ_DEVICE void write_places(uint8_t* places, int64_t at, const int (&x)[V]) {
  if (places) device::write<V>(places + at, x);
}
template <int V>
FASTSEQ_DEVICE void write_places(const AnyPlaces<void>& places, int64_t at, const int (&x)[V]) {
  static_assert(V == 1);
  if (places.tensor) places.set(at, x[0]);
}

// The outputs that look at one input pixel, and the sum of the gradients of those that chose it.
template <bool kFixed>
class Gather {
 public:
  FASTSEQ_DEVICE Gather(const Window<kFixed>& window, int h, int w)
      : window_(window),
        h_(h),
        w_(w),
        h0_(window.h.lowest(h)),
        h1_(window.h.highest(h)),
        w0_(window.w.lowest(w)),
        w1_(window.w.highest(w)) {}

  // V neighbouring channels (or one) whose outputs start at `base`, `stride` elements apart.
  template <int V, class S, class Places>
  FASTSEQ_DEVICE void gradient(const S* grad_y, const Places& offsets, int64_t base, int64_t stride,
                               accumulate_t<S> (&g)[V]) const {
    FASTSEQ_UNROLL(V) for (int v = 0; v < V; ++v) g[v] = 0;
    const auto add = [&](int oh, int ow) {
      const int i = window_.h.place(oh, h_), j = window_.w.place(ow, w_);
      if (i < 0 || j < 0) return;
      const int place = i * window_.w.kernel() + j;
      const int64_t at = base + (static_cast<int64_t>(oh) * window_.w.out + ow) * stride;
      int chosen[V];
      read_places<V>(offsets, at, chosen);
      if constexpr (V == 1) {
        if (chosen[0] == place) g[0] += device::read(grad_y + at);
      } else {
        accumulate_t<S> grad[V];
        device::read<V>(grad_y + at, grad);
        FASTSEQ_UNROLL(V) for (int v = 0; v < V; ++v) {
          if (chosen[v] == place) g[v] += grad[v];
        }
      }
    };
    if constexpr (kFixed) {  // at most two by two
      FASTSEQ_UNROLL(2) for (int a = 0; a < 2; ++a) {
        FASTSEQ_UNROLL(2) for (int b = 0; b < 2; ++b) {
          if (h0_ + a <= h1_ && w0_ + b <= w1_) add(h0_ + a, w0_ + b);
        }
      }
    } else {
      for (int oh = h0_; oh <= h1_; ++oh) {
        for (int ow = w0_; ow <= w1_; ++ow) add(oh, ow);
      }
    }
  }

 private:
  const Window<kFixed>& window_;
  int h_, w_, h0_, h1_, w0_, w1_;
};

}  // namespace fastseq::cuda
