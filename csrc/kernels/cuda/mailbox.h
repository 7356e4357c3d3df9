// The recurrence in one launch over many blocks, which hand h to each other in words (words.h):
// what its launchers ask for, and how a call is divided. mailbox_block.cuh has what a block does,
// mailbox_forward.cuh and mailbox_backward.cuh the two kernels. docs/recurrence.md draws it.
//
// sm_80 and up. Before, there is no product of bfloat16 and TF32.
#pragma once

#include "cooperative.h"
#include "mailbox_call.h"
#include "self_block.cuh"
#include "words.h"

namespace fastseq::cuda {

// S as for RecurrenceForward, of which this is the part without options and projection. N: rows of
// all steps together, T * B where all rows are of one length. Of both directions of a layer every
// tensor has a dimension of 2 in front.
struct MailboxForward {
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
  void* mailbox;          // so many bytes as the plan says, aligned to 16
};

// As RecurrenceBackward without options, projection and second derivatives.
struct MailboxBackward {
  TableOfSteps seq;
  Resets resets;
  int64_t hidden;
  const void* grad_y;     // S [N, H]     may be null, like every incoming gradient
  const void* grad_h_n;   // S [B, H]
  const void* grad_c_n;   // S [B, H]     LSTM only
  const void* y;          // S [N, H]
  const void* gates;      // S [N, C*H]
  const void* cells;      // A [N, H]     LSTM only
  const void* h0;         // S [B, H]
  const void* c0;         // S [B, H]     LSTM only
  const void* weight_hh;  // S [G*H, H]
  void* grad_pre;         // S [N, G*H]
  void* grad_aux;         // S [N, H]     GRU only
  void* grad_h0;          // S [B, H]
  void* grad_c0;          // S [B, H]     LSTM only
  void* grad_reset_h;     // A [B, H]     added to; null where nothing replaces the states
  void* grad_reset_c;     // A [B, H]     LSTM only
  void* mailbox;          // so many bytes as the plan says, aligned to 16
};

constexpr int kMailboxRows = 8;                      // of the batch in a tile: columns of a product
constexpr int kMailboxUnits = 16;                    // of a block, with all their gates
constexpr int kMailboxChunk = 256;                   // steps of a launch, at most
constexpr int64_t kMailboxWords = int64_t{1} << 23;  // that a launch fills: 32 MB, half of an L2
// Blocks for which room is left: other streams and processes may hold some, and a launch that must
// be whole would wait for them.
constexpr int64_t kMailboxLeftFree = 4;

// What a block is made of, for hidden sizes to kHidden. Of each unit kParts numbers are handed over
// in a step (h; backward, where W_hh is turned, the gradients of its gates), and kSums sums made.
template <class S_, int kGates, bool kTurned_, int kHidden_, int kWarps_>
struct MailboxShape {
  using S = S_;
  using F = typename Factor<S>::type;
  static constexpr bool kTurned = kTurned_;
  static constexpr int kParts = kTurned ? kGates : 1, kSums = kTurned ? 1 : kGates;
  static constexpr int kHidden = kHidden_, kWarps = kWarps_;
  static constexpr int kThreads = kWarps * device::kWarp;
  static constexpr int kUnits = kMailboxUnits;
  static constexpr int kTiles = kSums * kUnits / 16;  // of 16 rows of the left operand
  static constexpr int kDepth = device::kDepth<F>;
  static constexpr int kRow = kDepth / 2;                               // numbers in 16 bytes
  static constexpr int kWord = 4 / static_cast<int>(sizeof(F));         // and in a word
  static constexpr int kProducts = kHidden / kDepth / kWarps * kParts;  // along K, of a warp
  static constexpr int kPairs = kProducts / 2;  // of products: 16 bytes of each lane
  static constexpr int kPairWords = 4 * device::kWarp;
  // Pairs that are asked for at once.
  static constexpr int kBatch = kPairs % 8 == 0 ? 8 : kPairs % 6 == 0 ? 6 : kPairs;
  static_assert(kPairs % kBatch == 0 && kBatch <= 8);
  // Sums of a tile, whose products do not wait for each other. With 32 products along K there are
  // registers for two.
  static constexpr int kChains = kTiles == 1 && kProducts <= 24 ? 4 : kTiles < 4 ? 2 : 1;
  static_assert(kHidden % (2 * kDepth * kWarps) == 0, "a warp reads two products at a time");
  static constexpr int kCells = kUnits * kMailboxRows;  // of a tile
  static constexpr int kTeams = kThreads / kCells;      // who take the tiles in turn
  static_assert(kThreads % kCells == 0 && kCells % device::kWarp == 0);
  // A multiprocessor has 65,536 registers.
  static constexpr int kWeights = kTiles * kProducts * 4;
  static_assert(kWeights <= 128);
  static constexpr int kBlockWeights = kWeights * kThreads;  // words

