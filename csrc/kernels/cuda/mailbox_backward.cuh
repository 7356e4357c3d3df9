// The recurrence backward, in one launch of many blocks a chunk of steps (mailbox.h). What blocks
// hand over are the gradients of all gates, as W_hh^T reads them: of GRU's n that is not the
// gradient of its pre-activation.
//
// Not measured. Estimated a step, for a tile of eight rows at H = 1024, bfloat16, LSTM, from
// sm_90's SASS at 1.7 GHz: as forward, but 64 KB of words a block, four times as many: 1,024 cycles
// of 64 bytes, 0.6 us, and for all 64 blocks 4 MB, 0.7 us of an L2 that gives 5.5 TB/s; their
// second half is asked for while the first is multiplied. A quarter of the sums (0.05 us), 92
// instructions from the barrier to the first store of a word (0.15 us). Together 1.5 to 2.1 us; a
// further tile 0.8 us.
#pragma once

#include "../cells.h"
#include "mailbox_block.cuh"

namespace fastseq::cuda {

template <class S, class C, int kHidden, int kWarps>
struct BackwardBlock : MailboxBackward {
  using Shape = MailboxShape<S, C::kGates, true, kHidden, kWarps>;
  static constexpr int kThreads = Shape::kThreads, kBlocks = 1;
  MailboxChunk chunk;

