// Back-propagation through time in one launch, as self_forward.cuh: a block owns eight rows of the
// batch and keeps W_hh^T in registers; what goes through shared memory are the gate gradients.
//
// The gradient of h is W_hh^T times the gate gradients of the step after: G times as deep as the
// product of forward and one tile wide, of a warp's 16 units. A lane's four sums are those of its
// own cells, so there is no shuffle, and one barrier a step. The product is made in four chains,
// whose sums are added in a fixed order. What a step reads of memory is asked for before the
// barrier and the product of the step before it.
//
// Not measured. Estimated a step at H = 128, bfloat16, LSTM: 1.1 to 1.5 us. The loop of sm_90 has
// 790 instructions, and two warps a scheduler make 1,580 clocks (0.9 us) of them; two warps
// do not hide all of what they wait for: eight products in a chain (0.15 us), a tanh, and of the
// loads of saved gates what is left behind barrier and products (0 to 0.3 us). Once a launch: W_hh
// in eight parts (5 us).
#pragma once

#include "self_block.cuh"

namespace fastseq::cuda {

// S as for RecurrenceBackward, of which this is the part without a projection and without
// gradients of what forward saved.
struct SelfBackward {
  TableOfSteps seq;
  Resets resets;
  int64_t hidden;
  const void* grad_y;     // S [N, H]     may be null, like the next two
  const void* grad_h_n;   // S [B, H]
  const void* grad_c_n;   // S [B, H]
  const void* y;          // S [N, H]
  const void* gates;      // S [N, C*H]
  const void* cells;      // A [N, H]
  const void* h0;         // S [B, H]
  const void* c0;         // S [B, H]     LSTM only
  const void* weight_hh;  // S [G*H, H]
  void* grad_pre;         // S [N, G*H]
  void* grad_aux;         // S [N, H]     GRU only
  void* grad_h0;          // S [B, H]
  void* grad_c0;          // S [B, H]     LSTM only
  void* grad_reset_h;     // A [B, H]     added to; null where nothing replaces the states
  void* grad_reset_c;     // A [B, H]     LSTM only
};

// H to kHidden.
template <class S, class C, int kHidden>
struct SelfBackwardBlock : Of<S, SelfBackward> {
  using F = factor_t<S>;
  static constexpr int kThreads = kHidden / 16 * device::kWarp, kBlocks = 1;
  static constexpr int kDeep = C::kGates * kHidden;
  static constexpr int kSteps = kDeep / device::kDepth<F>;  // products along K
  static constexpr int kChains = 4;
  static constexpr int kPitch = kDeep + kMatrixRow<F>;  // as of forward, a row of gate gradients
  // A lane needs so many registers beside its weights, or nvcc spills; weights of the last products
  // are in shared memory then.
  static constexpr int kBeside = sizeof(S) == 4 ? 100 : 120;
  static constexpr int kRoom = (registers_of(kThreads) - kBeside) / 4 / kChains * kChains;
  static constexpr int kKept = kSteps < kRoom ? kSteps : kRoom;  // products
  static constexpr int64_t kSides = int64_t{2} * kSelfRows * kPitch * sizeof(F);
  static constexpr int64_t kSpare = int64_t{kSteps - kKept} * kThreads * sizeof(SpareWeights);
  static constexpr int64_t kShared = kSides + kSpare;
  static_assert(kSteps % kChains == 0 && kShared <= 99 * 1024, "a consumer's card has no more");
  // Products whose weights are on their way at once, as rows of W_hh, where gate gradients will be.
  static constexpr int kWay = kHidden + 2;
  static constexpr int kFit = static_cast<int>(kSides / (kWay * sizeof(S)) / device::kDepth<F>);
  static constexpr int kTogether = kFit < 4 ? kFit : 4;
  static_assert(kTogether > 0);

