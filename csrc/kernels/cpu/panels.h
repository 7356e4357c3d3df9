// A weight matrix as the register tiles read it: packed once per call into panels.
//
// A panel holds, for every k of the inner dimension, kWide vectors: one unit block of each gate
// (gated), or up to kWide blocks of neighbouring outputs (plain). So all gates of a unit meet in
// one tile and the cell runs in the epilogue.
#pragma once

#include "dot.h"

namespace fastseq::FASTSEQ_CAPABILITY {

constexpr int64_t kPlainWide = 4;

// Where the weight of output n (of gate g) and inner index k lies: src[g*gate + n*out + k*inner].
template <class S>
struct WeightView {
  const S* src;
  int64_t gate, out, inner;
};

struct PanelShape {
  int64_t outputs;  // n: units of one gate
  int64_t inner;    // K
  int64_t wide;     // vectors of a panel
  bool gated;       // the vectors are gates of one unit block
};

template <class D>
FASTSEQ_INLINE int64_t outputs_per_panel(const PanelShape& s) {
  constexpr int64_t L = lanes_of<typename D::Sum>;
  return s.gated ? L : s.wide * L;
}
template <class D>
FASTSEQ_INLINE int64_t panel_count(const PanelShape& s) {
  const int64_t per = outputs_per_panel<D>(s);
  return (s.outputs + per - 1) / per;
}
// Vectors of a panel: the last plain one has no more than its outputs fill.
template <class D>
FASTSEQ_INLINE int64_t panel_width(const PanelShape& s, int64_t panel) {
  constexpr int64_t L = lanes_of<typename D::Sum>;
  if (s.gated) return s.wide;
  const int64_t left = (s.outputs - panel * s.wide * L + L - 1) / L;
  return left < s.wide ? left : s.wide;
}
// Vectors of the inner dimension: pairs count as one.
template <class D>
FASTSEQ_INLINE int64_t inner_groups(int64_t inner) {
  return (inner + D::kPair - 1) / D::kPair;
}
template <class D>
FASTSEQ_INLINE int64_t panel_size(const PanelShape& s) {
  return inner_groups<D>(s.inner) * s.wide * lanes_of<typename D::Sum> * D::kPair;
}
template <class D>
FASTSEQ_INLINE int64_t packed_size(const PanelShape& s) {
  return panel_count<D>(s) * panel_size<D>(s);
}

#if defined(__AVX512F__)
// 16 lines of 16 words, `stride` words apart, turned: word i of line j goes to to[i * pitch + j].
FASTSEQ_INLINE void turn_16(const uint32_t* from, int64_t stride, uint32_t* to, int64_t pitch) {
  __m512i a[16], b[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_si512(from + i * stride);
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
    a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
    a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
    a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
  }
  // a[4 q + r], lane l of 4 words: word r + 4 l of lines 4 q to 4 q + 3.
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    const __m512i low = _mm512_shuffle_i32x4(a[r], a[4 + r], 0x44);
    const __m512i low2 = _mm512_shuffle_i32x4(a[8 + r], a[12 + r], 0x44);
    const __m512i high = _mm512_shuffle_i32x4(a[r], a[4 + r], 0xee);
    const __m512i high2 = _mm512_shuffle_i32x4(a[8 + r], a[12 + r], 0xee);
    _mm512_storeu_si512(to + r * pitch, _mm512_shuffle_i32x4(low, low2, 0x88));
    _mm512_storeu_si512(to + (r + 4) * pitch, _mm512_shuffle_i32x4(low, low2, 0xdd));
    _mm512_storeu_si512(to + (r + 8) * pitch, _mm512_shuffle_i32x4(high, high2, 0x88));
    _mm512_storeu_si512(to + (r + 12) * pitch, _mm512_shuffle_i32x4(high, high2, 0xdd));
  }
}
#endif

