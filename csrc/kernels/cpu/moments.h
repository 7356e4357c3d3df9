// What a layer norm divides by.
#pragma once

#include "rows.h"

namespace fastseq::FASTSEQ_CAPABILITY {

// Mean and 1/deviation of the first n numbers of `segments` rows, `stride` apart, for a layer norm.
// get(p, n): the vector at p, whose first n lanes count and whose others are zero.
template <class A>
struct Moments {
  A mean, scale;

  template <class Get>
  FASTSEQ_INLINE Moments(int64_t segments, int64_t n, double epsilon, const Get& get) {
    constexpr int64_t L = lanes_of<A>;
    const A count = static_cast<A>(segments * n);
    Vec<A> sum{};
    for (int64_t g = 0; g < segments; ++g) {
      for (int64_t u = 0; u < n; u += L) sum += first_of(get(g, u), n - u);
    }
    mean = total(sum) / count;
    Vec<A> square{};
    for (int64_t g = 0; g < segments; ++g) {
      for (int64_t u = 0; u < n; u += L) {
        const Vec<A> d = first_of(get(g, u) - mean, n - u);
        square += d * d;
      }
    }
    scale =
        1 / static_cast<A>(__builtin_sqrt(static_cast<double>(total(square) / count) + epsilon));
  }

  // v with zeros beyond its first n lanes.
  static FASTSEQ_INLINE Vec<A> first_of(Vec<A> v, int64_t n) {
    if (n >= lanes_of<A>) return v;
    A buffer[lanes_of<A>];
    store<A>(buffer, v);
    return load_n<A>(buffer, n);
  }
  static FASTSEQ_INLINE A total(Vec<A> v) {
    A sum = 0;
    for (int64_t i = 0; i < lanes_of<A>; ++i) sum += v[i];
    return sum;
  }
};

}  // namespace fastseq::FASTSEQ_CAPABILITY
