// What a block of the mailbox does in every step, forward and backward alike: its share of a tile's
// product, whose left operand is in registers for all steps and whose right one is taken, word by
// word, from all blocks of its group.
#pragma once

#include "mailbox.h"

namespace fastseq::cuda {

// Where this thread stands. A warp has all units of the block, and a slice of K. After the sums,
// a cell is of one thread: unit and row of the tile. Groups of the second direction come behind
// those of the first, and so do the words of its tiles.
template <class Shape>
struct MailboxPlace {
  Direction way;
  int warp, lane, g, q;
  int unit;         // the block's first
  int first, last;  // tiles of its group, among those of the direction: [first, last)
  int tiles;        // of all groups and directions
  int before;       // of them, in front of those of the direction
  int pairs;        // of a tile
  int mine;         // of this warp, which begins with pair warp * kPairs

  FASTSEQ_DEVICE MailboxPlace(const MailboxChunk& c, const TableOfSteps& seq, int64_t hidden)
      : way{seq, static_cast<int>(device::block_index()) >= static_cast<int>(c.blocks * c.groups)} {
    const int thread = device::thread_index(), block = static_cast<int>(device::block_index());
    warp = thread / device::kWarp;
    lane = thread % device::kWarp;
    g = lane / 4;
    q = lane % 4;
    const int blocks = static_cast<int>(c.blocks), each = static_cast<int>(c.tiles);
    const int of_one = (static_cast<int>(seq.batch) + kMailboxRows - 1) / kMailboxRows;
    const int group = block / blocks - way.number * static_cast<int>(c.groups);
    unit = block % blocks * Shape::kUnits;
    tiles = static_cast<int>(seq.directions) * of_one;
    before = way.number * of_one;
    first = group * each;
    last = first + each < of_one ? first + each : of_one;
    pairs = static_cast<int>(Shape::pairs(hidden));
    const int rest = pairs - warp * Shape::kPairs;
    mine = rest < 0 ? 0 : rest < Shape::kPairs ? rest : Shape::kPairs;
  }

  // Whether there is a row i of a tile.
  FASTSEQ_DEVICE bool exists(int tile, int i) const {
    return tile * kMailboxRows + i < static_cast<int>(way.seq.batch);
  }

  FASTSEQ_DEVICE int slot_words() const { return tiles * pairs * Shape::kPairWords; }
  // The words that a step of the launch reads, of a tile. It fills those of the next slot.
  FASTSEQ_DEVICE uint32_t* slot(const MailboxChunk& c, int step, int tile) const {
    return c.words + (step * tiles + before + tile) * (pairs * Shape::kPairWords);
  }
};

// Whether a row of so many steps takes part at a time, which may be one before or after all steps.
FASTSEQ_DEVICE bool takes_part(int t, int length) {
  return static_cast<unsigned>(t) < static_cast<unsigned>(length);
}

// The steps of a launch, one before and one after it, and how long the rows of the group are.
template <class Shape>
class MailboxSteps {
 public:
  // reverse: they are taken from the last one on.
  FASTSEQ_DEVICE MailboxSteps(const MailboxChunk& c, const MailboxPlace<Shape>& me, bool reverse)
      : first_(static_cast<int>(reverse ? me.way.seq.steps - 1 - c.first : c.first)),
        way_(reverse ? -1 : 1),
        tile_(me.first),
        at_(Shape::kStepsAt, Shape::kSteps),
        lengths_(Shape::lengths_at(c.tiles), static_cast<int>(c.tiles) * Shape::kLengths) {
    const int steps = static_cast<int>(me.way.seq.steps);
    for (int i = device::thread_index(); i < c.count + 2; i += Shape::kThreads) {
      const int t = time(i - 1);
      at_.set(i, takes_part(t, steps) ? me.way.offset(t) : 0);
    }
    for (int tile = device::thread_index(); tile < me.last - me.first; tile += Shape::kThreads) {
      int longest = 0;
      FASTSEQ_UNROLL(8) for (int i = 0; i < kMailboxRows; ++i) {
        const int row = (tile_ + tile) * kMailboxRows + i;
        const int length = me.exists(tile_ + tile, i) ? me.way.seq.length(row) : 0;
        longest = longest < length ? length : longest;
        lengths_.set(tile * Shape::kLengths + i, length);
      }
      lengths_.set(tile * Shape::kLengths + kMailboxRows, longest);
    }
  }

