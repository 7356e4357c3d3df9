// Rows of numbers: load, store, fill, and the scratch memory that they live in.
#pragma once

#include "vec.h"

namespace fastseq::FASTSEQ_CAPABILITY {

// n rounded up to whole vectors.
template <class A>
FASTSEQ_INLINE int64_t whole_vectors(int64_t n) {
  return (n + lanes_of<A> - 1) / lanes_of<A> * lanes_of<A>;
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

// A tile jumps from row to row too soon for the hardware to see a stream, so the next row is asked
// for while this one is worked on. The address may lie outside any tensor: it is a hint.
FASTSEQ_INLINE void prefetch_to_read(const void* p) { __builtin_prefetch(p, 0); }
FASTSEQ_INLINE void prefetch_to_write(const void* p) { __builtin_prefetch(p, 1); }

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

}  // namespace fastseq::FASTSEQ_CAPABILITY
