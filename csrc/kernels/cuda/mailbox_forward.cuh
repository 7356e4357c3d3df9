// The recurrence forward, in one launch of many blocks a chunk of steps (mailbox.h).
//
// Not measured. Estimated a step, for a tile of eight rows at H = 1024, bfloat16, LSTM, from
// sm_90's SASS at 1.7 GHz:
//   0.4 to 0.7 us  from a word's store to its load through L2, and half a round of polling
//   0.15 to 0.25   32 products a warp in four chains, two warps a scheduler
//   0.1            16 stores and 32 loads a lane of partial sums, 256 turns of shared memory; the
//                  barrier
//   0.25 to 0.35   213 instructions from the barrier to the store of h, half of them three
//                  sigmoids and two tanh one after the other
// together 0.9 to 1.4 us; under it lie some 170 instructions from that store to the next poll, the
// loads of pre-activations and 16 KB of words a block (256 cycles of 64 bytes). A further tile of
// the same block: 0.3 to 0.5 us, what its products, sums and words need.
#pragma once

#include "../cells.h"
#include "mailbox_block.cuh"

namespace fastseq::cuda {

template <class S, class C, int kHidden, int kWarps>
struct ForwardBlock : MailboxForward {
  using Shape = MailboxShape<S, C::kGates, false, kHidden, kWarps>;
  static constexpr int kThreads = Shape::kThreads, kBlocks = 1;
  MailboxChunk chunk;

