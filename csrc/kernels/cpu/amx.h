// Products of bfloat16 by the tiles of AMX (Sapphire Rapids and later): one instruction multiplies
// 16 rows of the state with 16 groups (pairs of the inner dimension) of 16 outputs.
//
// Nobody has run this on such a CPU: it is tested by python_tests/amx, which stands in for the
// instructions, and was laid out by arithmetic. So it runs where it is asked for, and nowhere else.
//
// The eight tiles:
//   0-3  sums of up to 16 rows, one tile for each vector of a panel
//   4    the rows' state, 16 groups of it      5  weights, 16 groups of one vector
//   6, 7 the same of what is left, where the groups are no multiple of 16
// One row of sums, not two by two: of a panel's four products, 16 cycles each, the five loads take
// 40 cycles (16 lines each, two a cycle), so the products are what limits already; and two heights
// with their remainders would be ten shapes. What is left has tiles of its own shape: nothing is
// read beyond the buffers, nothing is configured anew, and every sum is made by the same
// instruction.
#pragma once

#include <utility>

#include "lines.h"
#include "tile_unit.h"

namespace fastseq::FASTSEQ_CAPABILITY {

// What ldtilecfg reads: rows, and bytes of a row, of each tile; zeros: no such tile.
struct TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileShapes) == 64);

// The tiles of this thread while a sweep multiplies, in the shapes of its products. Given back at
// the sweep's end: a thread that waits has none that the system would have to save.
class TileUnit {
 public:
  static constexpr int kRows = 16, kGroups = 16;  // at most
  static constexpr int kLine = 64;                // bytes of 16 groups, and of 16 sums

  TileUnit() = default;
  TileUnit(const TileUnit&) = delete;
  TileUnit& operator=(const TileUnit&) = delete;
  FASTSEQ_INLINE ~TileUnit() {
    if (rows_ > 0) tile::release();
  }

  // For products of so many rows, with `rest` groups beyond whole tiles. A sweep has two heights at
  // most, and one rest beside none: it seldom changes.
  FASTSEQ_INLINE void shape(int64_t rows, int64_t rest) {
    if (rows == rows_ && (rest == 0 || rest == rest_)) return;
    rows_ = rows;
    if (rest > 0) rest_ = rest;
    const auto height = static_cast<uint8_t>(rows);
    TileShapes shapes;
    for (int i = 0; i < 6; ++i) shapes.row_bytes[i] = kLine;
    for (int i = 0; i < 5; ++i) shapes.rows[i] = height;
    shapes.rows[5] = kGroups;
    if (rest_ > 0) {
      shapes.row_bytes[6] = static_cast<uint16_t>(4 * rest_);
      shapes.rows[6] = height;
      shapes.row_bytes[7] = kLine;
      shapes.rows[7] = static_cast<uint8_t>(rest_);
    }
    tile::configure(&shapes);
  }

 private:
  int64_t rows_ = 0, rest_ = 0;
};

// As Pairs (dot.h), but for how the products are made. Subnormal factors and sums count as zero.
struct Tiles {
  using Sum = float;
  using Item = BFloat16;
  using Unit = TileUnit;
  static constexpr int64_t kPair = 2;
  static constexpr bool kTiled = true;
  // An instruction makes a sum of 32 products before it joins the total: a chain is a block.
  static constexpr int64_t kChain = 512;

  // As tile_product (tiles.h). Whole tiles of the inner dimension come first, then what is left:
  // the order in which an element is summed depends on `groups` alone. kPacked: the 16 groups (or
  // what is left) of each row lie side by side, then those of the next row; then the next 16.
  template <int kWide, int kPitch, bool kPacked>
  static __attribute__((noinline)) void product(Unit& unit, int64_t rows, const Item* state,
                                                int64_t stride, const Item* panel, int64_t groups,
                                                float* out, bool accumulate, Lines* ahead) {
    constexpr int64_t kStep = TileUnit::kGroups, kOut = kPitch * TileUnit::kLine;
    using Vectors = std::make_integer_sequence<int, kWide>;
    const int64_t rest = groups % kStep, whole = groups - rest;
    unit.shape(rows, rest);
    begin(Vectors{}, out, kOut, accumulate);
    const int64_t lines = ahead ? ahead->count() : 0;
    if (ahead) fetch(*ahead, groups, ahead->needed());
    for (int64_t g = 0; g < whole; g += kStep) {
      if (g < lines) fetch(*ahead, g, g + kStep < lines ? g + kStep : lines);
      add<4, 5>(Vectors{}, state + g * kPair * (kPacked ? rows : 1),
                kPacked ? TileUnit::kLine : stride * 2, panel + g * kWide * kVector);
    }
    if (rest > 0) {
      if (whole < lines) fetch(*ahead, whole, groups < lines ? groups : lines);
      add<6, 7>(Vectors{}, state + whole * kPair * (kPacked ? rows : 1),
                kPacked ? rest * 4 : stride * 2, panel + whole * kWide * kVector);
    }
    if (ahead) ahead->pass();
    end(Vectors{}, out, kOut);
  }

 private:
  static constexpr int64_t kVector = 32;  // items: 16 outputs of a group

  // Lines are asked for at the pace of tile_product: one for each group.
  static FASTSEQ_INLINE void fetch(const Lines& ahead, int64_t first, int64_t last) {
#pragma GCC unroll 1
    for (int64_t i = first; i < last; ++i) ahead.fetch(i);
  }
  template <int... v>
  static FASTSEQ_INLINE void begin(std::integer_sequence<int, v...>, const float* out,
                                   int64_t pitch, bool accumulate) {
    if (accumulate) {
      (tile::load<v>(out + v * 16, pitch), ...);
    } else {
      (tile::zero<v>(), ...);
    }
  }
  template <int kState, int kWeights, int... v>
  static FASTSEQ_INLINE void add(std::integer_sequence<int, v...>, const Item* state, int64_t pitch,
                                 const Item* panel) {
    const int64_t group = static_cast<int64_t>(sizeof...(v)) * TileUnit::kLine;
    tile::load<kState>(state, pitch);
    ((tile::load<kWeights>(panel + v * kVector, group), tile::multiply<v, kState, kWeights>()),
     ...);
  }
  template <int... v>
  static FASTSEQ_INLINE void end(std::integer_sequence<int, v...>, float* out, int64_t pitch) {
    (tile::store<v>(out + v * 16, pitch), ...);
  }
};

}  // namespace fastseq::FASTSEQ_CAPABILITY