  // Shared memory: partial sums, twice; the steps; what a cell keeps from step to step; how long
  // rows are. Four numbers beside each row of sums put what a warp writes, and what it reads, into
  // all banks.
  static constexpr int kPitch = kUnits + 4;
  static constexpr int kPlane = kMailboxRows * kPitch;
  static constexpr int kPartial = 2 * kWarps * kSums * kPlane;
  static constexpr int kSteps = kMailboxChunk + 2;   // of the table: one before, one after
  static constexpr int kKept = 2;                    // floats of a cell
  static constexpr int kLengths = kMailboxRows + 1;  // of a tile: of each row, of the longest
  static constexpr int64_t kStepsAt = int64_t{kPartial} * 4;
  static constexpr int64_t kKeptAt = kStepsAt + int64_t{kSteps} * 4;
  static constexpr int64_t lengths_at(int64_t tiles) {
    return kKeptAt + tiles * kKept * kCells * 4;
  }
  static constexpr int64_t shared(int64_t tiles) {
    return lengths_at(tiles) + tiles * kLengths * 4;
  }
  static constexpr int64_t kMostShared = 99 * 1024;  // of a consumer card
  static constexpr int64_t kMostTiles = (kMostShared - kKeptAt) / ((kKept * kCells + kLengths) * 4);
  static_assert(shared(1) <= device::kSharedLimit && kMostTiles >= 32);

  // Units are padded to whole pairs of products, in 16 bits and in TF32 alike.
  static FASTSEQ_HD int64_t blocks(int64_t hidden) { return (hidden + 31) / 32 * (32 / kUnits); }
  static FASTSEQ_HD int64_t pairs(int64_t hidden) {
    return (hidden + 31) / 32 * (16 / kDepth) * kParts;
  }
};

// f(the hidden size that a kernel is built for): the first that is no smaller. An RNN's one gate
// has few weights, and one kernel. In TF32 there are none beyond 512, or 1024, and the plan says
// so.
template <class S, class C, class F>
const char* with_hidden(int64_t hidden, const F& f) {
  if constexpr (C::kGates == 1) {
    return f(Constant<1024>{});
  } else {
    if (hidden <= 256) return f(Constant<256>{});
    if constexpr (sizeof(S) == 2) {
      if (hidden > 512) return f(Constant<1024>{});
    }
    return f(Constant<512>{});
  }
}

// For a device that holds `room` blocks at once. Returns null, or why there is no plan.
template <class Shape>
const char* mailbox_plan(const TableOfSteps& seq, int64_t hidden, int64_t room, MailboxPlan& plan) {
  const int64_t steps = seq.steps, states = seq.directions * seq.batch;
  if (hidden < 1 || states < 1 || steps < 1) return "there is nothing to do";
  if (hidden > Shape::kHidden) return "hidden_size is larger than the kernel";
  if (states * hidden * 4 > 0x7fffffff || steps * states > 0x7fffffff) {
    return "the batch is larger than the kernel's indices";
  }
  const int64_t tiles = divide_up(seq.batch, kMailboxRows);
  plan.blocks = Shape::blocks(hidden);
  const int64_t most = (room - kMailboxLeftFree) / (seq.directions * plan.blocks);
  if (most < 1) return "the device has no room for all blocks at once";
  plan.tiles = divide_up(tiles, most < tiles ? most : tiles);
  plan.groups = divide_up(tiles, plan.tiles);
  if (plan.tiles > Shape::kMostTiles) return "the batch is larger than a block's shared memory";
  plan.slot = seq.directions * tiles * Shape::pairs(hidden) * Shape::kPairWords;
  plan.chunk = kMailboxWords / plan.slot - 1;
  if (plan.chunk > kMailboxChunk) plan.chunk = kMailboxChunk;
  if (plan.chunk < 16) plan.chunk = 16;
  if (plan.chunk > steps) plan.chunk = steps;
  if (plan.words() > 0x7fffffff) return "the batch is larger than the kernel's indices";
  plan.weights = seq.directions * plan.blocks * Shape::kBlockWeights;
  plan.kept = states * hidden;
  return nullptr;
}

// A launch, beside its tensors.
struct MailboxChunk {
  const uint32_t* weights;        // [D, blocks, kWarps, kProducts, kTiles, 32, 4]
  int64_t first;                  // step, in the order of the loop, with which it begins
  int64_t count;                  // steps
  uint32_t* words;                // [count + 1, D, tiles, pairs, 32, 4]
  float* kept;                    // [D, B, H]   by the launch before, for the next one
  int64_t blocks, groups, tiles;  // as in the plan
};

// Asks the device for room and divides the call.
template <class Shape, class... Parameters>
const char* mailbox_ask(void (*kernel)(Parameters...), const TableOfSteps& seq, int64_t hidden,
                        MailboxPlan& plan) {
  // With as much shared memory as a block may take: of two a multiprocessor, each has half.
  int64_t room = 0;
  if (const char* error = device::allow_shared(kernel, Shape::kMostShared)) return error;
  if (const char* error = device::room(kernel, Shape::kThreads, Shape::kMostShared, room)) {
    return error;
  }
  return mailbox_plan<Shape>(seq, hidden, room, plan);
}

// W_hh as the blocks' lanes hold it, zeros beyond its ends. Row n of a tile is, by halves of eight
// rows, sum `half % kSums` of eight units: a lane ends up with all sums of its cells. Along K are
// blocks of kDepth units, kParts products each.
template <class Shape>
struct MailboxWeights {
  const void* weight_hh;  // S [D, G*H, H]
  uint32_t* packed;
  int64_t hidden, directions;

