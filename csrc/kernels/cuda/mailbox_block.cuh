// What a block of the mailbox does in every step, forward and backward alike: its share of a tile's
// product, whose left operand is in registers for all steps and whose right one is taken, word by
// word, from all blocks of its group.
#pragma once

#include "mailbox.h"

namespace fastseq::cuda {

// Where this thread stands. A warp has all units of the block, and a slice of K. After the sums,
// a cell is of one thread: unit and row of the tile.
template <class Shape>
struct MailboxPlace {
  int warp, lane, g, q;
  int unit;         // the block's first
  int first, last;  // tiles of its group: [first, last)
  int tiles;        // of all groups
  int pairs;        // of a tile
  int mine;         // of this warp, which begins with pair warp * kPairs

  FASTSEQ_DEVICE MailboxPlace(const MailboxChunk& c, int64_t batch, int64_t hidden) {
    const int thread = device::thread_index(), block = static_cast<int>(device::block_index());
    warp = thread / device::kWarp;
    lane = thread % device::kWarp;
    g = lane / 4;
    q = lane % 4;
    const int blocks = static_cast<int>(c.blocks), each = static_cast<int>(c.tiles);
    unit = block % blocks * Shape::kUnits;
    tiles = (static_cast<int>(batch) + kMailboxRows - 1) / kMailboxRows;
    first = block / blocks * each;
    last = first + each < tiles ? first + each : tiles;
    pairs = static_cast<int>(Shape::pairs(hidden));
    const int rest = pairs - warp * Shape::kPairs;
    mine = rest < 0 ? 0 : rest < Shape::kPairs ? rest : Shape::kPairs;
  }
};

// The rows of each step of a launch, and of one before and one after it; none beyond the sequence.
template <class Shape>
class MailboxSteps {
 public:
  template <class Call>
  FASTSEQ_DEVICE MailboxSteps(const Call& a, const MailboxChunk& c, bool reverse)
      : at_(Shape::kStepsAt, 2 * Shape::kSteps) {
    const int B = static_cast<int>(a.batch), steps = static_cast<int>(a.steps);
    for (int i = device::thread_index(); i < c.count + 2; i += Shape::kThreads) {
      const int s = static_cast<int>(c.first) + i - 1, t = reverse ? steps - 1 - s : s;
      const bool inside = s >= 0 && s < steps;
      const int from = !inside ? 0 : a.offsets ? device::load(a.offsets + t) : t * B;
      const int rows = !inside ? 0 : a.offsets ? device::load(a.offsets + t + 1) - from : B;
      at_.set(2 * i, from);
      at_.set(2 * i + 1, rows);
    }
  }
  // Of step number i of the launch, -1 to count: its first row, and how many there are.
  FASTSEQ_DEVICE int at(int i) const { return at_.get(2 * i + 2); }
  FASTSEQ_DEVICE int rows(int i) const { return at_.get(2 * i + 3); }

 private:
  device::Shared<int32_t> at_;
};

// The warp's slice of W. Row n of tile m is, by halves of eight rows, sum `half % kSums` of eight
// units: a lane ends up with all sums of its cells. Along K are blocks of kDepth units, kParts
// products each. at(sum, unit, part, k) is a weight, zero beyond the ends.
template <class Shape, class At>
FASTSEQ_DEVICE void load_weights(const MailboxPlace<Shape>& me, const At& at,
                                 uint32_t (&w)[Shape::kProducts][Shape::kTiles][4]) {
  using F = typename Shape::F;
  constexpr int kParts = Shape::kParts, kSums = Shape::kSums;
  FASTSEQ_UNROLL(64) for (int p = 0; p < Shape::kProducts; ++p) {
    FASTSEQ_UNROLL(4) for (int m = 0; m < Shape::kTiles; ++m) {
      FASTSEQ_UNROLL(4) for (int i = 0; i < 4; ++i) {
        const int half = 2 * m + i % 2, unit = me.unit + half / kSums * 8 + me.g;
        const int k = (me.warp * (Shape::kProducts / kParts) + p / kParts) * Shape::kDepth +
                      i / 2 * Shape::kRow + me.q * Shape::kWord;
        const auto low = at(half % kSums, unit, p % kParts, k);
        if constexpr (sizeof(F) == 4) {
          w[p][m][i] = device::to_tf32(low).bits;
        } else {
          w[p][m][i] =
              uint32_t{low.bits} | uint32_t{at(half % kSums, unit, p % kParts, k + 1).bits} << 16;
        }
      }
    }
  }
}

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
FASTSEQ_DEVICE void hand_over(uint32_t* tile, int unit, int part, int row, bool exists,
                              float value) {
  using S = typename Shape::S;
  uint32_t* const p = tile + word_of<Shape>(unit, part, row);
  if constexpr (sizeof(S) == 4) {
    if (exists) device::publish(p, Factor<S>::of(value).bits);
  } else {
    const float next = device::shuffle_xor(value, 1);
    if (exists && unit % 2 == 0) device::publish(p, device::pack<S>(value, next));
  }
}

// This lane's words of the warp's slice, of one row of a tile whose words begin at p; zeros where
// there are no units, or no row. What is there already is not asked for again.
template <class Shape>
FASTSEQ_DEVICE void take(const MailboxPlace<Shape>& me, const uint32_t* tile, bool exists,
                         uint32_t (&words)[Shape::kPairs][4]) {
  const uint32_t* const p = tile + (me.warp * Shape::kPairs * device::kWarp + me.lane) * 4;
  const int mine = exists ? me.mine : 0;
  FASTSEQ_UNROLL(32) for (int i = 0; i < Shape::kPairs; ++i) {
    FASTSEQ_UNROLL(4) for (int j = 0; j < 4; ++j) words[i][j] = i < mine ? device::kEmpty : 0;
  }
  bool missing;
  do {
    missing = false;
    FASTSEQ_UNROLL(32) for (int i = 0; i < Shape::kPairs; ++i) {
      if (device::any_empty(words[i])) device::load_relaxed(p + i * Shape::kPairWords, words[i]);
    }
    FASTSEQ_UNROLL(32) for (int i = 0; i < Shape::kPairs; ++i) {
      missing |= device::any_empty(words[i]);
    }
  } while (device::any(missing));
}

// Partial sums of the warps, one set for even and one for odd turns: who is a turn ahead writes
// where nobody reads any more, with one barrier a turn.
template <class Shape>
class MailboxSums {
 public:
  FASTSEQ_DEVICE MailboxSums() : sums_(0, Shape::kPartial) {}

