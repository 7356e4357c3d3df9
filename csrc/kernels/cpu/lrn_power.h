// s^-beta and s^(-beta-1), the powers that local response normalization divides by. The betas in
// use (0.75, 0.5, 1) cost a root or two; any other one a logarithm and an exponential.
#pragma once

#include <type_traits>

#include "vec.h"

namespace fastseq::FASTSEQ_CAPABILITY {

// kDynamic: one of the others, looked up at run time.
enum class Beta { kThreeQuarters, kHalf, kOne, kAny, kDynamic };

template <class F>
FASTSEQ_INLINE void with_beta(double beta, const F& f) {
  if (beta == 0.75) return f(std::integral_constant<Beta, Beta::kThreeQuarters>{});
  if (beta == 0.5) return f(std::integral_constant<Beta, Beta::kHalf>{});
  if (beta == 1.0) return f(std::integral_constant<Beta, Beta::kOne>{});
  return f(std::integral_constant<Beta, Beta::kAny>{});
}

FASTSEQ_INLINE VFloat sqrt_of(VFloat x) {
#if defined(__AVX512F__)
  return bits_as<VFloat>(_mm512_sqrt_ps(bits_as<__m512>(x)));
#elif defined(__AVX__)
  return bits_as<VFloat>(_mm256_sqrt_ps(bits_as<__m256>(x)));
#elif defined(__SSE2__)
  return bits_as<VFloat>(_mm_sqrt_ps(bits_as<__m128>(x)));
#else
  for (int i = 0; i < lanes_of<float>; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
#endif
}

FASTSEQ_INLINE VDouble sqrt_of(VDouble x) {
#if defined(__AVX512F__)
  return bits_as<VDouble>(_mm512_sqrt_pd(bits_as<__m512d>(x)));
#elif defined(__AVX__)
  return bits_as<VDouble>(_mm256_sqrt_pd(bits_as<__m256d>(x)));
#elif defined(__SSE2__)
  return bits_as<VDouble>(_mm_sqrt_pd(bits_as<__m128d>(x)));
#else
  for (int i = 0; i < lanes_of<double>; ++i) x[i] = __builtin_sqrt(x[i]);
  return x;
#endif
}

// r = s^-1/2 and s^-3/4, with the ends of pow(s, .): infinity at 0, 0 at infinity, NaN below 0.
template <class V>
FASTSEQ_INLINE void roots(V s, V& r, V& f) {
  r = 1 / sqrt_of(s);
  f = r * sqrt_of(r);
}

#if defined(__AVX512F__)
// A 14-bit estimate and one step of Newton's: a third of the time of a root and a division.
FASTSEQ_INLINE VFloat reciprocal_root(VFloat s, VFloat estimate) {
  return estimate + estimate * 0.5f * (1.0f - s * estimate * estimate);
}
FASTSEQ_INLINE VFloat root_estimate(VFloat s) {
  return bits_as<VFloat>(_mm512_rsqrt14_ps(bits_as<__m512>(s)));
}
FASTSEQ_INLINE void roots(VFloat s, VFloat& r, VFloat& f) {
  const VFloat end = root_estimate(s);  // exact at 0 and infinity, where Newton's step is not
  const VFloat root = reciprocal_root(s, end);
  const VFloat half = reciprocal_root(root, root_estimate(root));
  constexpr int kZeroOrInfinite = 0x02 | 0x04 | 0x08 | 0x10;
  const __mmask16 ends = _mm512_fpclass_ps_mask(bits_as<__m512>(s), kZeroOrInfinite);
  const auto chosen = [&](VFloat inside) {
    return bits_as<VFloat>(
        _mm512_mask_blend_ps(ends, bits_as<__m512>(inside), bits_as<__m512>(end)));
  };
  r = chosen(root);
  f = chosen(root * (root * half));
}
#endif

// Natural logarithm of a positive, finite number: x = 2^e m with m around 1, and the series of
// 2 atanh((m - 1) / (m + 1)), whose tail is below 2e-17.
FASTSEQ_INLINE VDouble log_of(VDouble x) {
  const auto tiny = x < 0x1p-1022;
  x = tiny ? x * 0x1p54 : x;
  const IDouble bits = bits_as<IDouble>(x) - 0x3fe6a09e667f3bcdLL;  // of sqrt(1/2)
  const IDouble e = bits >> 52;
  const VDouble m = bits_as<VDouble>(bits_as<IDouble>(x) - (e << 52));
  const VDouble z = (m - 1.0) / (m + 1.0), z2 = z * z;
  VDouble p = VDouble{} + 1.0 / 23.0;
  p = p * z2 + 1.0 / 21.0;
  p = p * z2 + 1.0 / 19.0;
  p = p * z2 + 1.0 / 17.0;
  p = p * z2 + 1.0 / 15.0;
  p = p * z2 + 1.0 / 13.0;
  p = p * z2 + 1.0 / 11.0;
  p = p * z2 + 1.0 / 9.0;
  p = p * z2 + 1.0 / 7.0;
  p = p * z2 + 1.0 / 5.0;
  p = p * z2 + 1.0 / 3.0;
  const VDouble n = __builtin_convertvector(e, VDouble) - (tiny ? VDouble{} + 54.0 : VDouble{});
  return n * 6.93147180369123816490e-01 + (n * 1.90821492927058770002e-10 + 2 * z + 2 * z * z2 * p);
}

// s^p. Whatever is not positive and finite goes to the C library, lane by lane.
FASTSEQ_INLINE VDouble power_of(VDouble s, double p) {
  VDouble out = exp_of(log_of(s) * p);
  const auto inside = (s > 0.0) & (s < __builtin_inf());
  bool all = true;
  for (int i = 0; i < lanes_of<double>; ++i) all &= inside[i] != 0;
  if (!all) {
    for (int i = 0; i < lanes_of<double>; ++i) {
      if (!inside[i]) out[i] = __builtin_pow(s[i], p);
    }
  }
  return out;
}
// In double, so that a power of 100 ulp of a logarithm does not become 100 ulp of the result.
FASTSEQ_INLINE VFloat power_of(VFloat s, double p) {
  constexpr int half = lanes_of<double>;
  float in[2 * half], out[2 * half];
  __builtin_memcpy(in, &s, sizeof(s));
  for (int part = 0; part < 2 * half; part += half) {
    VDouble x;
    for (int i = 0; i < half; ++i) x[i] = in[part + i];
    x = power_of(x, p);
    for (int i = 0; i < half; ++i) out[part + i] = static_cast<float>(x[i]);
  }
  __builtin_memcpy(&s, out, sizeof(s));
  return s;
}

template <class A, Beta kBeta>
struct Power {
  using V = Vec<A>;
  double beta;

  explicit Power(double beta) : beta(beta) {}

  // s^-beta
  FASTSEQ_INLINE V operator()(V s) const {
    V r, f;
    if constexpr (kBeta == Beta::kOne) {
      f = 1 / s;
    } else if constexpr (kBeta == Beta::kAny) {
      f = power_of(s, -beta);
    } else {
      roots(s, r, f);
      if constexpr (kBeta == Beta::kHalf) f = r;
    }
    return f;
  }
  // f = s^-beta and q = s^(-beta-1)
  FASTSEQ_INLINE void both(V s, V& f, V& q) const {
    if constexpr (kBeta == Beta::kOne) {
      f = 1 / s;
      q = f * f;
    } else if constexpr (kBeta == Beta::kAny) {
      f = power_of(s, -beta);
      q = f / s;
    } else {
      V r;
      roots(s, r, f);
      if constexpr (kBeta == Beta::kHalf) f = r;
      q = f * r * r;
    }
  }
};

template <class A>
struct Power<A, Beta::kDynamic> {
  using V = Vec<A>;
  double beta;

  explicit Power(double beta) : beta(beta) {}

  FASTSEQ_INLINE V operator()(V s) const {
    V f{};
    with_beta(beta, [&](auto kind) { f = Power<A, decltype(kind)::value>(beta)(s); });
    return f;
  }
  FASTSEQ_INLINE void both(V s, V& f, V& q) const {
    with_beta(beta, [&](auto kind) { Power<A, decltype(kind)::value>(beta).both(s, f, q); });
  }
};

}  // namespace fastseq::FASTSEQ_CAPABILITY
