// What both directions of the recurrence in one launch share: who does what in a block, and which
// rows take part in which step.
#pragma once

#include "../cells.h"
#include "common.h"
#include "mma.h"
#include "sequence_table.h"

namespace fastseq::cuda {

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
template <class S>
using factor_t = typename Factor<S>::type;

// Numbers in 16 bytes, a row of ldmatrix.
template <class S>
constexpr int kMatrixRow = static_cast<int>(16 / sizeof(S));

// Registers that `threads` may have each, in the eights in which they come: the warps of a block
// are dealt to four schedulers, and each has a quarter of the multiprocessor's.
constexpr int registers_of(int threads) {
  const int warps = (threads / device::kWarp + 3) / 4, most = 16384 / device::kWarp / warps / 8 * 8;
  return most < 255 ? most : 255;
}

// Four registers of weights, in shared memory where registers do not suffice.
struct alignas(16) SpareWeights {
  uint32_t words[4];
};

// A lane's place: unit g of each eight of its warp's units, rows 2q and 2q + 1 of its block. Its
// cell number j is row j % 2, unit j / 2 of these.
struct SelfLane {
  Direction way;  // of the block: those of the second direction come behind those of the first
  int warp, lane, g, q;
  int unit, row;  // of cell 0, in the layer and in tensors of states
  int hidden;
  int lengths[2];  // of its rows, in steps; -1: there is no such row
  int steps;       // of the block: of its longest row

  FASTSEQ_DEVICE SelfLane(const TableOfSteps& a, int64_t width, int units)
      : way{a, block() >= blocks(a)},
        warp(device::thread_index() / device::kWarp),
        lane(device::thread_index() % device::kWarp),
        g(lane / 4),
        q(lane % 4),
        unit(warp * units + g),
        row(way.first() + (block() - way.number * blocks(a)) * kSelfRows + 2 * q),
        hidden(static_cast<int>(width)),
        steps(longest(row - 2 * q)) {
    FASTSEQ_UNROLL(2) for (int i = 0; i < 2; ++i) {
      lengths[i] = row + i < way.end() ? way.length(row + i) : -1;
    }
  }

  FASTSEQ_DEVICE bool inside(int j) const {
    return unit + j / 2 * 8 < hidden && lengths[j % 2] >= 0;
  }
  FASTSEQ_DEVICE bool active(int j, int t) const {
    return unit + j / 2 * 8 < hidden && t < lengths[j % 2];
  }
  // Cell j in a step of a tensor whose rows hold `width` times H, at the i-th of these. What is the
  // same for all lanes is added last: it needs no registers of theirs.
  template <class T>
  FASTSEQ_DEVICE T* of(T* step, int j, int width, int i) const {
    return step + ((row + j % 2) * width * hidden + unit + j / 2 * 8) + int64_t{i} * hidden;
  }
  // What replaces the state of cell j.
  template <class S>
  FASTSEQ_DEVICE float replacing(const void* state, int j) const {
    return state && inside(j) ? device::load(of(static_cast<const S*>(state), j, 1, 0)) : 0.0f;
  }

 private:
  static FASTSEQ_DEVICE int block() { return static_cast<int>(device::block_index()); }
  // Of a direction.
  static FASTSEQ_DEVICE int blocks(const TableOfSteps& a) {
    return (static_cast<int>(a.batch) + kSelfRows - 1) / kSelfRows;
  }
  FASTSEQ_DEVICE int longest(int first) const {
    int most = 0;
    FASTSEQ_UNROLL(8) for (int i = 0; i < kSelfRows; ++i) {
      const int steps = first + i < way.end() ? way.length(first + i) : 0;
      most = most < steps ? steps : most;
    }
    return most;
  }
};

// f(the number type, the cell's): those that tensor cores multiply
template <class F>
const char* with_types(DType dtype, Cell cell, const F& f) {
  return with_dtype(dtype, [&](auto type) -> const char* {
    if constexpr (sizeof(type) == 8) {
      return "there is no such kernel of double";
    } else {
      return with_cell(cell, [&](auto kind) { return f(type, kind); });
    }
  });
}

}  // namespace fastseq::cuda
