// One step of a cell for a few rows, straight from the weights as they lie: packing them, which a
// time loop does once for all its steps, would cost more than the step.
#pragma once

#include "../types.h"

namespace fastseq {

// S: the tensors' type.
struct StepArguments {
  Cell cell;
  int64_t batch, input, hidden;
  const void* x;  // S [B, I], rows x_row apart
  int64_t x_row;
  const void* h;          // S [B, H]
  const void* c;          // S [B, H]    LSTM only
  const void* weight_ih;  // S [G*H, I]
  const void* weight_hh;  // S [G*H, H]
  const void* bias_ih;    // S [G*H]     may be null, like the other
  const void* bias_hh;
  void* h_next;  // S [B, H]    not h itself: every unit reads all of h
  void* c_next;  // S [B, H]    may be c
};

// More rows than this are better served by packed weights.
constexpr int64_t kMostStepRows = 4;

using StepKernel = void (*)(const StepArguments&);

// The kernel of the instruction set in use.
StepKernel step_kernel(DType dtype);

#define FASTSEQ_DECLARE_STEP(capability)       \
  namespace capability {                       \
  extern const StepKernel step_table[kDTypes]; \
  }

FASTSEQ_DECLARE_STEP(baseline)
FASTSEQ_DECLARE_STEP(avx2)
FASTSEQ_DECLARE_STEP(avx512)

}  // namespace fastseq
