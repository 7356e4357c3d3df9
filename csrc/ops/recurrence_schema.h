// The recurrence's schemas.
//
// pre       [T, B, G*H], or [N, G*H] with batch_sizes: input side of the gates' pre-activations,
//           biases included (GRU: without the recurrent bias of n, which is bias_hn)
// h0        [B, R]       c0 [B, H] for LSTM
// weight_hh [G*H, R]     weight_hr [R, H] for LSTM with projection
// batch_sizes [T] int64 on the CPU: rows of each step, as in a PackedSequence
// cell      0 LSTM, 1 GRU, 2 tanh RNN, 3 ReLU RNN (fastseq::Cell)
// save      keep what backward needs; otherwise gates and cells come back empty
// y [.., R], h_n [B, R], c_n [B, H] or empty, gates [.., C*H], cells [.., H] in the sum type
// grad_aux: GRU [.., H] gradient of W_hn h + b_hn; with projection [.., R] gradient of h; or empty
#pragma once

namespace fastseq::ops {

constexpr const char* kRecurrenceSchema =
    "recurrence(Tensor pre, Tensor h0, Tensor? c0, Tensor weight_hh, Tensor? bias_hn, "
    "Tensor? weight_hr, Tensor? batch_sizes, int cell, bool reverse, bool save) "
    "-> (Tensor y, Tensor h_n, Tensor c_n, Tensor gates, Tensor cells)";

constexpr const char* kRecurrenceBackwardSchema =
    "recurrence_backward(Tensor? grad_y, Tensor? grad_h_n, Tensor? grad_c_n, Tensor? grad_gates, "
    "Tensor? grad_cells, Tensor y, Tensor gates, Tensor cells, Tensor h0, Tensor? c0, "
    "Tensor weight_hh, Tensor? weight_hr, Tensor? batch_sizes, int cell, bool reverse) "
    "-> (Tensor grad_pre, Tensor grad_aux, Tensor grad_h0, Tensor grad_c0)";

}  // namespace fastseq::ops
