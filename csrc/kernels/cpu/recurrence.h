// The CPU recurrence as the torch side sees it: every member of a team runs the same function, and
// they divide the work among themselves.
#pragma once

#include "../types.h"
#include "team.h"

namespace fastseq {

// One instruction set's kernels for one dtype. Scratch is 64-byte aligned: the team's, then each
// member's.
struct RecurrenceKernels {
  int64_t (*forward_team_bytes)(const RecurrenceForward&);
  int64_t (*backward_team_bytes)(const RecurrenceBackward&);
  // Of each member of a team of so many.
  int64_t (*forward_member_bytes)(const RecurrenceForward&, int64_t members);
  int64_t (*backward_member_bytes)(const RecurrenceBackward&, int64_t members);
  void (*forward_run)(const RecurrenceForward&, const Member&, char* team, char* own);
  void (*backward_run)(const RecurrenceBackward&, const Member&, char* team, char* own);
  // The weights of a layer once for many calls (RecurrenceForward::packed).
  int64_t (*packed_bytes)(const RecurrenceForward&);
  void (*pack)(RecurrenceForward, void* to);
};

// The kernels of the instruction set in use (capability.h).
const RecurrenceKernels& recurrence_kernels(DType dtype);

}  // namespace fastseq