  // W times the words.
  FASTSEQ_DEVICE void multiply(const MailboxPlace<Shape>& me, int turn,
                               const uint32_t (&w)[Shape::kProducts][Shape::kTiles][4],
                               const uint32_t (&words)[Shape::kPairs][4]) const {
    float sums[2 * Shape::kTiles][2] = {};  // by halves of tiles, and columns
    FASTSEQ_UNROLL(64) for (int p = 0; p < Shape::kProducts; ++p) {
      const uint32_t b[2] = {words[p / 2][p % 2 * 2], words[p / 2][p % 2 * 2 + 1]};
      FASTSEQ_UNROLL(4) for (int m = 0; m < Shape::kTiles; ++m) {
        float c[4] = {sums[2 * m][0], sums[2 * m][1], sums[2 * m + 1][0], sums[2 * m + 1][1]};
        device::mma<typename Shape::F>(c, w[p][m], b);
        FASTSEQ_UNROLL(4) for (int i = 0; i < 4; ++i) sums[2 * m + i / 2][i % 2] = c[i];
      }
    }
    FASTSEQ_UNROLL(8) for (int half = 0; half < 2 * Shape::kTiles; ++half) {
      FASTSEQ_UNROLL(2) for (int i = 0; i < 2; ++i) {
        const int unit = half / Shape::kSums * 8 + me.g;
        sums_.set(index(turn, me.warp, half % Shape::kSums, unit, 2 * me.q + i), sums[half][i]);
      }
    }
  }

  // A cell's sums over all warps, always in the same order.
  FASTSEQ_DEVICE void add(int turn, int unit, int row, float (&total)[Shape::kSums]) const {
    FASTSEQ_UNROLL(4) for (int s = 0; s < Shape::kSums; ++s) total[s] = 0;
    FASTSEQ_UNROLL(8) for (int warp = 0; warp < Shape::kWarps; ++warp) {
      FASTSEQ_UNROLL(4) for (int s = 0; s < Shape::kSums; ++s) {
        total[s] += sums_.get(index(turn, warp, s, unit, row));
      }
    }
  }

 private:
  static FASTSEQ_DEVICE int index(int turn, int warp, int sum, int unit, int row) {
    return ((turn % 2 * Shape::kWarps + warp) * Shape::kSums + sum) * Shape::kPlane +
           row * Shape::kPitch + unit;
  }
  device::Shared<float> sums_;
};

// The cell of a thread in a tile, and what it keeps there from step to step. The tiles of a group
// go round among teams of threads: while one team makes its cells, the others are at the next tile.
template <class Shape>
struct MailboxCell {
  bool mine;  // whether this thread's team has the tile; the same for a whole warp
  int unit, row;
  int place;  // unit of the block, row of the tile
  bool exists, inside;

  FASTSEQ_DEVICE MailboxCell(const MailboxPlace<Shape>& me, int tile, int64_t batch,
                             int64_t hidden) {
    const int turn = tile - me.first;
    const int cell = device::thread_index() - turn % Shape::kTeams * Shape::kCells;
    mine = cell >= 0 && cell < Shape::kCells;
    // A warp has rows i and i + 4, whose sums are in different banks.
    const int of = cell / Shape::kUnits;
    in_block = cell % Shape::kUnits;
    in_tile = of / 2 + of % 2 * 4;
    unit = me.unit + in_block;
    row = tile * kMailboxRows + in_tile;
    exists = row < batch;
    inside = exists && unit < hidden;
    place = turn * Shape::kKept * Shape::kCells + cell;
  }

  int in_block, in_tile;

  FASTSEQ_DEVICE float kept(const device::Shared<float>& all, int i) const {
    return all.get(place + i * Shape::kCells);
  }
  FASTSEQ_DEVICE void keep(const device::Shared<float>& all, int i, float value) const {
    all.set(place + i * Shape::kCells, value);
  }
};

}  // namespace fastseq::cuda
