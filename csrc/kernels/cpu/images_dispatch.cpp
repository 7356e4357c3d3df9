// Chooses the kernels on images of the instruction set in use.
#include "capability.h"
#include "images_table.h"

namespace fastseq {
namespace {

ImagesKernels joined(const LrnTable& lrn, const LrnTable& within, const PoolTable& pool,
                     const TrioTable& trio) {
  return {lrn.forward,  within.forward, lrn.backward, within.backward,
          pool.forward, pool.backward,  trio.forward, trio.backward};
}

ImagesKernels kernels_of(int dtype) {
  switch (capability()) {
#if defined(FASTSEQ_HAS_AVX512)
    case Capability::kAvx512:
    case Capability::kAvx512Bf16:
    case Capability::kAmx:
      return joined(avx512::lrn_table[dtype], avx512::lrn_within_table[dtype],
                    avx512::pool_table[dtype], avx512::trio_table[dtype]);
#endif
#if defined(FASTSEQ_HAS_AVX2)
    case Capability::kAvx2:
      return joined(avx2::lrn_table[dtype], avx2::lrn_within_table[dtype], avx2::pool_table[dtype],
                    avx2::trio_table[dtype]);
#endif
    default:
      return joined(baseline::lrn_table[dtype], baseline::lrn_within_table[dtype],
                    baseline::pool_table[dtype], baseline::trio_table[dtype]);
  }
}

}  // namespace

const ImagesKernels& images_kernels(DType dtype) {
  static const ImagesKernels kernels[kDTypes] = {kernels_of(0), kernels_of(1), kernels_of(2),
                                                 kernels_of(3)};
  return kernels[static_cast<int>(dtype)];
}

}  // namespace fastseq
