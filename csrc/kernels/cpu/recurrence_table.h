// The entry points that each instruction set's build exports, in the order of DType.
#pragma once

#include "recurrence.h"

namespace fastseq {

struct ForwardTable {
  decltype(RecurrenceKernels::forward_team_bytes) team_bytes;
  decltype(RecurrenceKernels::forward_member_bytes) member_bytes;
  decltype(RecurrenceKernels::forward_run) run;
  decltype(RecurrenceKernels::packed_bytes) packed_bytes;
  decltype(RecurrenceKernels::pack) pack;
};
struct BackwardTable {
  decltype(RecurrenceKernels::backward_team_bytes) team_bytes;
  decltype(RecurrenceKernels::backward_member_bytes) member_bytes;
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
FASTSEQ_DECLARE_TABLES(avx512_bf16)  // bfloat16 alone
FASTSEQ_DECLARE_TABLES(amx)          // likewise

}  // namespace fastseq
