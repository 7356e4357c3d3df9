// Instances of the mailbox's kernels, and the choice among them. Apart from persistent.cu, so that
// compilers take both at once.
#include "mailbox_backward.cuh"
#include "mailbox_call.h"
#include "mailbox_forward.cuh"

namespace fastseq::cuda {
namespace {

MailboxForward mailbox_of(const RecurrenceForward& a, const int32_t* table, void* mailbox) {
  return {.seq = steps_of(a.seq, table),
          .resets = resets_of(a.extra),
          .hidden = a.hidden,
          .pre = a.pre,
          .h0 = a.h0,
          .c0 = a.c0,
          .weight_hh = a.weight_hh,
          .bias_hn = a.bias_hn,
          .y = a.y,
          .h_n = a.h_n,
          .c_n = a.c_n,
          .gates = a.gates,
          .cells = a.cells,
          .mailbox = mailbox};
}

MailboxBackward mailbox_of(const RecurrenceBackward& a, const int32_t* table, void* mailbox) {
  return {.seq = steps_of(a.seq, table),
          .resets = resets_of(a.extra),
          .hidden = a.hidden,
          .grad_y = a.grad_y,
          .grad_h_n = a.grad_h_n,
          .grad_c_n = a.grad_c_n,
          .y = a.y,
          .gates = a.gates,
          .cells = a.cells,
          .h0 = a.h0,
          .c0 = a.c0,
          .weight_hh = a.weight_hh,
          .grad_pre = a.grad_pre,
          .grad_aux = a.grad_aux,
          .grad_h0 = a.grad_h0,
          .grad_c0 = a.grad_c0,
          .grad_reset_h = a.grad_reset_h,
          .grad_reset_c = a.grad_reset_c,
          .mailbox = mailbox};
}

}  // namespace

const char* plan_mailbox(DType dtype, const RecurrenceForward& a, MailboxPlan& plan) {
  return with_types(dtype, a.cell, [&](auto type, auto cell) {
    return mailbox_forward_plan<decltype(type), decltype(cell)>(mailbox_of(a, nullptr, nullptr),
                                                                plan);
  });
}

const char* plan_mailbox(DType dtype, const RecurrenceBackward& a, MailboxPlan& plan) {
  return with_types(dtype, a.cell, [&](auto type, auto cell) {
    return mailbox_backward_plan<decltype(type), decltype(cell)>(mailbox_of(a, nullptr, nullptr),
                                                                 plan);
  });
}

const char* run_mailbox(DType dtype, const RecurrenceForward& a, const MailboxPlan& plan,
                        const int32_t* table, void* mailbox, void* stream) {
  return with_types(dtype, a.cell, [&](auto type, auto cell) {
    return mailbox_forward<decltype(type), decltype(cell)>(mailbox_of(a, table, mailbox), plan,
                                                           as_stream(stream));
  });
}

const char* run_mailbox(DType dtype, const RecurrenceBackward& a, const MailboxPlan& plan,
                        const int32_t* table, void* mailbox, void* stream) {
  return with_types(dtype, a.cell, [&](auto type, auto cell) {
    return mailbox_backward<decltype(type), decltype(cell)>(mailbox_of(a, table, mailbox), plan,
                                                            as_stream(stream));
  });
}

}  // namespace fastseq::cuda
