// The CUDA recurrence with all steps in one launch: which kernel takes a call, and its launchers.
// Each returns null, or what went wrong, in words.
#pragma once

#include "../types.h"

namespace fastseq::cuda {

// A further kernel is one more name here, a line in persistent_kernel and one in each launcher.
enum class Persistent : int { kNone = 0, kSelf = 1 };

// The most units of a layer that one block has registers for, in both directions. float32 is
// multiplied as TF32.
constexpr int64_t self_units(Cell cell, DType dtype) {
  if (dtype == DType::kDouble) return 0;
  if (dtype != DType::kFloat) return 128;
  return cell == Cell::kLstm || cell == Cell::kGru ? 96 : 128;
}

constexpr Persistent persistent_kernel(Cell cell, DType dtype, int64_t hidden) {
  return hidden <= self_units(cell, dtype) ? Persistent::kSelf : Persistent::kNone;
}

// Numbers of int32 that a launch wants on the device beside its tensors.
int64_t persistent_table(const Sequence& seq);

// No projection; of backward, no gradients of what forward saved.
const char* persistent_forward(DType dtype, const RecurrenceForward& a, int32_t* table,
                               void* stream);
const char* persistent_backward(DType dtype, const RecurrenceBackward& a, int32_t* table,
                                void* stream);

}  // namespace fastseq::cuda
