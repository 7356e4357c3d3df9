// The recurrence forward, in one launch of many blocks a chunk of steps (mailbox.h).
#pragma once

#include "../cells.h"
#include "mailbox_block.cuh"

namespace fastseq::cuda {

template <class S, class C, int kHidden, int kWarps>
struct ForwardBlock : MailboxForward, MailboxShape<S, 1, C::kGates, kHidden, kWarps> {
  using Shape = MailboxShape<S, 1, C::kGates, kHidden, kWarps>;
  static constexpr int kThreads = Shape::kThreads, kBlocks = 1;
  MailboxChunk chunk;

  ForwardBlock(const MailboxForward& a, const MailboxChunk& c) : MailboxForward(a), chunk(c) {}
};

template <class S, class C, int kHidden, int kWarps>
FASTSEQ_KERNEL_FOR(ForwardBlock<S, C, kHidden, kWarps>)
mailbox_forward_kernel(ForwardBlock<S, C, kHidden, kWarps> a) {
  using Shape = typename ForwardBlock<S, C, kHidden, kWarps>::Shape;
  constexpr int G = C::kGates;
  const int H = static_cast<int>(a.hidden), B = static_cast<int>(a.batch);
  const int count = static_cast<int>(a.chunk.count);
  const MailboxPlace<Shape> me(a.chunk, a.batch, a.hidden);
  const MailboxSteps<Shape> steps(a, a.chunk, a.reverse);
  const MailboxSums<Shape> sums;
  const int kept_of_block = (me.last - me.first) * Shape::kKept * Shape::kCells;
  const device::Shared<float> kept(Shape::kKeptAt, kept_of_block);

  uint32_t w[Shape::kProducts][Shape::kTiles][4];
  load_weights<Shape>(
      me,
      [&](int gate, int unit, int, int k) {
        const S* const weights = static_cast<const S*>(a.weight_hh);
        const bool inside = unit < H && k < H;
        return inside ? device::memory::load(weights + int64_t{gate * H + unit} * H + k) : S{};
      },
      w);
  device::sync();  // the table of steps is there

  int turn = 0;
  for (int i = 0; i < count; ++i) {
    const int now = steps.rows(i), before = steps.rows(i - 1), after = steps.rows(i + 1);
    const int64_t at = steps.at(i);
    for (int tile = me.first; tile < me.last && tile * kMailboxRows < now; ++tile, ++turn) {
      const MailboxCell<Shape> cell(me, tile, B, H);
      uint32_t* const slot = a.chunk.words + (int64_t{i} * me.tiles + tile) * me.pairs * Shape::kPairWords;
      const auto hand = [&](uint32_t* words, float h) {
        hand_over<Shape>(words, cell.unit, 0, cell.in_tile, cell.exists, cell.inside ? h : 0.0f);
      };
      const int of = cell.row * H + cell.unit;
      const bool active = cell.mine && cell.inside && cell.row < now;
      // The state before a tile's first step of the launch is handed over as if a step had made it.
      if (cell.mine && (i == 0 || tile * kMailboxRows >= before)) {
        float h = 0, c = 0;
        if (cell.inside) {
          const bool goes_on = cell.row < before;
          h = goes_on ? device::load(static_cast<const S*>(a.y) + int64_t{steps.at(i - 1)} * H + of)
                      : device::load(static_cast<const S*>(a.h0) + of);
          if constexpr (C::kHasCellState) {
            c = goes_on ? device::load(a.chunk.kept + of)
                        : device::load(static_cast<const S*>(a.c0) + of);
          }
        }
        hand(slot, h);
        cell.keep(kept, 0, h);
        if constexpr (C::kHasCellState) cell.keep(kept, 1, c);
      }
      float x[G], bias = 0;  // under way while the words are waited for
      const S* const pre = static_cast<const S*>(a.pre) + (at + cell.row) * G * H + cell.unit;
      FASTSEQ_UNROLL(4) for (int gate = 0; gate < G; ++gate) {
        x[gate] = active ? device::load(pre + gate * H) : 0.0f;
      }
      if constexpr (C::kSplitsGates) {
        if (active && a.bias_hn) bias = device::load(static_cast<const S*>(a.bias_hn) + cell.unit);
      }

      uint32_t words[Shape::kPairs][4];
      take<Shape>(me, slot, tile * kMailboxRows + me.g < B, words);
      sums.multiply(me, turn, w, words);
      device::sync();
      if (!cell.mine) continue;

      float r[G], cache[C::kCached + 1], h = cell.kept(kept, 0), c = 0;
      if constexpr (C::kHasCellState) c = cell.kept(kept, 1);
      sums.add(turn, cell.in_block, cell.in_tile, r);
      if constexpr (C::kSplitsGates) r[2] += bias;
      if (active) {
        float next = 0;
        C::template forward<device::Math>(x, r, h, c, kNoZone<float>, cache, c, next);
        h = device::round_to<S>(next);
      }
      hand(slot + int64_t{me.tiles} * me.pairs * Shape::kPairWords, h);
      if (!active) continue;
      cell.keep(kept, 0, h);
      device::store(static_cast<S*>(a.y) + at * H + of, h);
      if constexpr (C::kHasCellState) {
        cell.keep(kept, 1, c);
        if (a.cells) device::store(static_cast<float*>(a.cells) + at * H + of, c);
      }
      if (a.gates) {
        S* const gates = static_cast<S*>(a.gates) + (at + cell.row) * C::kCached * H + cell.unit;
        FASTSEQ_UNROLL(4) for (int k = 0; k < C::kCached; ++k) device::store(gates + k * H, cache[k]);
      }
      if (cell.row >= after) {
        device::store(static_cast<S*>(a.h_n) + of, h);
        if constexpr (C::kHasCellState) device::store(static_cast<S*>(a.c_n) + of, c);
      } else if (i + 1 == count) {
        if constexpr (C::kHasCellState) device::store(a.chunk.kept + of, c);
      }
    }
  }
}

// Whether a call fits, and how it is divided: null, or why not.
template <class S, class C, int kHidden, int kWarps = 8>
const char* mailbox_forward_plan(const MailboxForward& a, MailboxPlan& plan) {
  using Block = ForwardBlock<S, C, kHidden, kWarps>;
  return mailbox_ask<typename Block::Shape>(mailbox_forward_kernel<S, C, kHidden, kWarps>, a.steps,
                                            a.batch, a.hidden, plan);
}

template <class S, class C, int kHidden, int kWarps = 8>
const char* mailbox_forward(const MailboxForward& a, const MailboxPlan& plan,
                            device::Stream stream) {
  using Block = ForwardBlock<S, C, kHidden, kWarps>;
  return mailbox_run<typename Block::Shape>(
      a, plan, stream, [&](const MailboxChunk& chunk, const device::Grid& grid) {
        return device::launch_together(mailbox_forward_kernel<S, C, kHidden, kWarps>, grid, stream,
                                       Block(a, chunk));
      });
}

}  // namespace fastseq::cuda
