// Chooses the recurrence kernels of the instruction set in use.
#include "capability.h"
#include "linear.h"
#include "recurrence_table.h"
#include "step.h"

namespace fastseq {
namespace {

RecurrenceKernels joined(const ForwardTable& f, const BackwardTable& b) {
  return {f.team_bytes, b.team_bytes, f.member_bytes, b.member_bytes,
          f.run,        b.run,        f.packed_bytes, f.pack};
}

RecurrenceKernels kernels_of(int dtype) {
  switch (capability()) {
#if defined(FASTSEQ_HAS_AMX)
    case Capability::kAmx:
      if (static_cast<DType>(dtype) == DType::kBFloat16) {
        return joined(amx::forward_table[dtype], amx::backward_table[dtype]);
      }
      [[fallthrough]];
#endif
#if defined(FASTSEQ_HAS_AVX512_BF16)
    case Capability::kAvx512Bf16:
      if (static_cast<DType>(dtype) == DType::kBFloat16) {
        return joined(avx512_bf16::forward_table[dtype], avx512_bf16::backward_table[dtype]);
      }
      [[fallthrough]];
#endif
#if defined(FASTSEQ_HAS_AVX512)
    case Capability::kAvx512:
      return joined(avx512::forward_table[dtype], avx512::backward_table[dtype]);
#endif
#if defined(FASTSEQ_HAS_AVX2)
    case Capability::kAvx2:
      return joined(avx2::forward_table[dtype], avx2::backward_table[dtype]);
#endif
    default:
      return joined(baseline::forward_table[dtype], baseline::backward_table[dtype]);
  }
}

const LinearKernel& linear_of(int dtype) {
  switch (capability()) {
#if defined(FASTSEQ_HAS_AMX)
    case Capability::kAmx:
      if (static_cast<DType>(dtype) == DType::kBFloat16) return amx::linear_table[dtype];
      [[fallthrough]];
#endif
#if defined(FASTSEQ_HAS_AVX512_BF16)
    case Capability::kAvx512Bf16:
      if (static_cast<DType>(dtype) == DType::kBFloat16) return avx512_bf16::linear_table[dtype];
      [[fallthrough]];
#endif
#if defined(FASTSEQ_HAS_AVX512)
    case Capability::kAvx512:
      return avx512::linear_table[dtype];
#endif
#if defined(FASTSEQ_HAS_AVX2)
    case Capability::kAvx2:
      return avx2::linear_table[dtype];
#endif
    default:
      return baseline::linear_table[dtype];
  }
}

const StepKernel* step_table() {
  switch (capability()) {
#if defined(FASTSEQ_HAS_AVX512)
    case Capability::kAmx:
    case Capability::kAvx512Bf16:
    case Capability::kAvx512:
      return avx512::step_table;
#endif
#if defined(FASTSEQ_HAS_AVX2)
    case Capability::kAvx2:
      return avx2::step_table;
#endif
    default:
      return baseline::step_table;
  }
}

}  // namespace

const LinearKernel& linear_kernel(DType dtype) { return linear_of(static_cast<int>(dtype)); }

StepKernel step_kernel(DType dtype) {
  static const StepKernel* const table = step_table();
  return table[static_cast<int>(dtype)];
}

const RecurrenceKernels& recurrence_kernels(DType dtype) {
  static const RecurrenceKernels kernels[kDTypes] = {kernels_of(0), kernels_of(1), kernels_of(2),
                                                     kernels_of(3)};
  return kernels[static_cast<int>(dtype)];
}

}  // namespace fastseq