  // Of step number i of the launch, -1 to count: when it is, and where it starts.
  FASTSEQ_DEVICE int time(int i) const { return first_ + i * way_; }
  FASTSEQ_DEVICE int at(int i) const { return at_.get(i + 1); }
  // Steps of a row of a tile, and of its longest one.
  FASTSEQ_DEVICE int length(int tile, int row) const {
    return lengths_.get((tile - tile_) * Shape::kLengths + row);
  }
  FASTSEQ_DEVICE int longest(int tile) const { return length(tile, kMailboxRows); }

 private:
  int first_, way_, tile_;
  device::Shared<int32_t> at_, lengths_;
};

// The warp's slice of W_hh.
template <class Shape>
FASTSEQ_DEVICE void load_weights(const MailboxPlace<Shape>& me, const MailboxChunk& c,
                                 uint32_t (&w)[Shape::kProducts][Shape::kTiles][4]) {
  const int block = me.way.number * static_cast<int>(c.blocks) + me.unit / Shape::kUnits;
  const int first = (block * Shape::kWarps + me.warp) * Shape::kProducts;
  const uint32_t* const p =
      c.weights + (int64_t{first} * Shape::kTiles * device::kWarp + me.lane) * 4;
  FASTSEQ_UNROLL(64) for (int i = 0; i < Shape::kProducts; ++i) {
    FASTSEQ_UNROLL(4) for (int m = 0; m < Shape::kTiles; ++m) {
      device::memory::read<4>(p + (i * Shape::kTiles + m) * 4 * device::kWarp, w[i][m]);
    }
  }
}

// The cell of a thread: one unit, and one row of the tile that it is at. The tiles of a group go
// round among teams of threads: while one team makes its cells, the others are at the next tile.
template <class Shape>
struct MailboxCell {
  int in_block, in_tile, unit;
  int row;              // as in tensors of states
  bool mine;            // whether this thread's team has the tile; the same for a whole warp
  bool exists, inside;  // the row; the unit, too

  FASTSEQ_DEVICE MailboxCell(const MailboxPlace<Shape>& me, int64_t hidden)
      : me_(me),
        hidden_(static_cast<int>(hidden)),
        kept_(Shape::kKeptAt, (me.last - me.first) * Shape::kKept * Shape::kCells) {
    const int of_team = device::thread_index() % Shape::kCells;
    // A warp has rows i and i + 4, whose sums are in different banks.
    in_block = of_team % Shape::kUnits;
    in_tile = of_team / Shape::kUnits / 2 + of_team / Shape::kUnits % 2 * 4;
    unit = me.unit + in_block;
  }

  FASTSEQ_DEVICE void go_to(int tile) {
    const int thread = device::thread_index(), of_group = tile - me_.first;
    row = me_.way.first() + tile * kMailboxRows + in_tile;
    mine = thread / Shape::kCells == of_group % Shape::kTeams;
    exists = me_.exists(tile, in_tile);
    inside = exists && unit < hidden_;
    place_ = of_group * Shape::kKept * Shape::kCells + thread % Shape::kCells;
  }

  // This unit in a row of a tensor whose rows hold `width` times H, at the i-th of these.
  template <class T>
  FASTSEQ_DEVICE float load(const void* tensor, int at, int width = 1, int i = 0) const {
    return device::load(static_cast<const T*>(tensor) + place(at, width, i));
  }
  template <class T>
  FASTSEQ_DEVICE void store(void* tensor, float x, int at, int width = 1, int i = 0) const {
    device::store(static_cast<T*>(tensor) + place(at, width, i), x);
  }

