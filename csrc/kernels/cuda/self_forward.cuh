// The recurrence in one launch: a block owns eight rows of the batch, keeps W_hh in registers for
// all steps and h in shared memory, and needs nothing of other blocks.
//
// A warp owns 8 or 16 units with all their gates. W_hh is the left operand of the product, h the
// right one: the eight rows of the batch are its columns. Each half of a tile's 16 rows is one gate
// of eight units, in an order in which a lane ends up with all gates of its units and rows, so that
// the cell needs no shuffle: half number `octet * G + gate`, two of them a tile. There is one
// barrier a step, since h is read from one buffer and written to the other. What a step reads of
// memory was asked for in the step before.
//
// Not measured. Estimated a step at H = 128, bfloat16, LSTM: 1.2 to 1.5 us. What bounds it is the
// issue of instructions: the loop of sm_90 has 640 of them, some of which are slow paths of
// divisions, and four warps a scheduler make 2,300 clocks. The products hide behind that (64 a
// tensor core, of 8 clocks each on an A100 and 5 on an H100), and so do the loads. Once a launch:
// W_hh, 128 KB a block, from L2 (2 to 3 us). cuDNN's kernel for few units was published at 2.65 us
// (H100, H = 128, 16 rows).
#pragma once

#include "self_block.cuh"

namespace fastseq::cuda {

// S as for RecurrenceForward, of which this is the part without a projection.
struct SelfForward {
  TableOfSteps seq;
  Resets resets;
  int64_t hidden;
  const void* pre;        // S [N, G*H]
  const void* h0;         // S [B, H]
  const void* c0;         // S [B, H]     LSTM only
  const void* weight_hh;  // S [G*H, H]
  const void* bias_hn;    // S [H]        GRU only, may be null
  void* y;                // S [N, H]
  void* h_n;              // S [B, H]
  void* c_n;              // S [B, H]     LSTM only
  void* gates;            // S [N, C*H]   null when nothing is to be saved
  void* cells;            // A [N, H]     LSTM only, null likewise
};

// H to kHidden.
template <class S, class C, int kHidden>
struct SelfForwardBlock : Of<S, SelfForward> {
  using F = factor_t<S>;
  // Eights of units in a warp: its tiles are whole.
  static constexpr int kOctets = C::kGates % 2 ? 2 : 1;
  static constexpr int kTiles = C::kGates * kOctets / 2;
  static constexpr int kThreads = kHidden / (8 * kOctets) * device::kWarp, kBlocks = 1;
  static constexpr int kSteps = kHidden / device::kDepth<F>;  // products along K
  // A row of h; the 16 bytes beyond it put neighbouring rows into different banks.
  static constexpr int kPitch = kHidden + kMatrixRow<F>;
  static constexpr int64_t kShared = int64_t{2} * kSelfRows * kPitch * sizeof(F);
  static_assert(kSteps % 2 == 0, "h is read two products at a time");
  // A lane needs some 56 registers beside its weights.
  static constexpr int kWeights = kTiles * kSteps * 4;
  static_assert(kWeights + 56 <= registers_of(kThreads) && kShared <= device::kSharedLimit);

