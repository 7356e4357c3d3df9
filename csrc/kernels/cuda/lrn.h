// The arithmetic of local response normalization, for all its kernels: y = x s^-beta with
// s = k + scale * sum of x^2, and dx = g s^-beta - 2 scale beta x * sum of t, t = g x s^(-beta-1).
// Sums run over the window from left to right by fma, so that all kernels agree to the last bit.
#pragma once

#include "common.h"

namespace fastseq::cuda {

using device::Math;

enum class Power : int { kThreeQuarters, kHalf, kOne, kAny };

inline bool is_fast(double beta) { return beta == 0.75 || beta == 0.5 || beta == 1; }

// The window: N channels, of which the compiler then knows, or for N = 0 any number of them, and
// any beta.
template <class A, int N>
struct NormWindow {
  explicit NormWindow(const LrnWindow&) {}
  static FASTSEQ_HD int64_t before() { return N / 2; }
  static FASTSEQ_HD int64_t after() { return (N - 1) / 2; }
};
template <class A>
struct NormWindow<A, 0> {
  A beta;
  int64_t before_, after_;

  explicit NormWindow(const LrnWindow& w)
      : beta(static_cast<A>(w.beta)), before_(w.before()), after_(w.after()) {}
  FASTSEQ_HD int64_t before() const { return before_; }
  FASTSEQ_HD int64_t after() const { return after_; }
};

// What kernels read of LRN's parameters. N > 0: beta is one of those that need no pow, whose code
// would be repeated in every unrolled step.
template <class A, int N>
struct Normalizer : NormWindow<A, N> {
  A scale, k;
  A slope;  // 2 scale beta
  Power power;

  explicit Normalizer(const LrnWindow& w)
      : NormWindow<A, N>(w),
        scale(static_cast<A>(w.scale())),
        k(static_cast<A>(w.k)),
        slope(static_cast<A>(2 * w.scale() * w.beta)),
        power(w.beta == 0.75  ? Power::kThreeQuarters
              : w.beta == 0.5 ? Power::kHalf
              : w.beta == 1   ? Power::kOne
                              : Power::kAny) {}

  // s^-beta from the window's sum of squares. Zero, infinity and NaN come out as from pow.
  FASTSEQ_DEVICE A factor(A sum) const {
    const A s = Math::fma(scale, sum, k);
    if (power == Power::kThreeQuarters) {
      const A r = Math::rsqrt(s);
      return r * Math::root(r);
    }
    if (power == Power::kHalf) return Math::rsqrt(s);
    if constexpr (N == 0) {
      if (power == Power::kAny) return Math::power(s, -this->beta);
    }
    return A(1) / s;
  }

  // s^-beta and s^(-beta-1).
  FASTSEQ_DEVICE void factors(A sum, A& p, A& q) const {
    const A s = Math::fma(scale, sum, k);
    if constexpr (N == 0) {
      if (power == Power::kAny) {
        p = Math::power(s, -this->beta);
        q = p / s;
        return;
      }
    }
    if (power == Power::kOne) {
      p = A(1) / s;
      q = p * p;
    } else {
      const A r = Math::rsqrt(s);
      p = power == Power::kHalf ? r : r * Math::root(r);
      q = p * r * r;
    }
  }

  // dx from g s^-beta, x and the sum of t.
  FASTSEQ_DEVICE A gradient(A gp, A x, A sum) const { return Math::fma(-slope * x, sum, gp); }
};

template <class S, int N>
using Norm = Normalizer<accumulate_t<S>, N>;

template <class A>
FASTSEQ_DEVICE A add_square(A sum, A x) {
  return Math::fma(x, x, sum);
}
// How a window's sums add: squares of x, or t as it is.
struct AddSquare {
  template <class A>
  FASTSEQ_DEVICE A operator()(A sum, A x) const {
    return add_square(sum, x);
  }
};
struct Add {
  template <class A>
  FASTSEQ_DEVICE A operator()(A sum, A t) const {
    return sum + t;
  }
};

// f(Constant<N>). Doubles, which are for checking gradients, have the kernels for any size alone.
template <class S, class F>
const char* with_size(const LrnWindow& lrn, const F& f) {
  if constexpr (sizeof(S) < 8) {
    if (is_fast(lrn.beta) && lrn.size == 3) return f(Constant<3>{});
    if (is_fast(lrn.beta) && lrn.size == 5) return f(Constant<5>{});
  }
  return f(Constant<0>{});
}

// The last N values of a walk, oldest first; in registers, because every index is a constant.
template <class A, int N>
struct Ring {
  A value[N] = {};

  FASTSEQ_DEVICE void push(A x) {
    FASTSEQ_UNROLL(N) for (int i = 0; i + 1 < N; ++i) value[i] = value[i + 1];
    value[N - 1] = x;
  }
  FASTSEQ_DEVICE A squares() const {
    A sum = 0;
    FASTSEQ_UNROLL(N) for (int i = 0; i < N; ++i) sum = add_square(sum, value[i]);
    return sum;
  }
  FASTSEQ_DEVICE A sum() const {
    A sum = 0;
    FASTSEQ_UNROLL(N) for (int i = 0; i < N; ++i) sum += value[i];
    return sum;
  }
};

// What LRN reads its input as: itself, or through the trio's ReLU.
struct Identity {
  template <class A>
  FASTSEQ_DEVICE static A of(A x) {
    return x;
  }
  template <class A>
  FASTSEQ_DEVICE static A gradient(A, A dx) {
    return dx;
  }
};
struct Relu {
  template <class A>
  FASTSEQ_DEVICE static A of(A x) {
    return Math::relu(x);
  }
  // From relu(x): relu(x) <= 0 where x <= 0.
  template <class A>
  FASTSEQ_DEVICE static A gradient(A relu, A dx) {
    return Math::relu_gradient(relu, dx);
  }
};

}  // namespace fastseq::cuda