  FASTSEQ_HD int64_t words() const {
    return directions * Shape::blocks(hidden) * Shape::kBlockWeights;
  }
};

template <class Shape>
FASTSEQ_KERNEL mailbox_weights_kernel(MailboxWeights<Shape> a) {
  using S = typename Shape::S;
  const int64_t i = device::thread();
  if (i >= a.words() / 4) return;
  const int lane = static_cast<int>(i % device::kWarp), g = lane / 4, q = lane % 4;
  const int tile = static_cast<int>(i / device::kWarp % Shape::kTiles);
  const int of_block = static_cast<int>(i % (Shape::kBlockWeights / 4));
  const int product = of_block / (device::kWarp * Shape::kTiles);  // of the block
  const int of_all = static_cast<int>(i / (Shape::kBlockWeights / 4));
  const int blocks = static_cast<int>(Shape::blocks(a.hidden)), block = of_all % blocks;
  const int H = static_cast<int>(a.hidden), part = product % Shape::kParts;
  // Rows of W_hh of the directions before.
  const int64_t before = int64_t{of_all / blocks} * (Shape::kParts * Shape::kSums * H);
  uint32_t words[4];
  FASTSEQ_UNROLL(4) for (int j = 0; j < 4; ++j) {
    const int half = 2 * tile + j % 2, sum = half % Shape::kSums;
    const int unit = block * Shape::kUnits + half / Shape::kSums * 8 + g;
    const int k = product / Shape::kParts * Shape::kDepth + j / 2 * Shape::kRow + q * Shape::kWord;
    const auto at = [&](int from) {
      if (unit >= H || from >= H) return S{};
      const int64_t place = Shape::kTurned ? (before + part * H + from) * H + unit
                                           : (before + sum * H + unit) * H + from;
      return device::memory::load(static_cast<const S*>(a.weight_hh) + place);
    };
    if constexpr (sizeof(S) == 4) {
      words[j] = device::to_tf32(at(k)).bits;
    } else {
      words[j] = uint32_t{at(k).bits} | uint32_t{at(k + 1).bits} << 16;
    }
  }
  device::memory::write<4>(a.packed + 4 * i, words);
}

// The weights, then a launch for each chunk: start(chunk, grid) makes one.
template <class Shape, class Call, class Start>
const char* mailbox_run(const Call& a, const MailboxPlan& plan, device::Stream stream,
                        const Start& start) {
  auto* const weights = static_cast<uint32_t*>(a.mailbox);
  uint32_t* const words = weights + plan.weights;
  auto* const kept = reinterpret_cast<float*>(words + plan.words());
  const MailboxWeights<Shape> pack{a.weight_hh, weights, a.hidden, a.seq.directions};
  if (const char* error =
          device::launch(mailbox_weights_kernel<Shape>, pack.words() / 4, stream, pack)) {
    return error;
  }
  const device::Grid grid{a.seq.directions * plan.blocks * plan.groups, Shape::kThreads,
                          Shape::shared(plan.tiles)};
  for (int64_t first = 0; first < a.seq.steps; first += plan.chunk) {
    const int64_t rest = a.seq.steps - first, count = rest < plan.chunk ? rest : plan.chunk;
    if (const char* error = device::empty(words, plan.slot * (count + 1), stream)) return error;
    const MailboxChunk chunk{weights, first,       count,       words,
                             kept,    plan.blocks, plan.groups, plan.tiles};
    if (const char* error = start(chunk, grid)) return error;
  }
  return nullptr;
}

}  // namespace fastseq::cuda