  explicit SelfForwardBlock(const SelfForward& a) : Of<S, SelfForward>(a) {}
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
FASTSEQ_DEVICE void self_forward_steps(const SelfForwardBlock<S, C, kHidden>& a) {
  using Block = SelfForwardBlock<S, C, kHidden>;
  using F = typename Block::F;
  constexpr int G = C::kGates, kTiles = Block::kTiles, kSteps = Block::kSteps;
  constexpr int kCells = 2 * Block::kOctets, kPitch = Block::kPitch;
  SelfLane at(a.seq, a.hidden, 8 * Block::kOctets);
  const int H = at.hidden;
  const device::Shared<F> states(0, 2 * kSelfRows * kPitch);
  const auto keep = [&](int buffer, int j, float h) {
    const int to = (buffer * kSelfRows + 2 * at.q + j % 2) * kPitch + at.unit + j / 2 * 8;
    states.set(to, Factor<S>::of(h));
  };

  uint32_t w[kTiles][kSteps][4];
  FASTSEQ_UNROLL(16) for (int s = 0; s < kSteps; ++s) {
    FASTSEQ_UNROLL(4) for (int m = 0; m < kTiles; ++m) {
      FASTSEQ_UNROLL(4) for (int i = 0; i < 4; ++i) {
        const int half = 2 * m + i % 2, of = at.unit + half / G * 8;
        const int k = (2 * s + i / 2) * kMatrixRow<F> + at.q * (kMatrixRow<F> / 4);
        w[m][s][i] = weights_at<S>(a, (half % G + at.way.number * G) * H + of, k, of < H);
      }
    }
  }

  float h[kCells], c[kCells], bias[Block::kOctets] = {};
  FASTSEQ_UNROLL(4) for (int j = 0; j < kCells; ++j) {
    h[j] = at.inside(j) ? device::load(at.of(static_cast<const S*>(a.h0), j, 1, 0)) : 0.0f;
    c[j] = 0;
    if constexpr (C::kHasCellState) {
      if (at.inside(j)) c[j] = device::load(at.of(static_cast<const S*>(a.c0), j, 1, 0));
    }
    if (a.resets.before(at.way, at.way.reverse() ? at.steps - 1 : 0, at.row + j % 2,
                        at.lengths[j % 2])) {
      h[j] = at.template replacing<S>(a.resets.h, j);
      c[j] = at.template replacing<S>(a.resets.c, j);
    }
    keep(0, j, h[j]);
  }
  if constexpr (C::kSplitsGates) {
    FASTSEQ_UNROLL(2) for (int o = 0; o < Block::kOctets; ++o) {
      if (a.bias_hn && at.unit + o * 8 < H) {
        bias[o] =
            device::load(static_cast<const S*>(a.bias_hn) + at.way.number * H + at.unit + o * 8);
      }
    }
  }

  // Where step number `step` of the recurrence is in time, and at which row; and what it reads.
  const auto time = [&](int step) { return at.way.reverse() ? at.steps - 1 - step : step; };
  const auto start = [&](int step) { return step < at.steps ? at.way.offset(time(step)) : 0; };
  S x[kCells][G];
  const auto fetch = [&](int step, int64_t from) {
    const S* const pre = static_cast<const S*>(a.pre) + from * H * G;
    const bool ahead = step < at.steps;
    FASTSEQ_UNROLL(4) for (int j = 0; j < kCells; ++j) {
      const bool there = ahead && at.active(j, time(step));
      FASTSEQ_UNROLL(4) for (int gate = 0; gate < G; ++gate) {
        x[j][gate] = there ? device::memory::load(at.of(pre, j, G, gate)) : S{};
      }
    }
  };
  int here = start(0), next = start(1);
  fetch(0, here);
  device::sync();

  for (int step = 0; step < at.steps; ++step) {
    const int t = time(step), now = step % 2;
    float sums[kTiles][4] = {};
    FASTSEQ_UNROLL(8) for (int s = 0; s < kSteps; s += 2) {
      uint32_t both[4];  // of two products: rows of h, 16 bytes of each in a matrix
      const int from = (now * kSelfRows + at.lane % 8) * kPitch;
      device::load_matrices(states, from + (2 * s + at.lane / 8) * kMatrixRow<F>, both);
      const uint32_t first[2] = {both[0], both[1]}, second[2] = {both[2], both[3]};
      FASTSEQ_UNROLL(4) for (int m = 0; m < kTiles; ++m) device::mma<F>(sums[m], w[m][s], first);
      FASTSEQ_UNROLL(4)
      for (int m = 0; m < kTiles; ++m) device::mma<F>(sums[m], w[m][s + 1], second);
    }
    S now_x[kCells][G];
    FASTSEQ_UNROLL(4) for (int j = 0; j < kCells; ++j) {
      FASTSEQ_UNROLL(4) for (int gate = 0; gate < G; ++gate) now_x[j][gate] = x[j][gate];
    }
    bool cut[2];  // whether the step after this one begins with another state
    FASTSEQ_UNROLL(2) for (int i = 0; i < 2; ++i) {
      cut[i] = a.resets.after(at.way, t, at.row + i, at.lengths[i]);
    }
    const int64_t row = here;
    device::forget(at.lengths[1]);  // which cells there are: found anew each step
    here = next;
    next = start(step + 2);
    fetch(step + 1, here);
    FASTSEQ_UNROLL(4) for (int j = 0; j < kCells; ++j) {
      float in[G], r[G], cache[C::kCached + 1], c_next = 0, h_next = 0;
      FASTSEQ_UNROLL(4) for (int gate = 0; gate < G; ++gate) {
        const int half = j / 2 * G + gate;
        in[gate] = device::widen(now_x[j][gate]);
        r[gate] = sums[half / 2][half % 2 * 2 + j % 2];
      }
      if constexpr (C::kSplitsGates) r[2] += bias[j / 2];
      C::template forward<device::Math>(in, r, h[j], c[j], kNoZone<float>, cache, c_next, h_next);
      const bool active = at.active(j, t);  // a row that is not keeps its state
      const float h_now = active ? device::round_to<S>(h_next) : h[j];
      const float c_now = active ? c_next : c[j];
      h[j] = cut[j % 2] ? at.template replacing<S>(a.resets.h, j) : h_now;
      c[j] = cut[j % 2] ? at.template replacing<S>(a.resets.c, j) : c_now;
      keep(1 - now, j, h[j]);
      if (!active) continue;
      device::store(at.of(static_cast<S*>(a.y) + row * H, j, 1, 0), h_now);
      if constexpr (C::kHasCellState) {
        if (a.cells) device::store(at.of(static_cast<float*>(a.cells) + row * H, j, 1, 0), c_now);
      }
      if (a.gates) {
        S* const gates = static_cast<S*>(a.gates) + row * H * C::kCached;
        FASTSEQ_UNROLL(4) for (int k = 0; k < C::kCached; ++k) {
          device::store(at.of(gates, j, C::kCached, k), cache[k]);
        }
      }
    }
    device::sync();
  }

  FASTSEQ_UNROLL(4) for (int j = 0; j < kCells; ++j) {
    if (!at.inside(j)) continue;
    device::store(at.of(static_cast<S*>(a.h_n), j, 1, 0), h[j]);
    if constexpr (C::kHasCellState) {
      device::store(at.of(static_cast<S*>(a.c_n), j, 1, 0), c[j]);
    }
  }
}

template <class S, class C, int kHidden>
FASTSEQ_KERNEL_FOR(SelfForwardBlock<S, C, kHidden>)
self_forward_kernel(const SelfForwardBlock<S, C, kHidden> a) {
  if constexpr (device::kMultiplies) self_forward_steps(a);
}

}  // namespace fastseq::cuda