  // What replaces the state of the cell.
  template <class S>
  FASTSEQ_DEVICE float replacing(const void* state) const {
    return state ? load<S>(state, row) : 0.0f;
  }
  // Adds to a sum that is no other thread's.
  FASTSEQ_DEVICE void add(void* sums, float x) const {
    if (sums) store<float>(sums, load<float>(sums, row) + x, row);
  }

  // What this thread, and no other, keeps of the cell from step to step.
  FASTSEQ_DEVICE float kept(int i) const { return kept_.get(place_ + i * Shape::kCells); }
  FASTSEQ_DEVICE void keep(int i, float x) const { kept_.set(place_ + i * Shape::kCells, x); }

 private:
  FASTSEQ_DEVICE int64_t place(int at, int width, int i) const {
    return int64_t{at} * (width * hidden_) + (i * hidden_ + unit);
  }

  const MailboxPlace<Shape>& me_;
  int hidden_;
  device::Shared<float> kept_;
  int place_;
};

// The word that holds part `part` of a unit, in a tile whose words begin at p. In 16 bits it holds
// the next unit, too. A warp reads a pair of products, 16 bytes of each lane, in one go.
template <class Shape>
FASTSEQ_DEVICE int word_of(int unit, int part, int row) {
  const int product = unit / Shape::kDepth * Shape::kParts + part;
  const int half = unit % Shape::kDepth / Shape::kRow, q = unit % Shape::kRow / Shape::kWord;
  return (product / 2 * device::kWarp + row * 4 + q) * 4 + product % 2 * 2 + half;
}

// Hands over a number of this thread's cell; all lanes of the warp take part, whose neighbours are
// neighbouring units of a row. Padded units hand over zeros, rows beyond the batch nothing.
template <class Shape>
FASTSEQ_DEVICE void hand_over(uint32_t* tile, const MailboxCell<Shape>& cell, int part, float x) {
  using S = typename Shape::S;
  uint32_t* const p = tile + word_of<Shape>(cell.unit, part, cell.in_tile);
  if constexpr (sizeof(S) == 4) {
    if (cell.exists) device::publish(p, Factor<S>::of(x).bits);
  } else {
    const float next = device::shuffle_xor(x, 1);
    if (cell.exists && cell.unit % 2 == 0) device::publish(p, device::pack<S>(x, next));
  }
}

// This lane's words of some pairs of the warp's slice, of one row of a tile: zeros where there are
// no units, or no row (of such a lane no pair is `mine`).
template <class Shape, int kFrom>
FASTSEQ_DEVICE void ask(const uint32_t* p, int i, int mine, uint32_t (&words)[Shape::kBatch][4]) {
  if (kFrom + i < mine) {
    device::load_relaxed(p + (kFrom + i) * Shape::kPairWords, words[i]);
  } else {
    FASTSEQ_UNROLL(4) for (int j = 0; j < 4; ++j) words[i][j] = 0;
  }
}

// Waits until all of them have come; what is there already is not asked for again.
template <class Shape, int kFrom>
FASTSEQ_DEVICE void wait(const uint32_t* p, uint32_t (&words)[Shape::kBatch][4]) {
  for (;;) {
    bool missing = false;
    FASTSEQ_UNROLL(8) for (int i = 0; i < Shape::kBatch; ++i) {
      missing |= device::any_empty(words[i]);
    }
    if (!device::any(missing)) return;
    FASTSEQ_UNROLL(8) for (int i = 0; i < Shape::kBatch; ++i) {
      if (!device::any_empty(words[i])) continue;
      device::load_relaxed(p + (kFrom + i) * Shape::kPairWords, words[i]);
    }
  }
}

// Partial sums of the warps, one set for even and one for odd turns: who is a turn ahead writes
// where nobody reads any more, with one barrier a turn.
template <class Shape>
class MailboxSums {
 public:
  FASTSEQ_DEVICE MailboxSums() : sums_(0, Shape::kPartial) {}