// Groups of up to 16 rows, the groups 16 words apart, turned: those of a row side by side.
FASTSEQ_INLINE void turn_groups(const void* from, int64_t groups, int64_t rows, void* to) {
#if defined(__AVX512F__)
  if (groups == 16 && rows == 16) {
    return turn_16(static_cast<const uint32_t*>(from), 16, static_cast<uint32_t*>(to), 16);
  }
#endif
  constexpr int64_t kWord = 4;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t g = 0; g < groups; ++g) {
      __builtin_memcpy(static_cast<char*>(to) + (row * groups + g) * kWord,
                       static_cast<const char*>(from) + (g * 16 + row) * kWord, kWord);
    }
  }
}

// Packs one vector of a panel from outputs whose inner dimension lies side by side: a transpose.
template <class D, class S>
void pack_turned(const S* from, int64_t out, int64_t valid, int64_t inner, typename D::Item* to,
                 int64_t row) {
  using A = typename D::Sum;
  constexpr int64_t L = lanes_of<A>;
  const int64_t groups = inner_groups<D>(inner);
  int64_t g0 = 0;
#if defined(__AVX512F__)
  // Where an item's group is one word in memory already.
  if constexpr (sizeof(S) * D::kPair == 4 && sizeof(S) == sizeof(typename D::Item)) {
    if (valid == L && out % D::kPair == 0) {
      for (; (g0 + 16) * D::kPair <= inner; g0 += 16) {
        turn_16(reinterpret_cast<const uint32_t*>(from + g0 * D::kPair), out / D::kPair,
                reinterpret_cast<uint32_t*>(to + g0 * row), row / D::kPair);
      }
    }
  }
#endif
  constexpr int64_t kBlock = 16;  // groups; turned in blocks that stay in the L1 cache
  for (; g0 < groups; g0 += kBlock) {
    const int64_t g1 = g0 + kBlock < groups ? g0 + kBlock : groups;
    A block[kBlock * D::kPair][L] = {};
    const int64_t k1 = g1 * D::kPair < inner ? g1 * D::kPair : inner;
    for (int64_t j = 0; j < valid; ++j) {
      const S* const line = from + j * out;
      for (int64_t k = g0 * D::kPair; k < k1; ++k) {
        if constexpr (sizeof(S) == sizeof(A)) {
          block[k - g0 * D::kPair][j] = line[k];
        } else {
          block[k - g0 * D::kPair][j] = load_n<A>(line + k, 1)[0];
        }
      }
    }
    for (int64_t g = g0; g < g1; ++g) {
      const A(*const two)[L] = block + (g - g0) * D::kPair;
      const Vec<A> v = joined<D>(load<A>(two[0]), load<A>(two[D::kPair - 1]));
      __builtin_memcpy(to + g * row, &v, sizeof(v));
    }
  }
}

// Packs one panel. Columns beyond the last output are zero.
template <class D, class S>
void pack_panel(const PanelShape& s, const WeightView<S>& w, int64_t panel,
                typename D::Item* packed) {
  using A = typename D::Sum;
  constexpr int64_t L = lanes_of<A>;
  const int64_t wide = panel_width<D>(s, panel), vector = L * D::kPair, row = wide * vector;
  const int64_t n0 = panel * outputs_per_panel<D>(s);
  typename D::Item* const to = packed + panel * panel_size<D>(s);
  for (int64_t v = 0; v < wide; ++v) {
    const int64_t block = s.gated ? n0 : n0 + v * L;
    const S* const from = w.src + (s.gated ? v * w.gate : 0) + block * w.out;
    const int64_t left = s.outputs - block;
    const int64_t valid = left < 0 ? 0 : left < L ? left : L;
    if (w.out != 1) {
      pack_turned<D>(from, w.out, valid, s.inner, to + v * vector, row);
      continue;
    }
    for (int64_t g = 0; g < inner_groups<D>(s.inner); ++g) {  // outputs lie side by side
      const int64_t k = g * D::kPair;
      const Vec<A> first = load_n<A>(from + k * w.inner, valid);
      const Vec<A> second = k + 1 < s.inner ? load_n<A>(from + (k + 1) * w.inner, valid) : Vec<A>{};
      const Vec<A> both = joined<D>(first, second);
      __builtin_memcpy(to + g * row + v * vector, &both, sizeof(both));
    }
  }
}

}  // namespace fastseq::FASTSEQ_CAPABILITY