  explicit SelfBackwardBlock(const SelfBackward& a) : Of<S, SelfBackward>(a) {}
};

template <class S, class C, int kHidden>
FASTSEQ_DEVICE void self_backward_steps(const SelfBackwardBlock<S, C, kHidden>& a) {
  using Block = SelfBackwardBlock<S, C, kHidden>;
  using F = typename Block::F;
  // What the state is kept in: c in float, h as it was stored.
  using K = std::conditional_t<C::kHasCellState, float, S>;
  constexpr int G = C::kGates, kSteps = Block::kSteps, kPitch = Block::kPitch, kCells = 4;
  SelfLane at(a.seq, a.hidden, 16);
  const int H = at.hidden;
  const device::Shared<SpareWeights> spare(Block::kSides,
                                           (kSteps - Block::kKept) * Block::kThreads);
  const auto spare_at = [&](int s) {
    return (s - Block::kKept) * Block::kThreads + device::thread_index();
  };

  // W_hh^T comes by way of shared memory, some of its columns at a time: they are read as rows of
  // W_hh, and a lane that asks for all its weights at once has no registers left.
  uint32_t w[Block::kKept][4];
  constexpr int kTogether = Block::kTogether, kColumns = kTogether * device::kDepth<F>;
  const device::Shared<S> columns(0, kColumns * Block::kWay);
  FASTSEQ_UNROLL(64) for (int first = 0; first < kSteps; first += kTogether) {
    FASTSEQ_UNROLL(8)
    for (int i = device::thread_index(); i < kColumns * kHidden; i += Block::kThreads) {
      const int k = first * device::kDepth<F> + i / kHidden, unit = i % kHidden;
      const int gate = k / kHidden, from = k % kHidden;
      const bool there = unit < H && from < H && gate < G;
      const S* const rows = static_cast<const S*>(a.weight_hh);
      const int row = (gate + at.way.number * G) * H + from;
      const S x = there ? device::memory::load(rows + row * H + unit) : S{};
      columns.set(i / kHidden * Block::kWay + unit, x);
    }
    device::sync();
    FASTSEQ_UNROLL(4) for (int s = first; s < first + kTogether && s < kSteps; ++s) {
      SpareWeights four;
      FASTSEQ_UNROLL(4) for (int i = 0; i < 4; ++i) {
        const int k = (2 * (s - first) + i / 2) * kMatrixRow<F> + at.q * (kMatrixRow<F> / 4);
        const int from = k * Block::kWay + at.warp * 16 + at.g + i % 2 * 8;
        if constexpr (sizeof(S) == 4) {
          four.words[i] = device::to_tf32(columns.get(from)).bits;
        } else {
          const uint32_t low = columns.get(from).bits, high = columns.get(from + Block::kWay).bits;
          four.words[i] = low | high << 16;
        }
        if (s < Block::kKept) w[s][i] = four.words[i];
      }
      if (s >= Block::kKept) spare.set(spare_at(s), four);
    }
    device::sync();
  }
  const device::Shared<F> sides(0, 2 * kSelfRows * kPitch);

  // From the last step of the recurrence to the first. The one before it is the next one here.
  const auto time = [&](int step) { return at.way.reverse() ? step : at.steps - 1 - step; };
  const auto start = [&](int step) { return step < at.steps ? at.way.offset(time(step)) : 0; };
  bool cut[2];  // whether the state before the step replaced another, by rows
  S cached[kCells][C::kCached + 1], grad_y[kCells];
  K before[kCells];  // c or h before the step; of a cell without either, h after it
  const auto fetch = [&](int step, int64_t from, int64_t before_from) {
    const int t = time(step), p = time(step + 1);
    const auto at_step = [&](const void* tensor, int j) {
      return device::memory::load(at.of(static_cast<const S*>(tensor) + from * H, j, 1, 0));
    };
    FASTSEQ_UNROLL(2) for (int i = 0; i < 2; ++i) {
      cut[i] = step < at.steps && a.resets.before(at.way, t, at.row + i, at.lengths[i]);
    }
    FASTSEQ_UNROLL(4) for (int j = 0; j < kCells; ++j) {
      const bool there = step < at.steps && at.active(j, t);
      grad_y[j] = there && a.grad_y ? at_step(a.grad_y, j) : S{};
      const S* const gates = static_cast<const S*>(a.gates) + from * H * C::kCached;
      FASTSEQ_UNROLL(4) for (int k = 0; k < C::kCached; ++k) {
        cached[j][k] = there ? device::memory::load(at.of(gates, j, C::kCached, k)) : S{};
      }
      const bool carried = step + 1 < at.steps && at.active(j, p);
      before[j] = K{};
      if constexpr (C::kHasCellState) {
        if (carried) {
          before[j] = device::memory::load(
              at.of(static_cast<const float*>(a.cells) + before_from * H, j, 1, 0));
        } else if (there) {
          before[j] = device::load(at.of(static_cast<const S*>(a.c0), j, 1, 0));
        }
      } else if constexpr (C::kHasDirectPath) {
        if (carried) {
          before[j] =
              device::memory::load(at.of(static_cast<const S*>(a.y) + before_from * H, j, 1, 0));
        } else if (there) {
          before[j] = device::memory::load(at.of(static_cast<const S*>(a.h0), j, 1, 0));
        }
      } else {
        if (there) before[j] = at_step(a.y, j);
      }
    }
  };

  int here = start(0), next = start(1);
  float carry[kCells], dc[kCells], c[kCells], sum[kCells] = {};
  FASTSEQ_UNROLL(4) for (int j = 0; j < kCells; ++j) {
    carry[j] = dc[j] = c[j] = 0;
    if (a.grad_h_n && at.inside(j))
      carry[j] = device::load(at.of(static_cast<const S*>(a.grad_h_n), j, 1, 0));
    if constexpr (C::kHasCellState) {
      if (a.grad_c_n && at.inside(j))
        dc[j] = device::load(at.of(static_cast<const S*>(a.grad_c_n), j, 1, 0));
      if (at.steps > 0 && at.active(j, time(0))) {
        c[j] = device::load(at.of(static_cast<const float*>(a.cells) + int64_t{here} * H, j, 1, 0));
      }
    }
  }
  fetch(0, here, next);
  // The gradient of the state after a step. Where another one replaced it, it is that one's, and
  // ends here.
  bool replaced[2] = {};
  const auto add = [&](void* sums, int j, float grad) {
    if (!sums || !at.inside(j)) return;
    float* const sum = at.of(static_cast<float*>(sums), j, 1, 0);
    device::store(sum, device::load(sum) + grad);
  };
  const auto after_step = [&](int j) {
    const float grad = sum[j] + carry[j];
    if (!replaced[j % 2]) return grad;
    add(a.grad_reset_h, j, grad);
    if constexpr (C::kHasCellState) {
      add(a.grad_reset_c, j, dc[j]);
      dc[j] = 0;
    }
    return 0.0f;
  };

  for (int step = 0; step < at.steps; ++step) {
    const int t = time(step), buffer = step % 2;
    FASTSEQ_UNROLL(4) for (int j = 0; j < kCells; ++j) {
      float cache[C::kCached + 1], extra[C::kCached + 1] = {}, dx[G], dr[G], direct = 0;
      FASTSEQ_UNROLL(4)
      for (int k = 0; k < C::kCached; ++k) cache[k] = device::widen(cached[j][k]);
      const float through = after_step(j), stored = device::widen(before[j]);
      float old = stored;
      if constexpr (C::kHasCellState || C::kHasDirectPath) {
        const void* const by = C::kHasCellState ? a.resets.c : a.resets.h;
        if (cut[j % 2]) old = at.template replacing<S>(by, j);
      }
      float dc_next = dc[j];
      C::template backward<device::Math>(cache, old, c[j], old, old,
                                         through + device::widen(grad_y[j]), extra, kNoZone<float>,
                                         dx, dr, dc_next, direct);
      // A row that does not take part hands its gradients on as they are.
      const bool active = at.active(j, t);
      carry[j] = active ? direct : through;
      dc[j] = active ? dc_next : dc[j];
      c[j] = stored;
      FASTSEQ_UNROLL(4) for (int gate = 0; gate < G; ++gate) {
        const int to = (buffer * kSelfRows + 2 * at.q + j % 2) * kPitch + gate * kHidden;
        sides.set(to + at.unit + j / 2 * 8, Factor<S>::of(active ? dr[gate] : 0.0f));
      }
      if (!active) continue;
      S* const grad_pre = static_cast<S*>(a.grad_pre) + int64_t{here} * H * G;
      FASTSEQ_UNROLL(4) for (int gate = 0; gate < G; ++gate) {
        device::store(at.of(grad_pre, j, G, gate), dx[gate]);
      }
      if constexpr (C::kSplitsGates) {
        device::store(at.of(static_cast<S*>(a.grad_aux) + int64_t{here} * H, j, 1, 0), dr[2]);
      }
    }
    device::forget(at.row);  // places in tensors: made anew each step
    here = next;
    next = start(step + 2);
    FASTSEQ_UNROLL(2) for (int i = 0; i < 2; ++i) replaced[i] = cut[i];
    fetch(step + 1, here, next);
    device::sync();

    float parts[Block::kChains][4] = {};
    FASTSEQ_UNROLL(64) for (int s = 0; s < kSteps; s += 2) {
      uint32_t both[4];
      const int from = (buffer * kSelfRows + at.lane % 8) * kPitch;
      device::load_matrices(sides, from + (2 * s + at.lane / 8) * kMatrixRow<F>, both);
      const uint32_t first[2] = {both[0], both[1]}, second[2] = {both[2], both[3]};
      if (s < Block::kKept) {
        device::mma<F>(parts[s % Block::kChains], w[s], first);
        device::mma<F>(parts[(s + 1) % Block::kChains], w[s + 1], second);
      } else {
        device::mma<F>(parts[s % Block::kChains], spare.get(spare_at(s)).words, first);
        device::mma<F>(parts[(s + 1) % Block::kChains], spare.get(spare_at(s + 1)).words, second);
      }
    }
    FASTSEQ_UNROLL(4) for (int j = 0; j < kCells; ++j) {
      sum[j] = (parts[0][j] + parts[1][j]) + (parts[2][j] + parts[3][j]);
    }
  }

  FASTSEQ_UNROLL(4) for (int j = 0; j < kCells; ++j) {
    if (!at.inside(j)) continue;
    device::store(at.of(static_cast<S*>(a.grad_h0), j, 1, 0), after_step(j));
    if constexpr (C::kHasCellState) {
      device::store(at.of(static_cast<S*>(a.grad_c0), j, 1, 0), dc[j]);
    }
  }
}

template <class S, class C, int kHidden>
FASTSEQ_KERNEL_FOR(SelfBackwardBlock<S, C, kHidden>)
self_backward_kernel(const SelfBackwardBlock<S, C, kHidden> a) {
  if constexpr (device::kMultiplies) self_backward_steps(a);
}

}  // namespace fastseq::cuda
