// The schemas of the recurrence, and of a whole layer: its input product as well.
//
// x         [T, B, I], or [N, I] with batch_sizes
// weight_ih [G*H, I]     bias_ih, bias_hh [G*H]
// pre       [T, B, G*H], or [N, G*H] with batch_sizes: input side of the gates' pre-activations,
//           biases included (GRU: without the recurrent bias of n, which is bias_hn)
// h0        [B, R]       c0 [B, H] for LSTM
// weight_hh [G*H, R]     weight_hr [R, H] for LSTM with projection
// batch_sizes [T] int64 on the CPU: rows of each step, as in a PackedSequence
// cell      0 LSTM, 1 GRU, 2 tanh RNN, 3 ReLU RNN (fastseq::Cell)
// save      keep what backward needs; otherwise gates and cells come back empty
// y [.., R], h_n [B, R], c_n [B, H] or empty, gates [.., C*H], cells [.., H] in the sum type
// wanted    the gradients to make, a sum of fastseq::ops::Wanted; the others come back empty
// grad_aux: GRU [.., H] gradient of W_hn h + b_hn; with projection [.., R] gradient of h; or empty
#pragma once

#include <cstdint>

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

// On CUDA alone: all steps in one launch, float32 multiplied as TF32. Without weight_hr, grad_gates
// and grad_cells, and for what cuda/persistent.h has kernels for; the rest is refused in words.
// Without batch_sizes, rows may have lengths [B] int64, on the device, and resets, as those of
// extended_layer; beyond a length y and cells are zeros, and so are grad_pre and grad_aux.
// Both directions of a layer go in one launch where every tensor but batch_sizes, lengths and reset
// has a dimension of 2 in front (weight_hh [2, G*H, H]): the second one runs the other way.
constexpr const char* kPersistentSchema =
    "recurrence_persistent(Tensor pre, Tensor h0, Tensor? c0, Tensor weight_hh, Tensor? bias_hn, "
    "Tensor? weight_hr, Tensor? batch_sizes, Tensor? lengths, Tensor? reset, Tensor? reset_h, "
    "Tensor? reset_c, int cell, bool reverse, bool save) "
    "-> (Tensor y, Tensor h_n, Tensor c_n, Tensor gates, Tensor cells)";

constexpr const char* kPersistentBackwardSchema =
    "recurrence_persistent_backward(Tensor? grad_y, Tensor? grad_h_n, Tensor? grad_c_n, "
    "Tensor? grad_gates, Tensor? grad_cells, Tensor y, Tensor gates, Tensor cells, Tensor h0, "
    "Tensor? c0, Tensor weight_hh, Tensor? weight_hr, Tensor? batch_sizes, Tensor? lengths, "
    "Tensor? reset, Tensor? reset_h, Tensor? reset_c, int cell, bool reverse) "
    "-> (Tensor grad_pre, Tensor grad_aux, Tensor grad_h0, Tensor grad_c0, Tensor grad_reset_h, "
    "Tensor grad_reset_c)";

constexpr const char* kLayerSchema =
    "layer(Tensor x, Tensor h0, Tensor? c0, Tensor weight_ih, Tensor weight_hh, Tensor? bias_ih, "
    "Tensor? bias_hh, Tensor? weight_hr, Tensor? batch_sizes, int cell, bool reverse, bool save) "
    "-> (Tensor y, Tensor h_n, Tensor c_n, Tensor gates, Tensor cells)";

constexpr const char* kLayerBackwardSchema =
    "layer_backward(Tensor? grad_y, Tensor? grad_h_n, Tensor? grad_c_n, Tensor? grad_gates, "
    "Tensor? grad_cells, Tensor x, Tensor y, Tensor gates, Tensor cells, Tensor h0, Tensor? c0, "
    "Tensor weight_ih, Tensor weight_hh, Tensor? weight_hr, Tensor? batch_sizes, int cell, "
    "bool reverse, int wanted) -> (Tensor grad_x, Tensor grad_h0, Tensor grad_c0, "
    "Tensor grad_weight_ih, Tensor grad_weight_hh, Tensor grad_bias_ih, Tensor grad_bias_hh, "
    "Tensor grad_weight_hr)";

