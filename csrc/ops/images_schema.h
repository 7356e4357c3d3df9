// Schemas of local response normalization, max-pool and their fusion with ReLU.
//
// x              [N, C, ...] or, for pooling, also [C, H, W]; any strides, results are dense in the
//                memory format that x's strides suggest
// offsets        the place of each maximum in its window, i_h * kernel_w + i_w: uint8, or int32 for
//                windows of more than 256 places; empty unless `save`
// height, width  of x
// channels_last  the memory format of x, and of the gradient
// Sizes in pairs are (height, width).
#pragma once

namespace fastseq::ops {

#define FASTSEQ_LRN_PARAMETERS "int size, float alpha, float beta, float k"
#define FASTSEQ_POOL_PARAMETERS "int[2] kernel_size, int[2] stride, int[2] padding, int[2] dilation"

constexpr const char* kLrnSchema =
    "local_response_norm(Tensor x, " FASTSEQ_LRN_PARAMETERS ", bool within_channel) -> Tensor";

constexpr const char* kLrnBackwardSchema =
    "local_response_norm_backward(Tensor grad_y, Tensor x, " FASTSEQ_LRN_PARAMETERS
    ", bool within_channel) -> Tensor";

constexpr const char* kPoolSchema = "max_pool2d(Tensor x, " FASTSEQ_POOL_PARAMETERS
                                    ", bool ceil_mode, bool save) -> (Tensor y, Tensor offsets)";

constexpr const char* kPoolBackwardSchema =
    "max_pool2d_backward(Tensor grad_y, Tensor offsets, SymInt height, SymInt width, "
    "bool channels_last, " FASTSEQ_POOL_PARAMETERS ") -> Tensor";

constexpr const char* kTrioSchema =
    "relu_lrn_max_pool2d(Tensor x, " FASTSEQ_LRN_PARAMETERS ", " FASTSEQ_POOL_PARAMETERS
    ", bool ceil_mode, bool save) -> (Tensor y, Tensor offsets)";

constexpr const char* kTrioBackwardSchema =
    "relu_lrn_max_pool2d_backward(Tensor grad_y, Tensor offsets, Tensor "
    "x, " FASTSEQ_LRN_PARAMETERS ", " FASTSEQ_POOL_PARAMETERS ") -> Tensor";

#undef FASTSEQ_LRN_PARAMETERS
#undef FASTSEQ_POOL_PARAMETERS

}  // namespace fastseq::ops
