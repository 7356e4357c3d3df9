// The mailbox as its callers see it: how a call is divided, and its launchers (mailbox.cu). Nothing
// here is CUDA's. Each function returns null, or what went wrong, in words.
#pragma once

#include "../types.h"

namespace fastseq::cuda {

// How a call is divided. A group of blocks holds all of W_hh once, and takes some of the tiles. Of
// both directions of a layer each has as many groups, all in one launch.
struct MailboxPlan {
  int64_t blocks;         // of a group
  int64_t groups;         // of a direction
  int64_t tiles;          // of a group, at most
  int64_t chunk;          // steps of a launch, at most
  int64_t slot;           // words of a step, of both directions
  int64_t weights, kept;  // words of both, beside those of the steps

  int64_t words() const { return slot * (chunk + 1); }
  int64_t bytes() const { return (weights + words() + kept) * 4; }  // of the mailbox
};

// Asks the current device for room. Reads sizes alone.
const char* plan_mailbox(DType dtype, const RecurrenceForward& a, MailboxPlan& plan);
const char* plan_mailbox(DType dtype, const RecurrenceBackward& a, MailboxPlan& plan);

// table: that of a ragged batch (sequence_table.h), on the device.
const char* run_mailbox(DType dtype, const RecurrenceForward& a, const MailboxPlan& plan,
                        const int32_t* table, void* mailbox, void* stream);
const char* run_mailbox(DType dtype, const RecurrenceBackward& a, const MailboxPlan& plan,
                        const int32_t* table, void* mailbox, void* stream);

}  // namespace fastseq::cuda
