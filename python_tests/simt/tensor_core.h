// What mma.h asks of the machine: products and matrices that a warp holds together. Where which
// number lies is said a second time, in PTX's own words, by test_mma.py.
#pragma once

#include <cstring>

#include "on_host.h"

namespace fastseq::simt {

// Where a lane's registers lie in the matrices, numbers of 32 / kDepth bytes.
template <int kDepth>
struct Fragments {
  static constexpr int kEach = kDepth / 8;  // numbers in a register

  struct Place {
    int row, column;
  };
  static Place a(int lane, int reg, int i) {
    return {lane / 4 + reg % 2 * 8, lane % 4 * kEach + i + reg / 2 * (kDepth / 2)};
  }
  static Place b(int lane, int reg, int i) {
    return {lane % 4 * kEach + i + reg * (kDepth / 2), lane / 4};
  }
  static Place c(int lane, int i) { return {lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2}; }
};

// The sum of all products and c, rounded once: a GPU rounds on its way, in an order of its own.
template <int kDepth, class Number>
struct Product {
  float (&c)[4];
  const uint32_t (&a)[4];
  const uint32_t (&b)[2];
  Number number;  // of a register, by place

  static void run(void* const* lanes) {
    using F = Fragments<kDepth>;
    double a[16][kDepth], b[kDepth][8];
    for (int lane = 0; lane < 32; ++lane) {
      const Product& one = *static_cast<const Product*>(lanes[lane]);
      for (int i = 0; i < F::kEach; ++i) {
        for (int reg = 0; reg < 4; ++reg) {
          const auto at = F::a(lane, reg, i);
          a[at.row][at.column] = one.number(one.a[reg], i);
        }
        for (int reg = 0; reg < 2; ++reg) {
          const auto at = F::b(lane, reg, i);
          b[at.row][at.column] = one.number(one.b[reg], i);
        }
      }
    }
    for (int lane = 0; lane < 32; ++lane) {
      const Product& one = *static_cast<const Product*>(lanes[lane]);
      for (int i = 0; i < 4; ++i) {
        const auto at = F::c(lane, i);
        double sum = one.c[i];
        for (int k = 0; k < kDepth; ++k) sum += a[at.row][k] * b[k][at.column];
        one.c[i] = static_cast<float>(sum);
      }
    }
  }
};
template <int kDepth, class Number>
void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Number number,
         const Site& site) {
  Product<kDepth, Number> mine{c, a, b, number};
  machine.collective(&Product<kDepth, Number>::run, &mine, site);
}

// Rounds to 10 bits of fraction, ties away from zero.
inline uint32_t to_tf32(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if (x != x) return 0x7fffffff & ~uint32_t{0x1fff};
  if ((bits & 0x7fffffff) == 0x7f800000) return bits;
  return (bits + 0x1000) & ~uint32_t{0x1fff};
}
inline float from_tf32(uint32_t bits) {
  if (bits & 0x1fff) throw Fault("multiplies a number that is not rounded to TF32");
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// ldmatrix: each lane reads the row that it names, and gets its part of all rows.
template <int N, bool kTransposed>
struct Matrices {
  unsigned char row[16];
  uint32_t (&out)[N];

  static void run(void* const* lanes) {
    for (int lane = 0; lane < 32; ++lane) {
      for (int m = 0; m < N; ++m) {
        const auto row = [&](int r) { return static_cast<Matrices*>(lanes[8 * m + r])->row; };
        uint32_t& out = static_cast<Matrices*>(lanes[lane])->out[m];
        if constexpr (kTransposed) {
          uint16_t halves[2];
          for (int i = 0; i < 2; ++i) {
            std::memcpy(&halves[i], row(lane % 4 * 2 + i) + lane / 4 * 2, 2);
          }
          out = halves[0] | uint32_t{halves[1]} << 16;
        } else {
          std::memcpy(&out, row(lane / 4) + lane % 4 * 4, 4);
        }
      }
    }
  }
};
template <int N, bool kTransposed, class S>
void load_matrices(const Shared<S>& s, int i, uint32_t (&out)[N], const Site& site) {
  Matrices<N, kTransposed> mine{{}, out};
  if (lane() < 8 * N) {
    if (s.address(i) % 16) machine.fail("names a row of a matrix that is not aligned to 16 bytes");
    constexpr int kEach = static_cast<int>(16 / sizeof(S));
    for (int j = 0; j < kEach; ++j) {
      const S value = s.get(i + j);
      std::memcpy(mine.row + j * sizeof(S), &value, sizeof(S));
    }
  }
  machine.collective(&Matrices<N, kTransposed>::run, &mine, site);
}

}  // namespace fastseq::simt
