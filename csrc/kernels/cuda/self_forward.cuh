// The recurrence in one launch: a block owns eight rows of the batch, keeps W_hh in registers for
// all steps and h in shared memory, and needs nothing of other blocks. Forward, dense batches, H to
// 128 (TF32: LSTM to 96, GRU to 96). Nothing but its tests calls it yet.
//
// A warp owns 8 or 16 units with all their gates. W_hh is the left operand of the product, h the
// right one: the eight rows of the batch are its columns. Each half of a tile's 16 rows is one gate
// of eight units, in an order in which a lane ends up with all gates of its units and rows, so that
// the cell needs no shuffle: half number `octet * G + gate`, two of them a tile. There is one
// barrier a step, since h is read from one buffer and written to the other.
//
// Not measured. Estimated a step at H = 128, bfloat16, LSTM: 16 products a warp, four warps a
// scheduler, in chains of eight (0.15 to 0.25 us), the cell (0.1 to 0.15), ldmatrix and the barrier
// (0.1); where pre-activations come from DRAM and not from L2, up to 0.5 us of waiting for them.
#pragma once

#include "../cells.h"
#include "common.h"
#include "mma.h"

namespace fastseq::cuda {

// S as for RecurrenceForward, of which this is the part without lengths and projection.
struct SelfForward {
  const void* pre;        // S [T, B, G*H]
  const void* h0;         // S [B, H]
  const void* c0;         // S [B, H]     LSTM only
  const void* weight_hh;  // S [G*H, H]
  const void* bias_hn;    // S [H]        GRU only, may be null
  void* y;                // S [T, B, H]
  void* h_n;              // S [B, H]
  void* c_n;              // S [B, H]     LSTM only
  void* gates;            // S [T, B, C*H]   null when nothing is to be saved
  void* cells;            // A [T, B, H]     LSTM only, null likewise
  int64_t steps, batch, hidden;
  bool reverse;
};

constexpr int kSelfRows = 8;  // of the batch, a block

// What multiplies numbers of S.
template <class S>
struct Factor {
  using type = S;
  static FASTSEQ_DEVICE S of(float x) { return device::from_float<S>(x); }
};
template <>
struct Factor<float> {
  using type = device::Tf32;
  static FASTSEQ_DEVICE device::Tf32 of(float x) { return device::to_tf32(x); }
};

// H to kHidden.
template <class S, class C, int kHidden>
struct SelfBlock : Of<S, SelfForward> {
  using F = typename Factor<S>::type;
  // Eights of units in a warp: its tiles are whole.
  static constexpr int kOctets = C::kGates % 2 ? 2 : 1;
  static constexpr int kTiles = C::kGates * kOctets / 2;
  static constexpr int kThreads = kHidden / (8 * kOctets) * device::kWarp, kBlocks = 1;
  static constexpr int kSteps = kHidden / device::kDepth<F>;     // products along K
  static constexpr int kRow = 16 / static_cast<int>(sizeof(F));  // numbers in a row of ldmatrix
  // A row of h; the 16 bytes beyond it put neighbouring rows into different banks.
  static constexpr int kPitch = kHidden + kRow;
  static constexpr int64_t kShared = int64_t{2} * kSelfRows * kPitch * sizeof(F);
  static_assert(kSteps % 2 == 0, "h is read two products at a time");
  // A multiprocessor has 65,536 registers; a lane needs some 56 beside its weights.
  static constexpr int kWeights = kTiles * kSteps * 4;
  static_assert(kWeights <= 160 && (kWeights + 56) * kThreads <= 65536);

