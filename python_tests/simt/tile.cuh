// A tile of a matrix product through shared memory. Written once; the machine runs it, and nvcc
// compiles it (test_cuda_compile.py).
#pragma once

#include "../../csrc/kernels/cuda/mma.h"

namespace fastseq::cases {

// c [16, 8] = a [16, K] b [8, K]^T, K being two depths of a product.
struct Tile {
  enum Mistake { kNone, kSwappedA, kSwappedB, kRowsOfC, kNoBarrier, kUnrounded, kMisaligned };

  static constexpr int kThreads = 32, kBlocks = 1;
  const float *a, *b;
  float* c;
  int mistake;
};

FASTSEQ_DEVICE void swap(uint32_t& x, uint32_t& y) {
  const uint32_t was = x;
  x = y;
  y = was;
}

template <class S>
FASTSEQ_DEVICE S number(float x, int mistake) {
  if constexpr (sizeof(S) == 4) {
    device::Tf32 rounded = device::to_tf32(x);
    if (mistake == Tile::kUnrounded) __builtin_memcpy(&rounded, &x, sizeof x);
    return rounded;
  } else {
    return device::from_float<S>(x);
  }
}

template <class S>
FASTSEQ_KERNEL_FOR(Tile)
on_tile(Tile t) {
  constexpr int K = 2 * device::kDepth<S>, kRow = 16 / sizeof(S);
  const int lane = device::thread_index(), m = lane / 8, r = lane % 8, mistake = t.mistake;
  const device::Shared<S> a(0, 16 * K + kRow), b((16 * K + kRow) * sizeof(S), 8 * K);
  for (int i = lane; i < 16 * K; i += 32) a.set(i, number<S>(device::load(t.a + i), mistake));
  for (int i = lane; i < 8 * K; i += 32) b.set(i, number<S>(device::load(t.b + i), mistake));
  if (mistake != Tile::kNoBarrier) device::sync_warp();
  float c[4] = {};
  for (int k = 0; k < K; k += device::kDepth<S>) {
    uint32_t fa[4], fb[2];
    const int shift = mistake == Tile::kMisaligned ? 1 : 0;
    device::load_matrices(a, (r + m % 2 * 8) * K + k + m / 2 * kRow + shift, fa);
    device::load_matrices(b, r * K + k + m % 2 * kRow, fb);
    if (mistake == Tile::kSwappedA) swap(fa[1], fa[2]);
    if (mistake == Tile::kSwappedB) swap(fb[0], fb[1]);
    device::mma<S>(c, fa, fb);
  }
  for (int i = 0; i < 4; ++i) {
    const int half = mistake == Tile::kRowsOfC ? i % 2 : i / 2,
              low = mistake == Tile::kRowsOfC ? i / 2 : i % 2;
    device::store(t.c + (lane / 4 + half * 8) * 8 + lane % 4 * 2 + low, c[i]);
  }
}

}  // namespace fastseq::cases