  BackwardBlock(const MailboxBackward& a, const MailboxChunk& c) : MailboxBackward(a), chunk(c) {}
};

// Steps are counted in the order in which they are gone back. Step `count` of the last launch is
// beyond the sequence: there, and where a row has had its last step, the sum is the gradient of h0.
template <class S, class C, int kHidden, int kWarps>
FASTSEQ_DEVICE void mailbox_backward_steps(const BackwardBlock<S, C, kHidden, kWarps>& a) {
  using Shape = typename BackwardBlock<S, C, kHidden, kWarps>::Shape;
  constexpr int G = C::kGates;
  const int count = static_cast<int>(a.chunk.count);
  const bool ends = a.chunk.first + count == a.seq.steps;
  const MailboxPlace<Shape> me(a.chunk, a.seq, a.hidden);
  const MailboxSteps<Shape> steps(a.chunk, me, !me.way.reverse());
  const MailboxSums<Shape> sums;
  MailboxCell<Shape> cell(me, a.hidden);
  uint32_t w[Shape::kProducts][Shape::kTiles][4];
  load_weights<Shape>(me, a.chunk, w);
  device::sync();  // the table of steps is there

  int turn = -1;
  for (int i = 0; i < count + ends; ++i) {
    const int now = steps.time(i), before = steps.time(i - 1), after = steps.time(i + 1);
    for (int tile = me.first; tile < me.last; ++tile) {
      const int longest = steps.longest(tile);
      if (!takes_part(now, longest) && !takes_part(before, longest)) continue;
      ++turn;
      cell.go_to(tile);
      const int length = steps.length(tile, cell.in_tile);
      const bool active = cell.mine && cell.inside && takes_part(now, length);
      const int row = steps.at(i) + cell.row;
      uint32_t* const slot = me.slot(a.chunk, i, tile);
      const auto hand = [&](uint32_t* words, const float (&gates)[G]) {
        FASTSEQ_UNROLL(4) for (int g = 0; g < G; ++g) hand_over<Shape>(words, cell, g, gates[g]);
      };
      // What a tile's first step of the launch needs, as if the step before were in the launch.
      if (cell.mine && (i == 0 || !takes_part(before, longest))) {
        float dr[G] = {}, direct = 0, dc = 0;
        if (cell.inside && takes_part(before, length)) {
          const int from = steps.at(i - 1) + cell.row;
          FASTSEQ_UNROLL(4) for (int g = 0; g < G; ++g) {
            dr[g] = C::kSplitsGates && g == 2 ? cell.template load<S>(a.grad_aux, from)
                                              : cell.template load<S>(a.grad_pre, from, G, g);
          }
          if constexpr (C::kHasDirectPath || C::kHasCellState) {
            const float kept = cell.template load<float>(a.chunk.kept, cell.row);
            (C::kHasCellState ? dc : direct) = kept;
          }
        } else if (cell.inside) {
          if (a.grad_h_n) direct = cell.template load<S>(a.grad_h_n, cell.row);
          if constexpr (C::kHasCellState) {
            if (a.grad_c_n) dc = cell.template load<S>(a.grad_c_n, cell.row);
          }
        }
        hand(slot, dr);
        cell.keep(0, direct);
        if constexpr (C::kHasCellState) cell.keep(1, dc);
      }

      // Under way while the words are waited for.
      float cache[C::kCached + 1] = {}, h = 0, c = 0, h_prev = 0, c_prev = 0, grad_y = 0;
      bool replaced = false;  // whether another state replaced the one after this step
      if (cell.mine && cell.inside) replaced = a.resets.after(me.way, now, cell.row, length);
      bool cut = false;  // and the one before it
      if (active) {
        const bool starts = !takes_part(after, length);  // the state before is the initial one
        cut = a.resets.before(me.way, now, cell.row, length);
        const int previous = steps.at(i + 1) + cell.row;
        if (a.grad_y) grad_y = cell.template load<S>(a.grad_y, row);
        FASTSEQ_UNROLL(4) for (int k = 0; k < C::kCached; ++k) {
          cache[k] = cell.template load<S>(a.gates, row, C::kCached, k);
        }
        if constexpr (C::kCached == 0) h = cell.template load<S>(a.y, row);
        if constexpr (C::kHasDirectPath) {
          h_prev =
              starts ? cell.template load<S>(a.h0, cell.row) : cell.template load<S>(a.y, previous);
        }
        if constexpr (C::kHasCellState) {
          c = cell.template load<float>(a.cells, row);
          c_prev = starts ? cell.template load<S>(a.c0, cell.row)
                          : cell.template load<float>(a.cells, previous);
        }
      }

      sums.multiply(me, turn, slot, me.exists(tile, me.g), w);
      device::sync();
      if (!cell.mine) continue;

      float total[1], dc = 0, dx[G] = {}, dr[G] = {}, direct = cell.kept(0);
      if constexpr (C::kHasCellState) dc = cell.kept(1);
      sums.add(turn, cell, total);
      float dh = total[0] + direct;
      if (replaced) {  // it is that state's gradient, and ends here
        cell.add(a.grad_reset_h, dh);
        dh = 0;
        if constexpr (C::kHasCellState) {
          cell.add(a.grad_reset_c, dc);
          dc = 0;
        }
      }
      dh += grad_y;
      if (active) {
        if (cut) {
          h_prev = cell.template replacing<S>(a.resets.h);
          c_prev = cell.template replacing<S>(a.resets.c);
        }
        const float extra[C::kCached + 1] = {};
        direct = 0;
        C::template backward<device::Math>(cache, h, c, h_prev, c_prev, dh, extra, kNoZone<float>,
                                           dx, dr, dc, direct);
      }
      if (takes_part(now, longest)) hand(slot + me.slot_words(), dr);
      if (active) {
        cell.keep(0, direct);
        if constexpr (C::kHasCellState) cell.keep(1, dc);
        FASTSEQ_UNROLL(4) for (int g = 0; g < G; ++g) {
          cell.template store<S>(a.grad_pre, dx[g], row, G, g);
        }
        if constexpr (C::kSplitsGates) cell.template store<S>(a.grad_aux, dr[2], row);
        if constexpr (C::kHasDirectPath || C::kHasCellState) {
          const bool goes_on = i + 1 == count && !ends;
          if (goes_on) {
            cell.template store<float>(a.chunk.kept, C::kHasCellState ? dc : direct, cell.row);
          }
        }
      } else if (cell.inside && takes_part(before, length)) {
        cell.template store<S>(a.grad_h0, dh, cell.row);
        if constexpr (C::kHasCellState) cell.template store<S>(a.grad_c0, dc, cell.row);
      }
    }
  }
}

template <class S, class C, int kHidden, int kWarps>
FASTSEQ_KERNEL_FOR(BackwardBlock<S, C, kHidden, kWarps>)
mailbox_backward_kernel(BackwardBlock<S, C, kHidden, kWarps> a) {
  if constexpr (device::kMultiplies) mailbox_backward_steps(a);
}

// For hidden sizes to kHidden. The two below choose it.
template <class S, class C, int kHidden, int kWarps = 8>
const char* mailbox_backward_plan_of(const MailboxBackward& a, MailboxPlan& plan) {
  using Block = BackwardBlock<S, C, kHidden, kWarps>;
  return mailbox_ask<typename Block::Shape>(mailbox_backward_kernel<S, C, kHidden, kWarps>, a.seq,
                                            a.hidden, plan);
}
template <class S, class C, int kHidden, int kWarps = 8>
const char* mailbox_backward_of(const MailboxBackward& a, const MailboxPlan& plan,
                                device::Stream stream) {
  using Block = BackwardBlock<S, C, kHidden, kWarps>;
  return mailbox_run<typename Block::Shape>(
      a, plan, stream, [&](const MailboxChunk& chunk, const device::Grid& grid) {
        return device::launch_together(mailbox_backward_kernel<S, C, kHidden, kWarps>, grid, stream,
                                       Block(a, chunk));
      });
}

// Whether a call fits on the current device, and how it is divided: null, or why it does not. Asks
// for sizes alone; no tensor need be there yet.
template <class S, class C>
const char* mailbox_backward_plan(const MailboxBackward& a, MailboxPlan& plan) {
  return with_hidden<S, C>(a.hidden, [&](auto hidden) {
    return mailbox_backward_plan_of<S, C, decltype(hidden)::kValue>(a, plan);
  });
}

// Null, or what went wrong. a.mailbox has the plan's bytes, of any content.
template <class S, class C>
const char* mailbox_backward(const MailboxBackward& a, const MailboxPlan& plan,
                             device::Stream stream) {
  return with_hidden<S, C>(a.hidden, [&](auto hidden) {
    return mailbox_backward_of<S, C, decltype(hidden)::kValue>(a, plan, stream);
  });
}

}  // namespace fastseq::cuda