  // W times the words of a tile, which begin at `tile`. Pairs beyond the first kBatch are asked for
  // as registers become free, while the products before them are made.
  FASTSEQ_DEVICE void multiply(const MailboxPlace<Shape>& me, int turn, const uint32_t* tile,
                               bool exists,
                               const uint32_t (&w)[Shape::kProducts][Shape::kTiles][4]) const {
    const uint32_t* const p = tile + (me.warp * Shape::kPairs * device::kWarp + me.lane) * 4;
    const int mine = exists ? me.mine : 0;
    uint32_t words[Shape::kBatch][4];
    Chains sums{};
    FASTSEQ_UNROLL(8) for (int i = 0; i < Shape::kBatch; ++i) ask<Shape, 0>(p, i, mine, words);
    multiply_from<0>(p, mine, w, words, sums);
    FASTSEQ_UNROLL(8) for (int half = 0; half < 2 * Shape::kTiles; ++half) {
      FASTSEQ_UNROLL(2) for (int i = 0; i < 2; ++i) {
        const int unit = half / Shape::kSums * 8 + me.g;
        float sum = 0;
        FASTSEQ_UNROLL(4) for (int c = 0; c < Shape::kChains; ++c) {
          sum += sums.of[c][half / 2][half % 2 * 2 + i];
        }
        sums_.set(index(turn, me.warp, half % Shape::kSums, unit, 2 * me.q + i), sum);
      }
    }
  }

  // A cell's sums over all warps, always in the same order.
  FASTSEQ_DEVICE void add(int turn, const MailboxCell<Shape>& cell,
                          float (&total)[Shape::kSums]) const {
    FASTSEQ_UNROLL(4) for (int s = 0; s < Shape::kSums; ++s) total[s] = 0;
    FASTSEQ_UNROLL(8) for (int warp = 0; warp < Shape::kWarps; ++warp) {
      FASTSEQ_UNROLL(4) for (int s = 0; s < Shape::kSums; ++s) {
        total[s] += sums_.get(index(turn, warp, s, cell.in_block, cell.in_tile));
      }
    }
  }

 private:
  // Products that do not wait for each other: a chain of 32 would take longer than all the rest.
  struct Chains {
    float of[Shape::kChains][Shape::kTiles][4];
  };

  template <int kFrom>
  static FASTSEQ_DEVICE void multiply_from(const uint32_t* p, int mine,
                                           const uint32_t (&w)[Shape::kProducts][Shape::kTiles][4],
                                           uint32_t (&words)[Shape::kBatch][4], Chains& sums) {
    wait<Shape, kFrom>(p, words);
    FASTSEQ_UNROLL(8) for (int i = 0; i < Shape::kBatch; ++i) {
      FASTSEQ_UNROLL(2) for (int j = 0; j < 2; ++j) {
        const uint32_t b[2] = {words[i][2 * j], words[i][2 * j + 1]};
        const int product = 2 * (kFrom + i) + j;
        FASTSEQ_UNROLL(4) for (int m = 0; m < Shape::kTiles; ++m) {
          device::mma<typename Shape::F>(sums.of[product % Shape::kChains][m], w[product][m], b);
        }
      }
      if constexpr (kFrom + Shape::kBatch < Shape::kPairs) {
        ask<Shape, kFrom + Shape::kBatch>(p, i, mine, words);
      }
    }
    if constexpr (kFrom + Shape::kBatch < Shape::kPairs) {
      multiply_from<kFrom + Shape::kBatch>(p, mine, w, words, sums);
    }
  }

  static FASTSEQ_DEVICE int index(int turn, int warp, int sum, int unit, int row) {
    return ((turn % 2 * Shape::kWarps + warp) * Shape::kSums + sum) * Shape::kPlane +
           row * Shape::kPitch + unit;
  }
  device::Shared<float> sums_;
};

}  // namespace fastseq::cuda
