// The entry points that each instruction set's build exports, in the order of DType.
#pragma once

#include "recurrence.h"

namespace fastseq {

struct ForwardTable {
  decltype(RecurrenceKernels::forward_panels) panels;
  decltype(RecurrenceKernels::forward_packed_bytes) packed_bytes;
  decltype(RecurrenceKernels::forward_scratch_bytes) scratch_bytes;
  decltype(RecurrenceKernels::forward_pack) pack;
  decltype(RecurrenceKernels::forward_run) run;
};
struct BackwardTable {
  decltype(RecurrenceKernels::backward_panels) panels;
  decltype(RecurrenceKernels::backward_packed_bytes) packed_bytes;
  decltype(RecurrenceKernels::backward_scratch_bytes) scratch_bytes;
  decltype(RecurrenceKernels::backward_pack) pack;
  decltype(RecurrenceKernels::backward_run) run;
};

#define FASTSEQ_DECLARE_TABLES(capability)            \
  namespace capability {                              \
  extern const ForwardTable forward_table[kDTypes];   \
  extern const BackwardTable backward_table[kDTypes]; \
  }

FASTSEQ_DECLARE_TABLES(baseline)
FASTSEQ_DECLARE_TABLES(avx2)
FASTSEQ_DECLARE_TABLES(avx512)

}  // namespace fastseq
