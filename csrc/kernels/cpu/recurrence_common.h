// What the forward and the backward time loop share: panel shapes, row buffers, small loops.
#pragma once

#include "../cells.h"
#include "panels.h"
#include "recurrence.h"

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

template <class A, class S>
void load_row(A* to, const S* from, int64_t n) {
  constexpr int64_t L = lanes_of<A>;
  for (int64_t i = 0; i < n; i += L) store<A>(to + i, load_n<A>(from + i, n - i));
}
template <class A, class S>
void store_row(S* to, const A* from, int64_t n) {
  constexpr int64_t L = lanes_of<A>;
  for (int64_t i = 0; i < n; i += L) store_n<A>(to + i, load<A>(from + i), n - i);
}
template <class A>
void fill_row(A* to, int64_t n) {
  __builtin_memset(to, 0, static_cast<size_t>(n) * sizeof(A));
}
template <class A>
void copy_row(A* to, const A* from, int64_t n) {
  __builtin_memcpy(to, from, static_cast<size_t>(n) * sizeof(A));
}

FASTSEQ_INLINE int64_t clamped(int64_t x, int64_t low, int64_t high) {
  return x < low ? low : x > high ? high : x;
}

// A bump allocator over the scratch block; with no block it only counts.
template <class A>
struct Scratch {
  A* base;
  int64_t used = 0;
  A* take(int64_t n) {
    A* const p = base ? base + used : nullptr;
    used += n;
    return p;
  }
};

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
