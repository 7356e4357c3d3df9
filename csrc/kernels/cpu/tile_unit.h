// The tile unit of AMX, instruction by instruction: the only file that spells them. Compiled for
// the tests, they are those of python_tests/amx/tiles_on_host.h, which runs on any CPU.
//
// In words of our own, not by the compiler's intrinsics: those of GCC 12 do not say that memory is
// read, so that what was stored before may come too late, and their tiles are no template's
// numbers.
#pragma once

#include "vec.h"

#if defined(FASTSEQ_TILES_ON_HOST)
#include "tiles_on_host.h"
#else

namespace fastseq::FASTSEQ_CAPABILITY::tile {

// shapes: 64 bytes, see TileShapes (amx.h). All tiles become zero.
FASTSEQ_INLINE void configure(const void* shapes) {
  __asm__ volatile("ldtilecfg (%0)" : : "r"(shapes) : "memory");
}
FASTSEQ_INLINE void release() { __asm__ volatile("tilerelease" : : : "memory"); }

template <int kTile>
FASTSEQ_INLINE void zero() {
  __asm__ volatile("tilezero %%tmm%c0" : : "i"(kTile));
}
// Rows lie `pitch` bytes apart.
template <int kTile>
FASTSEQ_INLINE void load(const void* from, int64_t pitch) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2"
                   :
                   : "r"(from), "r"(pitch), "i"(kTile)
                   : "memory");
}
template <int kTile>
FASTSEQ_INLINE void store(void* to, int64_t pitch) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(pitch), "i"(kTile) : "memory");
}
// sum += state times weights, pairs of bfloat16 in float32.
template <int kSum, int kState, int kWeights>
FASTSEQ_INLINE void multiply() {
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0"
                   :
                   : "i"(kSum), "i"(kState), "i"(kWeights));
}

}  // namespace fastseq::FASTSEQ_CAPABILITY::tile

#endif
