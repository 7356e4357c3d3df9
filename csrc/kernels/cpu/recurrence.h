// The CPU recurrence as the torch side sees it: pack the weights, then run slices of the batch.
// Slices share nothing but the packed weights, so they need no barrier between steps.
#pragma once

#include "../types.h"

namespace fastseq {

struct RecurrenceShape {
  Cell cell;
  int64_t hidden;  // H
  int64_t state;   // R
  bool projected;  // weight_hr is given
};

// One instruction set's kernels for one dtype.
struct RecurrenceKernels {
  // Panels of packed weights, and the bytes that all of them need (64-byte aligned).
  int64_t (*forward_panels)(const RecurrenceShape&);
  int64_t (*forward_packed_bytes)(const RecurrenceShape&);
  int64_t (*backward_panels)(const RecurrenceShape&);
  int64_t (*backward_packed_bytes)(const RecurrenceShape&);
  // Working memory of a slice of `rows` batch rows.
  int64_t (*forward_scratch_bytes)(const RecurrenceShape&, int64_t rows);
  int64_t (*backward_scratch_bytes)(const RecurrenceShape&, int64_t rows);
  // Packs panels [first, last).
  void (*forward_pack)(const RecurrenceForward&, int64_t first, int64_t last, void* packed);
  void (*backward_pack)(const RecurrenceBackward&, int64_t first, int64_t last, void* packed);
  // Runs every step for batch rows [first, last).
  void (*forward_run)(const RecurrenceForward&, int64_t first, int64_t last, const void* packed,
                      void* scratch);
  void (*backward_run)(const RecurrenceBackward&, int64_t first, int64_t last, const void* packed,
                       void* scratch);
};

// The kernels of the instruction set in use (capability.h).
const RecurrenceKernels& recurrence_kernels(DType dtype);

}  // namespace fastseq
