// What the forward and the backward time loop share: panel shapes and row buffers.
#pragma once

#include "../cells.h"
#include "panels.h"
#include "recurrence.h"
#include "rows.h"

namespace fastseq::FASTSEQ_CAPABILITY {

// Rows of a buffer start a cache line apart from a multiple of 4 KB, so that the rows of a tile do
// not compete for the same cache sets.
template <class A>
FASTSEQ_INLINE int64_t padded(int64_t n) {
  constexpr int64_t line = 64 / sizeof(A);
  const int64_t up = (n + line - 1) / line * line;
  const int64_t wide = kPlainWide * lanes_of<A>;
  const int64_t whole = (up + wide - 1) / wide * wide;
  return whole % (1024 / static_cast<int64_t>(sizeof(A))) == 0 ? whole + line : whole;
}

// Calls f(Cell type, tag) for the cell that runs; `auto` carries the type.
template <class F>
FASTSEQ_INLINE void with_cell(Cell cell, const F& f) {
  switch (cell) {
    case Cell::kLstm:
      return f(LstmCell{});
    case Cell::kGru:
      return f(GruCell{});
    case Cell::kRnnTanh:
      return f(RnnTanhCell{});
    case Cell::kRnnRelu:
      return f(RnnReluCell{});
  }
}

}  // namespace fastseq::FASTSEQ_CAPABILITY
