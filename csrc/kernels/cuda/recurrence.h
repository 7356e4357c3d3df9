// The CUDA recurrence, step by step: the torch side makes the matrix products, these launchers the
// cell of one step for all active rows. Each returns null, or what went wrong, in words.
#pragma once

#include "../types.h"

namespace fastseq::cuda {

// One step forward. The state h (a.h_n) and the cell state are updated in place.
struct StepForward {
  int64_t t;
  const void* product;  // S [active, G*H]  h_{t-1} W_hh^T
  void* cell;           // A [B, H]         c, LSTM only
  void* output;         // S [active, H]    o tanh(c) where a projection follows, else null
};
const char* step_forward(DType dtype, const RecurrenceForward& a, const StepForward& s,
                         void* stream);

// One step backward. With a projection it is two launches around a product: state_gradient, then
// step_backward with `output` in place of the three parts of the gradient of h.
struct StepBackward {
  int64_t t;
  const void* product;  // S [B, R]         gate gradients of the step after, times W_hh
  void* carry;          // A [B, R]         gradient of h that does not pass through W_hh
  void* cell;           // A [B, H]         gradient of c, LSTM only
  const void* output;   // S [active, H]    gradient of the cell's output, projection only
  void* side;           // S [active, G*H]  recurrent side of the gate gradients, GRU only
};
const char* state_gradient(DType dtype, const RecurrenceBackward& a, const StepBackward& s,
                           void* stream);
const char* step_backward(DType dtype, const RecurrenceBackward& a, const StepBackward& s,
                          void* stream);
// grad_h0 and grad_c0, after the last step.
const char* finish_backward(DType dtype, const RecurrenceBackward& a, const StepBackward& s,
                            void* stream);

}  // namespace fastseq::cuda
