// The entry points that each instruction set's build exports, in the order of DType.
#pragma once

#include "images.h"

namespace fastseq {

template <class Forward, class Backward>
struct ImagesTable {
  ImagesKernel<Forward> forward;
  ImagesKernel<Backward> backward;
};
using LrnTable = ImagesTable<LrnForward, LrnBackward>;
using PoolTable = ImagesTable<PoolForward, PoolBackward>;
using TrioTable = ImagesTable<TrioForward, TrioBackward>;

#define FASTSEQ_DECLARE_IMAGES(capability)         \
  namespace capability {                           \
  extern const LrnTable lrn_table[kDTypes];        \
  extern const LrnTable lrn_within_table[kDTypes]; \
  extern const PoolTable pool_table[kDTypes];      \
  extern const TrioTable trio_table[kDTypes];      \
  }

FASTSEQ_DECLARE_IMAGES(baseline)
FASTSEQ_DECLARE_IMAGES(avx2)
FASTSEQ_DECLARE_IMAGES(avx512)

}  // namespace fastseq