// A layer with what the plain recurrence does not do (fastseq::Extras); without weight_ih, x is
// `pre`. lengths [B] int64; reset [T, B] bool; reset_h, drop [B, R]; reset_c [B, H];
// zone_h [.., R], zone_c [.., H]; norm_hh [G*H]; norm_c, norm_c_bias [H]; products [.., G*H].
// Backward takes all that forward took: its own derivative runs the layer again.
constexpr const char* kExtendedLayerSchema =
    "extended_layer(Tensor x, Tensor h0, Tensor? c0, Tensor? weight_ih, Tensor weight_hh, "
    "Tensor? bias_ih, Tensor? bias_hh, Tensor? weight_hr, Tensor? batch_sizes, Tensor? lengths, "
    "Tensor? reset, Tensor? reset_h, Tensor? reset_c, Tensor? drop, Tensor? zone_h, "
    "Tensor? zone_c, Tensor? norm_hh, Tensor? norm_c, Tensor? norm_c_bias, float epsilon, "
    "int cell, bool reverse, bool save) "
    "-> (Tensor y, Tensor h_n, Tensor c_n, Tensor gates, Tensor cells, Tensor products)";

constexpr const char* kExtendedLayerBackwardSchema =
    "extended_layer_backward(Tensor? grad_y, Tensor? grad_h_n, Tensor? grad_c_n, "
    "Tensor? grad_cells, Tensor y, Tensor gates, Tensor cells, Tensor products, Tensor x, "
    "Tensor h0, Tensor? c0, Tensor? weight_ih, Tensor weight_hh, Tensor? bias_ih, "
    "Tensor? bias_hh, Tensor? weight_hr, Tensor? batch_sizes, Tensor? lengths, Tensor? reset, "
    "Tensor? reset_h, Tensor? reset_c, Tensor? drop, Tensor? zone_h, Tensor? zone_c, "
    "Tensor? norm_hh, Tensor? norm_c, Tensor? norm_c_bias, float epsilon, int cell, bool reverse, "
    "int wanted) "
    "-> (Tensor grad_x, Tensor grad_h0, Tensor grad_c0, Tensor grad_weight_ih, "
    "Tensor grad_weight_hh, Tensor grad_bias_ih, Tensor grad_bias_hh, Tensor grad_weight_hr, "
    "Tensor grad_reset_h, Tensor grad_reset_c, Tensor grad_norm_hh, Tensor grad_norm_c, "
    "Tensor grad_norm_c_bias)";

// One step, without gradients: x [B, I], h [B, H], c [B, H] for LSTM. c_next is empty but for LSTM.
constexpr const char* kStepSchema =
    "step(Tensor x, Tensor h, Tensor? c, Tensor weight_ih, Tensor weight_hh, Tensor? bias_ih, "
    "Tensor? bias_hh, int cell) -> (Tensor h_next, Tensor c_next)";

// The same in place of the states.
constexpr const char* kStepInPlaceSchema =
    "step_(Tensor x, Tensor(a!) h, Tensor(b!)? c, Tensor weight_ih, Tensor weight_hh, "
    "Tensor? bias_ih, Tensor? bias_hh, int cell) -> ()";

// x W^T of weight [M, K], or x W if turned; every row the same bits whatever the others.
constexpr const char* kLinearSchema = "linear(Tensor x, Tensor weight, bool turned) -> Tensor";

// A layer's weights in one direction as the kernels of this machine read them: bytes, which say
// what they are. Those of a stack, layer by layer and direction by direction, are put end to end.
constexpr const char* kPackLayerSchema =
    "pack_layer(Tensor weight_ih, Tensor weight_hh, Tensor? bias_ih, Tensor? bias_hh, "
    "Tensor? weight_hr, int cell) -> Tensor";

// A whole stack without gradients on packed weights. x [T, B, I], or [N, I] with batch_sizes;
// h0, h_n [L*D, B, R], c0, c_n [L*D, B, H], zeros where null; y [T, B, D*R] or [N, D*R].
constexpr const char* kPackedStackSchema =
    "packed_stack(Tensor x, Tensor? h0, Tensor? c0, Tensor packed, Tensor? batch_sizes, int cell, "
    "int hidden, int state, int layers, int directions) -> (Tensor y, Tensor h_n, Tensor c_n)";

// Frees the blocks that are kept between calls (memory.h); the bytes that were.
constexpr const char* kEmptyCacheSchema = "empty_cache() -> int";

enum Wanted : int64_t {
  kWantInput = 1,
  kWantWeightIh = 2,
  kWantWeightHh = 4,
  kWantBiases = 8,
  kWantWeightHr = 16,
  kWantStates = 32,
};

}  // namespace fastseq::ops
