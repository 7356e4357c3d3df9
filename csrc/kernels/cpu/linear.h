// x W^T for rows whose result must not depend on the other rows, which a BLAS library's does.
#pragma once

#include "../types.h"
#include "team.h"

namespace fastseq {

// S: the tensors' type.
struct LinearArguments {
  int64_t rows, inner, outputs;
  const void* x;       // S [rows, inner]
  const void* weight;  // S: output o and inner index k at o * output_stride + k * inner_stride
  int64_t output_stride, inner_stride;
  void* y;  // S [rows, outputs]
};

// One instruction set's kernel for one dtype; memory as for RecurrenceKernels.
struct LinearKernel {
  int64_t (*team_bytes)(const LinearArguments&);
  int64_t (*member_bytes)(const LinearArguments&, int64_t members);
  void (*run)(const LinearArguments&, const Member&, char* team, char* own);
};

// The kernel of the instruction set in use.
const LinearKernel& linear_kernel(DType dtype);

#define FASTSEQ_DECLARE_LINEAR(capability)         \
  namespace capability {                           \
  extern const LinearKernel linear_table[kDTypes]; \
  }

FASTSEQ_DECLARE_LINEAR(baseline)
FASTSEQ_DECLARE_LINEAR(avx2)
FASTSEQ_DECLARE_LINEAR(avx512)
FASTSEQ_DECLARE_LINEAR(avx512_bf16)  // bfloat16 alone
FASTSEQ_DECLARE_LINEAR(amx)          // likewise

}  // namespace fastseq