  explicit SelfBlock(const SelfForward& a) : Of<S, SelfForward>(a) {}
};

// Four bytes of row `row` of W_hh, from column k on; zeros beyond its ends.
template <class S>
FASTSEQ_DEVICE uint32_t weights_at(const SelfForward& a, int row, int k, bool inside) {
  const int H = static_cast<int>(a.hidden);
  const S* const w = static_cast<const S*>(a.weight_hh) + row * H + k;
  const S low = inside && k < H ? device::memory::load(w) : S{};
  if constexpr (sizeof(S) == 4) {
    return device::to_tf32(low).bits;
  } else {
    const S high = inside && k + 1 < H ? device::memory::load(w + 1) : S{};
    return uint32_t{low.bits} | uint32_t{high.bits} << 16;
  }
}

template <class S, class C, int kHidden>
FASTSEQ_KERNEL_FOR(SelfBlock<S, C, kHidden>)
self_forward_kernel(SelfBlock<S, C, kHidden> a) {
  using Block = SelfBlock<S, C, kHidden>;
  using F = typename Block::F;
  constexpr int G = C::kGates, kTiles = Block::kTiles, kSteps = Block::kSteps;
  constexpr int kCells = 2 * Block::kOctets, kPitch = Block::kPitch;
  const int H = static_cast<int>(a.hidden), B = static_cast<int>(a.batch);
  const int steps = static_cast<int>(a.steps);
  const int warp = device::thread_index() / device::kWarp;
  const int lane = device::thread_index() % device::kWarp, g = lane / 4, q = lane % 4;
  const device::Shared<F> states(0, 2 * kSelfRows * kPitch);

  // A lane's cells: unit g of each eight of its warp, rows 2q and 2q + 1 of its block. Where cell j
  // lies in a step of a tensor whose rows hold `width` times H, at the i-th of these.
  const int unit = warp * Block::kOctets * 8 + g;
  const int row = static_cast<int>(device::block_index()) * kSelfRows + 2 * q;
  const auto inside = [&](int j) { return unit + j / 2 * 8 < H && row + j % 2 < B; };
  const auto place = [&](int j, int width, int i) {
    return ((row + j % 2) * width + i) * H + unit + j / 2 * 8;
  };
  const auto keep = [&](int buffer, int j, float h) {
    const int at = (buffer * kSelfRows + 2 * q + j % 2) * kPitch + unit + j / 2 * 8;
    states.set(at, Factor<S>::of(h));
  };

  uint32_t w[kTiles][kSteps][4];
  FASTSEQ_UNROLL(16) for (int s = 0; s < kSteps; ++s) {
    FASTSEQ_UNROLL(4) for (int m = 0; m < kTiles; ++m) {
      FASTSEQ_UNROLL(4) for (int i = 0; i < 4; ++i) {
        const int half = 2 * m + i % 2, of = unit + half / G * 8;
        const int k = (2 * s + i / 2) * Block::kRow + q * (Block::kRow / 4);
        w[m][s][i] = weights_at<S>(a, half % G * H + of, k, of < H);
      }
    }
  }

  float h[kCells], c[kCells], bias[Block::kOctets] = {};
  FASTSEQ_UNROLL(4) for (int j = 0; j < kCells; ++j) {
    const int i = place(j, 1, 0);
    h[j] = inside(j) ? device::load(static_cast<const S*>(a.h0) + i) : 0.0f;
    c[j] = 0;
    if constexpr (C::kHasCellState) {
      if (inside(j)) c[j] = device::load(static_cast<const S*>(a.c0) + i);
    }
    keep(0, j, h[j]);
  }
  if constexpr (C::kSplitsGates) {
    FASTSEQ_UNROLL(2) for (int o = 0; o < Block::kOctets; ++o) {
      if (a.bias_hn && unit + o * 8 < H) {
        bias[o] = device::load(static_cast<const S*>(a.bias_hn) + unit + o * 8);
      }
    }
  }
  device::sync();

  for (int step = 0; step < steps; ++step) {
    const int t = a.reverse ? steps - 1 - step : step, now = step % 2;
    const int64_t at = int64_t{t} * B * H;
    // Under way while the products are made.
    float x[kCells][G];
    const S* const pre = static_cast<const S*>(a.pre) + at * G;
    FASTSEQ_UNROLL(4) for (int j = 0; j < kCells; ++j) {
      FASTSEQ_UNROLL(4) for (int gate = 0; gate < G; ++gate) {
        x[j][gate] = inside(j) ? device::load(pre + place(j, G, gate)) : 0.0f;
      }
    }
    float sums[kTiles][4] = {};
    FASTSEQ_UNROLL(8) for (int s = 0; s < kSteps; s += 2) {
      uint32_t both[4];  // of two products: rows of h, 16 bytes of each in a matrix
      const int from = (now * kSelfRows + lane % 8) * kPitch;
      device::load_matrices(states, from + (2 * s + lane / 8) * Block::kRow, both);
      const uint32_t first[2] = {both[0], both[1]}, second[2] = {both[2], both[3]};
      FASTSEQ_UNROLL(4) for (int m = 0; m < kTiles; ++m) device::mma<F>(sums[m], w[m][s], first);
      FASTSEQ_UNROLL(4)
      for (int m = 0; m < kTiles; ++m) device::mma<F>(sums[m], w[m][s + 1], second);
    }
    FASTSEQ_UNROLL(4) for (int j = 0; j < kCells; ++j) {
      float r[G], cache[C::kCached + 1], next = 0;
      FASTSEQ_UNROLL(4) for (int gate = 0; gate < G; ++gate) {
        const int half = j / 2 * G + gate;
        r[gate] = sums[half / 2][half % 2 * 2 + j % 2];
      }
      if constexpr (C::kSplitsGates) r[2] += bias[j / 2];
      C::template forward<device::Math>(x[j], r, h[j], c[j], kNoZone<float>, cache, c[j], next);
      h[j] = inside(j) ? device::round_to<S>(next) : 0.0f;
      keep(1 - now, j, h[j]);
      if (!inside(j)) continue;
      const int i = place(j, 1, 0);
      device::store(static_cast<S*>(a.y) + at + i, h[j]);
      if constexpr (C::kHasCellState) {
        if (a.cells) device::store(static_cast<float*>(a.cells) + at + i, c[j]);
      }
      if (a.gates) {
        S* const gates = static_cast<S*>(a.gates) + at * C::kCached;
        FASTSEQ_UNROLL(4) for (int k = 0; k < C::kCached; ++k) {
          device::store(gates + place(j, C::kCached, k), cache[k]);
        }
      }
      if (step + 1 < steps) continue;
      device::store(static_cast<S*>(a.h_n) + i, h[j]);
      if constexpr (C::kHasCellState) device::store(static_cast<S*>(a.c_n) + i, c[j]);
    }
    device::sync();
  }
}

template <class S, class C, int kHidden>
const char* self_forward(const SelfForward& a, device::Stream stream) {
  using Block = SelfBlock<S, C, kHidden>;
  if (a.hidden > kHidden) return "hidden_size is larger than the kernel";
  if (a.batch * a.hidden * 4 > 0x7fffffff) return "the batch is larger than the kernel's indices";
  const device::Grid grid{divide_up(a.batch, kSelfRows), Block::kThreads, Block::kShared};
  return device::launch(self_forward_kernel<S, C, kHidden>, grid, stream, Block(a));
}

}  // namespace fastseq::cuda
