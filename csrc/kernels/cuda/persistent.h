// The CUDA recurrence with all steps in one launch: which kernel takes a call, and its launchers.
// Each returns null, or what went wrong, in words.
#pragma once

#include "../types.h"
#include "mailbox_call.h"

namespace fastseq::cuda {

// A further kernel is one more name here, a line in persistent_kernel and one in each launcher.
enum class Persistent : int { kNone = 0, kSelf = 1, kMailbox = 2 };

// The most units of a layer that one block has registers for, in both directions. float32 is
// multiplied as TF32.
constexpr int64_t self_units(Cell cell, DType dtype) {
  if (dtype == DType::kDouble) return 0;
  if (dtype == DType::kFloat) return cell == Cell::kLstm || cell == Cell::kGru ? 96 : 128;
  return cell == Cell::kLstm || cell == Cell::kGru ? 128 : 192;
}

// And those for which many blocks have, as many as there are units for.
constexpr int64_t mailbox_units(Cell cell, DType dtype) {
  if (dtype == DType::kDouble) return 0;
  if (dtype != DType::kFloat) return 1024;
  return cell == Cell::kLstm || cell == Cell::kGru ? 512 : 1024;
}

constexpr Persistent persistent_kernel(Cell cell, DType dtype, int64_t hidden) {
  return hidden <= self_units(cell, dtype)      ? Persistent::kSelf
         : hidden <= mailbox_units(cell, dtype) ? Persistent::kMailbox
                                                : Persistent::kNone;
}

// Whether the current device has room, forward and backward, for all blocks of a kernel that wait
// for each other, at any number of steps, those of both directions where there are two. Asked
// before anything is launched: a call that is refused can still go another way.
const char* persistent_room(DType dtype, Cell cell, int64_t hidden, int64_t batch,
                            int64_t directions);

// What a launch wants on the device beside its tensors.
struct PersistentPlan {
  int64_t table;        // numbers of int32
  bool stepless;        // the final states of rows without a step are the caller's to write
  MailboxPlan mailbox;  // of no bytes but for that kernel
};

// No projection; of `extra` resets alone; of backward, no gradients of what forward saved. Where
// rows have lengths, nothing is written beyond them. grad_reset_h and grad_reset_c are A, and added
// to.
const char* persistent_plan(DType dtype, const RecurrenceForward& a, PersistentPlan& plan);
const char* persistent_plan(DType dtype, const RecurrenceBackward& a, PersistentPlan& plan);

// `mailbox` is aligned to 16 bytes, and of any content.
const char* persistent_forward(DType dtype, const RecurrenceForward& a, const PersistentPlan& plan,
                               int32_t* table, void* mailbox, void* stream);
const char* persistent_backward(DType dtype, const RecurrenceBackward& a,
                                const PersistentPlan& plan, int32_t* table, void* mailbox,
                                void* stream);

}  // namespace fastseq::cuda