  ForwardBlock(const MailboxForward& a, const MailboxChunk& c) : MailboxForward(a), chunk(c) {}
};

template <class S, class C, int kHidden, int kWarps>
FASTSEQ_DEVICE void mailbox_forward_steps(const ForwardBlock<S, C, kHidden, kWarps>& a) {
  using Shape = typename ForwardBlock<S, C, kHidden, kWarps>::Shape;
  constexpr int G = C::kGates;
  const int count = static_cast<int>(a.chunk.count);
  const MailboxPlace<Shape> me(a.chunk, a.seq, a.hidden);
  const MailboxSteps<Shape> steps(a.chunk, me, me.way.reverse());
  const MailboxSums<Shape> sums;
  MailboxCell<Shape> cell(me, a.hidden);
  uint32_t w[Shape::kProducts][Shape::kTiles][4];
  load_weights<Shape>(me, a.chunk, w);
  float bias = 0;
  if constexpr (C::kSplitsGates) {
    if (a.bias_hn && cell.unit < a.hidden) bias = cell.template load<S>(a.bias_hn, me.way.number);
  }
  device::sync();  // the table of steps is there

  int turn = -1;
  for (int i = 0; i < count; ++i) {
    const int now = steps.time(i), before = steps.time(i - 1), after = steps.time(i + 1);
    for (int tile = me.first; tile < me.last; ++tile) {
      const int longest = steps.longest(tile);
      if (!takes_part(now, longest)) continue;
      ++turn;
      cell.go_to(tile);
      const int length = steps.length(tile, cell.in_tile);
      const bool active = cell.mine && cell.inside && takes_part(now, length);
      const int row = steps.at(i) + cell.row;
      uint32_t* const slot = me.slot(a.chunk, i, tile);
      const auto hand = [&](uint32_t* words, float h) { hand_over<Shape>(words, cell, 0, h); };
      // The state before a tile's first step of the launch is handed over as if a step had made it.
      if (cell.mine && (i == 0 || !takes_part(before, longest))) {
        float h = 0, c = 0;
        if (cell.inside) {
          const bool goes_on = takes_part(before, length);
          h = goes_on ? cell.template load<S>(a.y, steps.at(i - 1) + cell.row)
                      : cell.template load<S>(a.h0, cell.row);
          if constexpr (C::kHasCellState) {
            c = goes_on ? cell.template load<float>(a.chunk.kept, cell.row)
                        : cell.template load<S>(a.c0, cell.row);
          }
          if (a.resets.before(me.way, now, cell.row, length)) {
            h = cell.template replacing<S>(a.resets.h);
            c = cell.template replacing<S>(a.resets.c);
          }
        }
        hand(slot, h);
        cell.keep(0, h);
        if constexpr (C::kHasCellState) cell.keep(1, c);
      }
      float x[G] = {};   // under way while the words are waited for
      bool cut = false;  // whether the step after this one begins with another state
      if (active) {
        cut = a.resets.after(me.way, now, cell.row, length);
        FASTSEQ_UNROLL(4)
        for (int g = 0; g < G; ++g) x[g] = cell.template load<S>(a.pre, row, G, g);
      }

      sums.multiply(me, turn, slot, me.exists(tile, me.g), w);
      device::sync();
      if (!cell.mine) continue;

      float r[G], cache[C::kCached + 1] = {}, h = cell.kept(0), c = 0;
      if constexpr (C::kHasCellState) c = cell.kept(1);
      sums.add(turn, cell, r);
      if constexpr (C::kSplitsGates) r[2] += bias;
      if (active) {
        float next = 0;
        C::template forward<device::Math>(x, r, h, c, kNoZone<float>, cache, c, next);
        h = device::round_to<S>(next);
      }
      const float h_next = cut ? cell.template replacing<S>(a.resets.h) : h;
      hand(slot + me.slot_words(), h_next);
      if (!active) continue;
      cell.keep(0, h_next);
      cell.template store<S>(a.y, h, row);
      if constexpr (C::kHasCellState) {
        cell.keep(1, cut ? cell.template replacing<S>(a.resets.c) : c);
        if (a.cells) cell.template store<float>(a.cells, c, row);
      }
      if (a.gates) {
        FASTSEQ_UNROLL(4) for (int k = 0; k < C::kCached; ++k) {
          cell.template store<S>(a.gates, cache[k], row, C::kCached, k);
        }
      }
      if (!takes_part(after, length)) {
        cell.template store<S>(a.h_n, h, cell.row);
        if constexpr (C::kHasCellState) cell.template store<S>(a.c_n, c, cell.row);
      } else if (i + 1 == count) {
        if constexpr (C::kHasCellState) cell.template store<float>(a.chunk.kept, c, cell.row);
      }
    }
  }
}

template <class S, class C, int kHidden, int kWarps>
FASTSEQ_KERNEL_FOR(ForwardBlock<S, C, kHidden, kWarps>)
mailbox_forward_kernel(ForwardBlock<S, C, kHidden, kWarps> a) {
  if constexpr (device::kMultiplies) mailbox_forward_steps(a);
}

// For hidden sizes to kHidden. The two below choose it.
template <class S, class C, int kHidden, int kWarps = 8>
const char* mailbox_forward_plan_of(const MailboxForward& a, MailboxPlan& plan) {
  using Block = ForwardBlock<S, C, kHidden, kWarps>;
  return mailbox_ask<typename Block::Shape>(mailbox_forward_kernel<S, C, kHidden, kWarps>, a.seq,
                                            a.hidden, plan);
}
template <class S, class C, int kHidden, int kWarps = 8>
const char* mailbox_forward_of(const MailboxForward& a, const MailboxPlan& plan,
                               device::Stream stream) {
  using Block = ForwardBlock<S, C, kHidden, kWarps>;
  return mailbox_run<typename Block::Shape>(
      a, plan, stream, [&](const MailboxChunk& chunk, const device::Grid& grid) {
        return device::launch_together(mailbox_forward_kernel<S, C, kHidden, kWarps>, grid, stream,
                                       Block(a, chunk));
      });
}

// Whether a call fits on the current device, and how it is divided: null, or why it does not. Asks
// for sizes alone; no tensor need be there yet.
template <class S, class C>
const char* mailbox_forward_plan(const MailboxForward& a, MailboxPlan& plan) {
  return with_hidden<S, C>(a.hidden, [&](auto hidden) {
    return mailbox_forward_plan_of<S, C, decltype(hidden)::kValue>(a, plan);
  });
}

// Null, or what went wrong. a.mailbox has the plan's bytes, of any content.
template <class S, class C>
const char* mailbox_forward(const MailboxForward& a, const MailboxPlan& plan,
                            device::Stream stream) {
  return with_hidden<S, C>(a.hidden, [&](auto hidden) {
    return mailbox_forward_of<S, C, decltype(hidden)::kValue>(a, plan, stream);
  });
}

}  // namespace fastseq::cuda
